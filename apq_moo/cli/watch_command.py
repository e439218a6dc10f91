"""The command ``watch``: how far a run or a benchmark has come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from apq_moo.cli.app import app, out, say_json
from apq_moo.cli.options import JsonOption
from apq_moo.errors import UserError, escaped

if TYPE_CHECKING:
    from apq_moo.benchmarks.compare.progress import BenchProgress, ProblemProgress
    from apq_moo.results.progress import RunProgress

_BAR = 30


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(metavar="RUN|BENCH", help="A folder of either.")],
    every: Annotated[
        float, typer.Option(min=0.2, max=3600, help="Seconds between two looks.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how far a run or a benchmark has come, while it goes on and afterwards."""
    look = _looking_at(folder)
    if as_json:
        say_json(asdict(look()))
        return
    found = look()
    if once or found.finished or not out.is_terminal:
        out.print(_shown(found))
        while not (once or found.finished):
            time.sleep(every)
            found = look()
            out.print(_shown(found))
        return
    from rich.live import Live

    with Live(_shown(found), console=out, auto_refresh=False) as live:
        while not found.finished:
            time.sleep(every)
            found = look()
            live.update(_shown(found), refresh=True)


def _looking_at(folder: Path) -> Callable[[], RunProgress | BenchProgress]:
    """What looks at a folder.

    Raises:
        UserError: it holds neither a run nor a benchmark.
    """
    from apq_moo.benchmarks.compare.progress import BenchWatcher
    from apq_moo.benchmarks.compare.store import NAME
    from apq_moo.files import is_file
    from apq_moo.results.progress import run_progress

    if is_file(folder / "run.json"):
        return lambda: run_progress(folder)
    if is_file(folder / NAME):
        return BenchWatcher(folder).look
    what = "there is no such folder" if not folder.exists() else "no run.json, no results.sqlite"
    raise UserError(f"{folder} holds neither a run nor a benchmark ({what})")


def _shown(found: RunProgress | BenchProgress) -> RenderableType:
    from apq_moo.results.progress import RunProgress

    return _run(found) if isinstance(found, RunProgress) else _bench(found)


def _run(run: RunProgress) -> Group:
    from apq_moo.hardware import QUANTITIES

    state = "finished" if run.finished else "verifying" if run.searched else "searching"
    left = "" if run.left_s is None else f", about {_time(run.left_s)} left"
    lines: list[RenderableType] = [
        Text(escaped(f"{run.algorithm} on {run.space}, {run.folder}: {state}")),
        Text(f"{_bar(run.evaluations, run.budget)} evaluations"),
        Text(f"{_time(run.seconds)} of searching{left}{_written(run.finished, run.written_s)}"),
    ]
    best = [
        f"{name} {value:.5g} {QUANTITIES.get(name).unit}".rstrip()
        for name, value in zip(run.objectives, run.best, strict=True)
        if value is not None
    ]
    if not best:
        what = "no feasible network yet" if run.evaluations else "nothing is written down yet"
        return Group(*lines, Text(what))
    lines.append(Text(f"best so far: {', '.join(best)}; {len(run.front)} networks on the front"))
    if run.hypervolume:
        lines.append(
            Text(
                f"hypervolume {run.hypervolume[0]:.4f} {_line(run.hypervolume)} "
                f"{run.hypervolume[-1]:.4f}, {run.marks[0]:,} to {run.marks[-1]:,} evaluations"
            )
        )
    return Group(*lines, *_front(run.objectives, run.front))


def _written(finished: bool, written_s: float | None) -> str:
    if finished or written_s is None:
        return ""
    return f"; last written {_time(written_s)} ago"


def _bench(bench: BenchProgress) -> Group:
    failed = f", {bench.failed} failed" if bench.failed else ""
    work = "" if bench.work_s is None else f"{_time(bench.work_s)} of work left for one process"
    state = "finished" if bench.finished else "going on"
    lines: list[RenderableType] = [
        Text(escaped(f"benchmark, {bench.folder}: {state}")),
        Text(f"{_bar(bench.done, bench.cells)} cells{failed}"),
    ]
    if told := f"{work}{_written(bench.finished, bench.written_s)}".removeprefix("; "):
        lines.append(Text(told))
    for problem in bench.problems:
        lines += [_algorithms(problem), *_front(problem.objectives, problem.front)]
    return Group(*lines)


def _algorithms(problem: ProblemProgress) -> Table:
    table = Table(title=problem.title, title_justify="left", box=SIMPLE)
    table.add_column("algorithm", no_wrap=True)
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("hv", justify="right", no_wrap=True)
    table.add_column("over evaluations", no_wrap=True)
    ranked = sorted(problem.algorithms, key=lambda of: -(of.hypervolume or 0.0))
    for of in ranked:
        failed = f" ({of.failed} failed)" if of.failed else ""
        volume = "" if of.hypervolume is None else f"{of.hypervolume:.4f}"
        table.add_row(of.label, f"{of.done}/{of.seeds}{failed}", volume, _line(of.curve))
    return table


def _front(
    objectives: tuple[str, ...], front: tuple[tuple[float, ...], ...]
) -> list[RenderableType]:
    """The first objective upwards, the second to the right, on a logarithmic scale."""
    if len(objectives) < 2 or len(front) < 2 or not _draws():
        return []
    y, x = ([row[i] for row in front] for i in (0, 1))
    from apq_moo.cli.drawing import scatter

    lines = scatter([math.log(value) if min(x) > 0 else value for value in x], y)
    left = [f"{max(y):.4g}", *[""] * (len(lines) - 2), f"{min(y):.4g}"]
    width = max(map(len, left))
    drawn = [f"{label:>{width}} {line}" for label, line in zip(left, lines, strict=True)]
    ends = f"{min(x):.4g}", f"{max(x):.4g}"
    axis = f"{ends[0]}{ends[1]:>{len(lines[0]) - len(ends[0])}}"
    names = f"{objectives[0]} against {objectives[1]}"
    return [Text("\n".join([names, *drawn, f"{'':{width}} {axis}"]))]


def _draws() -> bool:
    """Whether the output can show more than ASCII."""
    return out.encoding.lower().startswith("utf")


def _line(values: tuple[float, ...]) -> str:
    from apq_moo.cli.drawing import sparkline

    return sparkline(values) if _draws() else "..."


def _bar(done: int, total: int) -> str:
    full = min(_BAR, _BAR * done // max(1, total))
    of, rest = "█░" if _draws() else "#."
    return f"{of * full}{rest * (_BAR - full)} {done:,} of {total:,}"


def _time(seconds: float) -> str:
    """Seconds as people say them.

    >>> _time(5.2), _time(75), _time(7300)
    ('5 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
