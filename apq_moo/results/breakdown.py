"""Where the costs of a run's front member arise, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apq_moo.errors import UserError
from apq_moo.hardware import QUANTITIES, find_device
from apq_moo.hardware.breakdown import breakdown
from apq_moo.hardware.plots import network_picture
from apq_moo.pictures import save_picture
from apq_moo.space import load_space
from apq_moo.study.folder import RunFolder

if TYPE_CHECKING:
    from rich.table import Table


def break_down(folder: RunFolder, columns: dict[str, list[Any]], row: int) -> tuple[Table, Path]:
    """Show a front member's costs by layer.

    These are the objectives and limits of the run that add up over layers, or else all that the
    device gives.

    Args:
        folder: the run.
        columns: those of its front.
        row: the member, from 0, as in ``front.csv``.

    Returns:
        A table, and the path of the picture drawn into the run's folder.

    Raises:
        UserError: there is no such row, or the picture cannot be written.
    """
    from rich.box import SIMPLE
    from rich.table import Table

    subnets = columns["subnet"]
    if row >= len(subnets):
        raise UserError(f"row={row}: the front has {len(subnets)} rows, numbered from 0")
    folder.check_inputs()
    config = folder.at_hand
    space = load_space(config.space)
    device = find_device(config.device, missing=config.missing)
    given = subnets[row]
    (subnet,) = space.decode(space.encode([json.loads(given) if isinstance(given, str) else given]))
    asked = [
        name
        for name in dict.fromkeys([*config.objectives, *config.limits])
        if not (quantity := QUANTITIES.get(name)).expensive and quantity.compile is None
    ]
    names = asked or list(device.units)
    found = {name: breakdown(space, subnet, name, device) for name in names}
    layers = {layer.name: layer for layer in space.layers(subnet)}
    title = f"row {row} of the front"
    table = Table(title=title, box=SIMPLE)
    for heading in ("part", "layer"):
        table.add_column(heading, no_wrap=True)
    for name in names:
        table.add_column(f"{name} ({QUANTITIES.get(name).unit})", justify="right")
        table.add_column("%", justify="right")
    totals = {name: sum(costs.values()) for name, costs in found.items()}
    for part in dict.fromkeys(part for costs in found.values() for part in costs):
        cells = []
        for name, costs in found.items():
            value = costs.get(part)
            share = None if value is None else 100 * value / totals[name]
            cells += [
                "" if value is None else f"{value:.4g}",
                "" if share is None else f"{share:.1f}",
            ]
        table.add_row(part, layers[part].key if part in layers else "", *cells)
    table.add_section()
    sums = [text for name in names for text in (f"{totals[name]:.4g}", "")]
    table.add_row("all", "", *sums)
    picture = folder.path / f"breakdown-{row}.png"
    save_picture(network_picture(space, subnet, names, device, title), picture, dpi=150)
    return table, picture
