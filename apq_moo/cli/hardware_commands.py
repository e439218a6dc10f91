"""Commands about devices and their cost tables: ``device`` and ``lut``."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from apq_moo.cli.app import app, check_output, err, out, say, say_json
from apq_moo.cli.options import JsonOption
from apq_moo.defaults import DEFAULT_SPACE
from apq_moo.errors import UserError, one_line, warn

if TYPE_CHECKING:
    from apq_moo.hardware import LayerTable
    from apq_moo.space import Space, Subnet

device_app = typer.Typer(no_args_is_help=True, help="Show the devices that costs come from.")
lut_app = typer.Typer(no_args_is_help=True, help="Make, measure and check tables of layer costs.")
app.add_typer(device_app, name="device")
app.add_typer(lut_app, name="lut")

SpaceOption = Annotated[str, typer.Option(help="A preset or a TOML file.")]
DeviceOption = Annotated[
    str, typer.Option(help="A name, an accelerator's .toml, or a table's file.")
]
TableArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A .json, .npz or .parquet.")]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Where the table goes: .npz, .parquet or .json.")
]
_MAX_LISTED = 10
_MAX_PROVENANCE = 200


@device_app.command("list")
def device_list(as_json: JsonOption = False) -> None:
    """List the devices by name."""
    from apq_moo.hardware import DEVICES, ArrayDevice, find_device

    listed: list[dict[str, Any]] = []
    for name in DEVICES:
        try:
            device = find_device(name)
        except UserError as error:
            warn(str(error))
            continue
        text = device.machine.description if isinstance(device, ArrayDevice) else ""
        listed.append({"name": name, "description": text, "units": dict(device.units)})
    if as_json:
        say_json(listed)
        return
    for entry in listed:
        costs = ", ".join(f"{cost} ({unit})" for cost, unit in entry["units"].items())
        say(f"{entry['name']}: {entry['description'] or costs}")


@device_app.command("show")
def device_show(
    device: Annotated[str, typer.Argument(help="A name, or a device's file.")],
) -> None:
    """Show everything that a device's costs are made from."""
    from apq_moo.hardware import ArrayDevice, TableDevice, find_device

    found = find_device(device)
    if isinstance(found, TableDevice):
        _describe(found.table, device)
    elif isinstance(found, ArrayDevice):
        for field, value in asdict(found.machine).items():
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            say(f"{field}: {shown}")
    else:
        for cost, unit in found.units.items():
            say(f"{cost}: {unit}")


def _describe(table: LayerTable, source: str) -> None:
    """Print what a table holds and where it comes from."""
    import numpy as np

    say(f"{source}: {len(table):,} rows")
    for cost, values in table.values.items():
        finite = values[np.isfinite(values)]
        reach = f", {finite.min():.4g} to {finite.max():.4g}" if len(finite) else ""
        say(f"{cost}: {table.units[cost]}{reach}")
        if cost in table.spread:
            relative = 100 * np.median(table.spread[cost] / values)
            say(f"  interquartile range: {relative:.1f} % of the value (median of the rows)")
        if cost in table.constant:
            say(f"  beside the layers: {table.constant[cost]:.4g} {table.units[cost]}")
        if cost in table.corrections:
            found = table.corrections[cost]
            say(
                f"  corrected for whole networks: {found.scale:.4g} x sum + {found.offset:.4g} "
                f"{table.units[cost]}, from {found.networks} networks (Kendall tau "
                f"{found.kendall_tau:.3f}, mean error {found.mape_before:.1f} % before, "
                f"{found.mape_after:.1f} % after)"
            )
    say("bits: " + ", ".join(f"W{w}A{a}" for w, a in sorted(table.bit_pairs)))
    for key, value in _flat(table.provenance)[:_MAX_PROVENANCE]:
        say(one_line(f"{key}: {value}"))


