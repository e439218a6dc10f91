"""Pictures of costs: of one layer against channels and bits, and of a network layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apq_moo.errors import UserError
from apq_moo.hardware.breakdown import breakdown
from apq_moo.hardware.devices import Device
from apq_moo.hardware.quantities import QUANTITIES
from apq_moo.space import Block, Layer, Space, Subnet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = ("expand", "depthwise", "project")

_COLOURS = {"expand": "#0072B2", "depthwise": "#E69F00", "project": "#009E73", "fixed": "#8C8C8C"}
"""Colours that colour-blind readers tell apart (Okabe and Ito)."""


def short_name(device: Device) -> str:
    """A device's name without folders."""
    return Path(device.name).name


def layer_picture(
    space: Space, device: Device, block: int, part: str, kernel: int | None = None
) -> Figure:
    """Draw a layer's costs against the block's middle channels, one line for each pair of bits.

    Args:
        space: the space.
        device: the device.
        block: the block, from 0.
        part: one of :data:`PARTS`.
        kernel: of a depthwise layer; by default the smallest.

    Raises:
        UserError: no such block, part or kernel, or the device cannot cost the layer at all.
    """
    from matplotlib.figure import Figure

    if not 0 <= block < space.n_blocks:
        raise UserError(f"block {block} does not exist; blocks are 0 to {space.n_blocks - 1}")
    if part not in PARTS:
        raise UserError(f"{part!r} is no layer of a block; use {', '.join(PARTS)}")
    plan = space.plans[block]
    kernels = plan.options["kernel"]
    if kernel is not None and kernel not in kernels:
        raise UserError(f"kernel {kernel} is not offered; use {', '.join(map(str, kernels))}")
    role = "dw" if part == "depthwise" else "pw"
    pairs = [(w, a) for w in plan.options[f"w_{role}"] for a in plan.options[f"a_{role}"]]
    channels = plan.options["channels"]
    place = PARTS.index(part)

    def layer(mid: int, w: int, a: int) -> Layer:
        chosen = Block(plan.stage, kernel or kernels[0], mid, w, a, w, a)
        return plan.layers(chosen)[place]

    layers = [layer(mid, w, a) for w, a in pairs for mid in channels]
    costs = device.layer_costs(layers)
    shape = (len(pairs), len(channels))
    if not any(np.isfinite(values).any() for values in costs.values()):
        raise UserError(f"{device.name} runs block{block}.{part} at no bits that the space offers")
    figure = Figure(figsize=(5.2 * len(costs), 4.8), layout="constrained")
    axes = figure.subplots(1, len(costs), squeeze=False)[0]
    for axis, (name, values) in zip(axes, costs.items(), strict=True):
        _lines(axis, channels, pairs, values.reshape(shape))
        axis.set_ylabel(f"{name} ({device.units[name]})")
    kind = f", {kernel or kernels[0]}x{kernel or kernels[0]}" if part == "depthwise" else ""
    figure.suptitle(f"block{block}.{part}{kind} of {space.name} on {short_name(device)}")
    return figure


def _lines(
    axis: Axes, channels: Sequence[int], pairs: Sequence[tuple[int, int]], values: np.ndarray
) -> None:
    """One line for each pair of bits; lines within 1 % of each other are drawn and named as one."""
    import matplotlib as mpl

    groups: list[list[int]] = []
    for i, row in enumerate(values):
        if not np.isfinite(row).any():
            continue
        alike = [rows for rows in groups if np.allclose(values[rows[0]], row, rtol=0.01, atol=0)]
        if alike:
            alike[0].append(i)
        else:
            groups.append([i])
    groups.sort(key=lambda rows: float(np.nanmax(_finite(values[rows[0]]))), reverse=True)
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.92, len(groups)))
    for rows, colour in zip(groups, colours, strict=True):
        label = ", ".join(f"W{pairs[i][0]}A{pairs[i][1]}" for i in rows)
        axis.plot(channels, _finite(values[rows[0]]), ".-", color=colour, label=label)
    axis.set_xlabel("middle channels")
    axis.set_ylim(0, 1.05 * float(np.nanmax(_finite(values))))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2, frameon=False)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def network_picture(
    space: Space, subnet: Subnet, names: Sequence[str], device: Device, title: str
) -> Figure:
    """Draw where in a network its costs arise, one panel for each cost.

    Args:
        space: the space.
        subnet: a member of it.
        names: costs that add up over layers.
        device: the device.
        title: above the panels.

    Raises:
        UserError: see :func:`apq_moo.hardware.breakdown.breakdown`.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    found = {name: breakdown(space, subnet, name, device) for name in names}
    rows = list(dict.fromkeys(layer for costs in found.values() for layer in costs))
    height = 1.2 + 0.17 * len(rows)
    figure = Figure(figsize=(1.6 + 4.0 * len(names), height), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    places = np.arange(len(rows))
    kinds = dict.fromkeys(rows, "fixed")
    kinds |= {x.name: x.place for x in space.layers(subnet) if x.block is not None}
    for axis, (name, costs) in zip(axes, found.items(), strict=True):
        values = [costs.get(row, 0.0) for row in rows]
        axis.barh(places, values, color=[_COLOURS[kinds[row]] for row in rows])
        axis.set_xlabel(f"{name} ({QUANTITIES.get(name).unit})")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(places, rows, fontsize=7)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    shown = [kind for kind in _COLOURS if kind in kinds.values()]
    axes[-1].legend(handles=[Patch(color=_COLOURS[kind], label=kind) for kind in shown], fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure
