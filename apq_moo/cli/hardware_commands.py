"""Commands about devices and their cost tables: ``device`` and ``lut``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from apq_moo.cli.app import app, err, out, progress_bar
from apq_moo.errors import UserError

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
_POOR_TAU = 0.8


@device_app.command("list")
def device_list() -> None:
    """List the devices by name."""
    from apq_moo.hardware import DEVICES, ArrayDevice, find_device

    for name in DEVICES:
        device = find_device(name)
        text = device.machine.description if isinstance(device, ArrayDevice) else ""
        costs = ", ".join(f"{cost} ({unit})" for cost, unit in device.units.items())
        out.print(f"{name}: {text or costs}", markup=False, soft_wrap=True)


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
            out.print(f"{field}: {shown}", markup=False, soft_wrap=True)
    else:
        for cost, unit in found.units.items():
            out.print(f"{cost}: {unit}", markup=False)


def _describe(table: LayerTable, source: str) -> None:
    """Print what a table holds and where it comes from."""
    import numpy as np

    def line(text: str) -> None:
        out.print(text, markup=False, soft_wrap=True, highlight=False)

    line(f"{source}: {len(table):,} rows")
    for cost, values in table.values.items():
        finite = values[np.isfinite(values)]
        reach = f", {finite.min():.4g} to {finite.max():.4g}" if len(finite) else ""
        line(f"{cost}: {table.units[cost]}{reach}")
        if cost in table.spread:
            relative = 100 * np.median(table.spread[cost] / values)
            line(f"  interquartile range: {relative:.1f} % of the value (median of the rows)")
        if cost in table.constant:
            line(f"  beside the layers: {table.constant[cost]:.4g} {table.units[cost]}")
        if cost in table.corrections:
            found = table.corrections[cost]
            line(
                f"  corrected for whole networks: {found.scale:.4g} x sum + {found.offset:.4g} "
                f"{table.units[cost]}, from {found.networks} networks (Kendall tau "
                f"{found.kendall_tau:.3f}, mean error {found.mape_before:.1f} % before, "
                f"{found.mape_after:.1f} % after)"
            )
    line("bits: " + ", ".join(f"W{w}A{a}" for w, a in sorted(table.bit_pairs)))
    for key, value in _flat(table.provenance):
        line(f"{key}: {value}")


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


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UserError(f"-o {path} exists; remove it or name another file")


@lut_app.command("build")
def lut_build(
    file: OutOption, space: SpaceOption = "digits", device: DeviceOption = "bitfusion"
) -> None:
    """Write down what every layer of a space costs on a device."""
    import numpy as np

    from apq_moo.hardware import ArrayDevice, find_device, write_table
    from apq_moo.hardware.layer_table import build
    from apq_moo.hardware.table_files import check_suffix
    from apq_moo.space import load_space

    check_suffix(file)
    _refuse_existing(file)
    loaded, found = load_space(space), find_device(device)
    record = {"device": asdict(found.machine) if isinstance(found, ArrayDevice) else found.name}
    table = build(loaded, found, _provenance(loaded, **record))
    write_table(file, table)
    out.print(f"{len(table):,} layers of {loaded.name}: {file}", soft_wrap=True)
    infeasible = int(np.isinf(next(iter(table.values.values()))).sum())
    if infeasible and file.suffix == ".json":
        err.print(
            f"{infeasible} of them cannot run; this format leaves these out, so that searches with "
            "it need --missing infeasible",
            markup=False,
            soft_wrap=True,
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
    from apq_moo.hardware.table_files import check_suffix
    from apq_moo.space import load_space

    check_suffix(to)
    _refuse_existing(to)
    table = read_table(file)
    device = TableDevice(table, str(file))  # refuses values that are no costs
    if space is not None:
        device_tables(load_space(space), find_device(device))
    record = dict(table.provenance) or {"imported": {"file": file.name, "sha256": sha256(file)}}
    write_table(to, replace(table, provenance=record))
    out.print(f"{len(table):,} rows: {to}", soft_wrap=True)


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


@lut_app.command("validate")
def lut_validate(
    file: TableArgument,
    space: SpaceOption = "digits",
    end_to_end: Annotated[
        int | None,
        typer.Option(metavar="N", help="Measure N random networks and store a correction."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random networks.")] = 0,
) -> None:
    """Check a table for a space; exits with 1 if it does not serve."""
    from apq_moo.hardware import read_table
    from apq_moo.hardware.checking import check_table
    from apq_moo.space import load_space

    table, loaded = read_table(file), load_space(space)
    report = check_table(table, loaded, str(file), seed=seed)

    def line(text: str) -> None:
        out.print(text, markup=False, soft_wrap=True, highlight=False)

    line(f"{file}: {len(table):,} rows, {', '.join(table.units)}")
    _listed("values that are no costs", report.problems)
    if report.problems:
        raise typer.Exit(1)
    line(f"layers that {loaded.name} needs: {report.needed:,}")
    _listed("missing layers", [f"{layer.key} ({layer.name})" for layer in report.missing])
    if report.cannot_run:
        line(f"rows that the device cannot run: {report.cannot_run:,}")
    if report.unsupported:
        pairs = ", ".join(f"W{w}A{a}" for w, a in report.unsupported)
        line(f"bits that the device does not run, not offered to searches: {pairs}")
    if report.additivity is None:
        line(f"no network of {loaded.name} can run on it")
    else:
        line(f"additivity: networks equal the sums of their layers to {report.additivity:.1e}")
    if not report.good:
        raise typer.Exit(1)
    if end_to_end is not None:
        _validate_networks(file, table, loaded, end_to_end, seed)


def _listed(what: str, items: Sequence[str]) -> None:
    out.print(f"{what}: {len(items):,}", markup=False, highlight=False)
    for item in items[:_MAX_LISTED]:
        out.print(f"  {item}", markup=False, soft_wrap=True, highlight=False)
    if len(items) > _MAX_LISTED:
        out.print(f"  and {len(items) - _MAX_LISTED:,} more", markup=False)


def _validate_networks(file: Path, table: LayerTable, space: Space, n: int, seed: int) -> None:
    from apq_moo.hardware import write_table
    from apq_moo.hardware.measuring.networks import measure_networks

    if file.suffix == ".json":
        raise UserError(f"{file}: the published format cannot hold a correction; see lut import")
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=None)
        found = measure_networks(
            space,
            table,
            str(file),
            n,
            seed=seed,
            callback=lambda done, total: bar.update(task, completed=done, total=total),
        )
    record = {
        "seed": seed,
        "space": {"name": space.name, "digest": space.digest},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "summed_ms": found.summed_ms.tolist(),
        "measured_ms": found.measured_ms.tolist(),
        "spread_ms": found.spread_ms.tolist(),
    }
    write_table(
        file,
        replace(
            table,
            corrections={"latency": found.correction},
            provenance={**table.provenance, "end_to_end": record},
        ),
    )
    shown = Table(box=SIMPLE)
    for column in ("measured (ms)", "IQR", "sum of layers", "corrected"):
        shown.add_column(column, justify="right")
    order = found.measured_ms.argsort()
    columns = (found.measured_ms, found.spread_ms, found.summed_ms, found.corrected_ms)
    for i in order:
        shown.add_row(*(f"{column[i]:.4g}" for column in columns))
    out.print(shown)
    correction = found.correction
    out.print(
        f"{n} networks: Kendall tau {correction.kendall_tau:.3f}; mean absolute error "
        f"{correction.mape_before:.1f} % as sums, {correction.mape_after:.1f} % corrected (each "
        f"network by a fit to the others); stored in {file}: {correction.scale:.4g} x sum "
        f"{correction.offset:+.4g} ms",
        soft_wrap=True,
    )
    if correction.kendall_tau < _POOR_TAU:
        err.print(
            "sums of layers rank these networks poorly: they spend time on what is no layer, such "
            "as conversions between bits, or the machine was busy",
            soft_wrap=True,
        )


@lut_app.command("measure")
def lut_measure(
    file: OutOption,
    space: SpaceOption = "digits",
    backend: Annotated[str, typer.Option(help="onnxruntime or torch.")] = "onnxruntime",
    threads: Annotated[int, typer.Option(min=1, help="Of each operator.")] = 1,
    on: Annotated[str, typer.Option(help="cpu, or for torch cuda or cuda:0.")] = "cpu",
    precision: Annotated[
        float, typer.Option(help="Wanted half-width of each median's 95 % interval, relative.")
    ] = 0.02,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of measuring.")] = 0,
) -> None:
    """Time every layer of a space on this machine; repeat the command to continue."""
    from apq_moo.hardware.measuring.backends import BACKENDS
    from apq_moo.hardware.measuring.layers import measure_layers
    from apq_moo.hardware.measuring.timing import Rule
    from apq_moo.hardware.table_files import check_suffix
    from apq_moo.space import load_space

    check_suffix(file)
    _refuse_existing(file)
    if not 0 < precision < 1:
        raise UserError(f"--precision {precision:g}: write a fraction, such as 0.02")
    loaded = load_space(space)
    engine = BACKENDS.get(backend)(threads, on)
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=None)
        table = measure_layers(
            loaded,
            engine,
            file,
            rule=Rule(precision=precision),
            seed=seed,
            callback=lambda done, total: bar.update(task, completed=done, total=total),
        )
    record = table.provenance
    out.print(
        f"{len(table):,} layers of {loaded.name} in {record['seconds']:.0f} s: {file}",
        soft_wrap=True,
    )
    offered = {bits for options in loaded.spec.bits.values() for bits in options}
    if not offered & set(engine.bits):
        err.print(
            f"{loaded.name} offers none of the bits that {backend} runs here "
            f"({', '.join(map(str, engine.bits))}): no search on it can use this table",
            markup=False,
            soft_wrap=True,
        )
    if record["unsettled"]:
        err.print(
            f"{record['unsettled']} medians are known less well than to {100 * precision:g} %: "
            "the machine is busy or its clock varies",
            markup=False,
            soft_wrap=True,
        )


@lut_app.command("plot")
def lut_plot(
    file: Annotated[Path, typer.Option("--out", "-o", help="A .png, .svg or .pdf.")],
    space: SpaceOption = "digits",
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
    from apq_moo.hardware.plots import (
        check_picture,
        layer_picture,
        network_picture,
        save,
        short_name,
    )
    from apq_moo.space import load_space

    check_picture(file)
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
    save(figure, file)
    out.print(f"{file}", soft_wrap=True)


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