def _flat(record: Any, prefix: str = "") -> list[tuple[str, Any]]:
    rows = []
    for key, value in record.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def _provenance(space: Space, **entries: Any) -> dict[str, Any]:
    from apq_moo.versions import versions

    return {
        **entries,
        "space": {"name": space.name, "digest": space.digest},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


@lut_app.command("build")
def lut_build(
    file: OutOption, space: SpaceOption = DEFAULT_SPACE, device: DeviceOption = "bitfusion"
) -> None:
    """Write down what every layer of a space costs on a device."""
    import numpy as np

    from apq_moo.hardware import ArrayDevice, find_device, write_table
    from apq_moo.hardware.layer_table import build
    from apq_moo.space import load_space

    check_output("costs", file)
    loaded, found = load_space(space), find_device(device)
    record = {"device": asdict(found.machine) if isinstance(found, ArrayDevice) else found.name}
    table = build(loaded, found, _provenance(loaded, **record))
    write_table(file, table)
    say(f"{len(table):,} layers of {loaded.name}: {file}")
    infeasible = int(np.isinf(next(iter(table.values.values()))).sum())
    if infeasible and file.suffix == ".json":
        say(
            f"{infeasible} of them cannot run; this format leaves these out, so that searches with "
            "it need --missing infeasible",
            err,
        )


@lut_app.command("import")
def lut_import(
    file: TableArgument,
    to: OutOption,
    space: Annotated[str | None, typer.Option(help="Check that the table serves it.")] = None,
) -> None:
    """Read a table in one format and write it in another."""
    from apq_moo.files import sha256
    from apq_moo.hardware import TableDevice, find_device, read_table, write_table
    from apq_moo.hardware.compiled import device_tables
    from apq_moo.space import load_space

    check_output("costs", to)
    table = read_table(file)
    device = TableDevice(table, str(file))  # refuses values that are no costs
    if space is not None:
        device_tables(load_space(space), find_device(device))
    record = dict(table.provenance) or {"imported": {"file": file.name, "sha256": sha256(file)}}
    write_table(to, replace(table, provenance=record))
    say(f"{len(table):,} rows: {to}")


@lut_app.command("show")
def lut_show(
    file: TableArgument,
    layer: Annotated[str, typer.Option(help="Only rows whose name contains this.")] = "",
    rows: Annotated[int, typer.Option(min=0, help="Rows to show.")] = _MAX_LISTED,
) -> None:
    """Show a table: where it comes from, and some of its rows."""
    from apq_moo.hardware import read_table

    table = read_table(file)
    chosen = [i for i, name in enumerate(table.names) if layer in name]
    if not chosen:
        raise UserError(f"{file} has no layer whose name contains {layer!r}")
    _describe(table, str(file))
    shown = Table(box=SIMPLE)
    shown.add_column("layer", no_wrap=True)
    for cost, unit in table.units.items():
        shown.add_column(f"{cost} ({unit})", justify="right")
        if cost in table.spread:
            shown.add_column("IQR", justify="right")
    for i in chosen[:rows]:
        cells = []
        for cost, values in table.values.items():
            cells.append(f"{values[i]:.6g}")
            if cost in table.spread:
                cells.append(f"{table.spread[cost][i]:.2g}")
        part = table.components[i]
        name = table.names[i]
        shown.add_row(name if part in {"block", name} else f"{name} {part}", *cells)
    out.print(shown)
    if len(chosen) > rows:
        out.print(f"{len(chosen) - rows:,} more rows; --layer TEXT chooses, --rows N shows more")


@lut_app.command("plot")
def lut_plot(
    file: Annotated[Path, typer.Option("--out", "-o", help="A .png, .svg or .pdf.")],
    space: SpaceOption = DEFAULT_SPACE,
    device: DeviceOption = "bitfusion",
    layer: Annotated[
        str | None, typer.Option(help="Such as block3.depthwise: costs against channels and bits.")
    ] = None,
    kernel: Annotated[int | None, typer.Option(help="Of a depthwise layer.")] = None,
    subnet: Annotated[
        str, typer.Option(help="A subnet's JSON file, or largest or smallest: costs by layer.")
    ] = "largest",
) -> None:
    """Draw what a layer costs, or where in a network its costs arise."""
    from apq_moo.hardware import find_device
    from apq_moo.hardware.plots import layer_picture, network_picture, short_name
    from apq_moo.pictures import save_picture
    from apq_moo.space import load_space

    check_output("picture", file, overwrite=True)
    loaded, found = load_space(space), find_device(device)
    if layer is not None:
        block, _, part = layer.partition(".")
        number = block.removeprefix("block")
        if not block.startswith("block") or not number.isdecimal() or len(number) > 6:
            raise UserError(f"--layer {layer!r}: write block<number>.<part>, as in block3.expand")
        figure = layer_picture(loaded, found, int(number), part, kernel)
    else:
        network = _subnet(loaded, subnet, device)
        title = f"{Path(subnet).stem} network of {loaded.name} on {short_name(found)}"
        figure = network_picture(loaded, network, list(found.units), found, title)
    save_picture(figure, file, dpi=150)
    say(f"{file}")


def _subnet(space: Space, given: str, device: str) -> Subnet:
    """The subnet of a JSON file, or the one that costs most or least of what a device can run."""
    from apq_moo.files import read_json
    from apq_moo.hardware import cost_table, feasible_options, find_device, maximum, minimum

    if given in {"largest", "smallest"}:
        found = find_device(device)
        tables = [cost_table(space, name, found) for name in found.units]
        extreme = maximum if given == "largest" else minimum
        _, row = extreme(tables[0], feasible_options(space, tables))
        return space.decode(row)[0]
    if not given.endswith(".json"):
        raise UserError(f"--subnet {given!r}: write largest, smallest, or a .json file")
    return space.decode(space.encode([read_json(given)]))[0]
