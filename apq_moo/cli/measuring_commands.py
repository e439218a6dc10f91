"""The commands ``lut validate`` and ``lut measure``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from apq_moo.cli.app import check_output, err, out, progress, say
from apq_moo.cli.hardware_commands import (
    OutOption,
    SpaceOption,
    TableArgument,
    lut_app,
)
from apq_moo.cli.stopping import going_on
from apq_moo.defaults import DEFAULT_SPACE, MAX_JOBS, MAX_SEED
from apq_moo.errors import UserError

if TYPE_CHECKING:
    from apq_moo.hardware import LayerTable
    from apq_moo.space import Space

_MAX_LISTED = 10
_POOR_TAU = 0.8


@lut_app.command("validate")
def lut_validate(
    file: TableArgument,
    space: SpaceOption = DEFAULT_SPACE,
    end_to_end: Annotated[
        int | None,
        typer.Option(metavar="N", help="Measure N random networks and store a correction."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the random networks.")] = 0,
) -> None:
    """Check a table for a space; exits with 1 if it does not serve."""
    from apq_moo.hardware import read_table
    from apq_moo.hardware.checking import check_table
    from apq_moo.space import load_space

    table, loaded = read_table(file), load_space(space)
    report = check_table(table, loaded, str(file), seed=seed)

    say(f"{file}: {len(table):,} rows, {', '.join(table.units)}")
    _listed("values that are no costs", report.problems)
    if report.problems:
        raise typer.Exit(1)
    say(f"layers that {loaded.name} needs: {report.needed:,}")
    _listed("missing layers", [f"{layer.key} ({layer.name})" for layer in report.missing])
    if report.cannot_run:
        say(f"rows that the device cannot run: {report.cannot_run:,}")
    if report.unsupported:
        pairs = ", ".join(f"W{w}A{a}" for w, a in report.unsupported)
        say(f"bits that the device does not run, not offered to searches: {pairs}")
    if report.additivity is None:
        say(f"no network of {loaded.name} can run on it")
    else:
        say(f"additivity: networks equal the sums of their layers to {report.additivity:.1e}")
    if report.integers is not None and report.integers > 1:
        say(
            f"integers are slower than floats on this device: the largest network takes "
            f"{report.integers:.2g} times as long at 8 bits as in floating point"
        )
    if not report.good:
        raise typer.Exit(1)
    if end_to_end is not None:
        _validate_networks(file, table, loaded, end_to_end, seed)


def _listed(what: str, items: Sequence[str]) -> None:
    say(f"{what}: {len(items):,}")
    for item in items[:_MAX_LISTED]:
        say(f"  {item}")
    if len(items) > _MAX_LISTED:
        say(f"  and {len(items) - _MAX_LISTED:,} more")


def _validate_networks(file: Path, table: LayerTable, space: Space, n: int, seed: int) -> None:
    from apq_moo.hardware import write_table
    from apq_moo.hardware.measuring.networks import measure_networks

    if file.suffix == ".json":
        raise UserError(f"{file}: the published format cannot hold a correction; see lut import")
    with progress("measuring") as tell:
        found = measure_networks(
            space,
            table,
            str(file),
            n,
            seed=seed,
            callback=tell,
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
    say(
        f"{n} networks: Kendall tau {correction.kendall_tau:.3f}; mean absolute error "
        f"{correction.mape_before:.1f} % as sums, {correction.mape_after:.1f} % corrected (each "
        f"network by a fit to the others); stored in {file}: {correction.scale:.4g} x sum "
        f"{correction.offset:+.4g} ms"
    )
    if correction.kendall_tau < _POOR_TAU:
        say(
            "sums of layers rank these networks poorly: they spend time on what is no layer, such "
            "as conversions between bits, or the machine was busy",
            err,
        )


@lut_app.command("measure")
def lut_measure(
    file: OutOption,
    space: SpaceOption = DEFAULT_SPACE,
    backend: Annotated[str, typer.Option(help="onnxruntime or torch.")] = "onnxruntime",
    threads: Annotated[int, typer.Option(min=1, max=MAX_JOBS, help="Of each operator.")] = 1,
    on: Annotated[str, typer.Option(help="cpu, or for torch cuda or cuda:0.")] = "cpu",
    precision: Annotated[
        float, typer.Option(help="Wanted half-width of each median's 95 % interval, relative.")
    ] = 0.02,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the order of measuring.")] = 0,
) -> None:
    """Time every layer of a space on this machine; repeat the command to continue."""
    from apq_moo.hardware.measuring.backends import BACKENDS
    from apq_moo.hardware.measuring.layers import measure_layers
    from apq_moo.hardware.measuring.timing import Rule
    from apq_moo.space import load_space

    check_output("costs", file)
    if not 0 < precision < 1:
        raise UserError(f"--precision {precision:g}: write a fraction, such as 0.02")
    loaded = load_space(space)
    engine = BACKENDS.get(backend)(threads, on)
    kept = f"what was timed is kept in {file}.partial: repeat the command to go on"
    with going_on(lambda: kept), progress("measuring") as tell:
        table = measure_layers(
            loaded,
            engine,
            file,
            rule=Rule(precision=precision),
            seed=seed,
            callback=tell,
        )
    record = table.provenance
    say(f"{len(table):,} layers of {loaded.name} in {record['seconds']:.0f} s: {file}")
    offered = {bits for options in loaded.spec.bits.values() for bits in options}
    if not offered & set(engine.bits):
        say(
            f"{loaded.name} offers none of the bits that {backend} runs here "
            f"({', '.join(map(str, engine.bits))}): no search on it can use this table",
            err,
        )
    if record["unsettled"]:
        say(
            f"{record['unsettled']} medians are known less well than to {100 * precision:g} %: "
            "the machine is busy or its clock varies",
            err,
        )
