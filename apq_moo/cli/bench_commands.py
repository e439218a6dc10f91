"""Commands that compare algorithms: ``bench``, ``audit``, ``report`` and ``plot``."""

from __future__ import annotations

import re
import shlex
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from apq_moo.cli.app import app, check_output, err, out, progress, say
from apq_moo.cli.options import (
    START_HELP,
    OnOption,
    as_options,
    measuring_device,
    numbers,
    parse_limits,
)
from apq_moo.cli.stopping import going_on
from apq_moo.defaults import MAX_JOBS
from apq_moo.errors import UserError, shown
from apq_moo.texts import by_commas

if TYPE_CHECKING:
    from apq_moo.benchmarks.compare.analysis import Analysis, ProblemResults
    from apq_moo.benchmarks.compare.plan import BenchPlan
    from apq_moo.benchmarks.compare.store import Outcome

FolderArgument = Annotated[Path, typer.Argument(metavar="RUN|BENCH", help="A folder of either.")]


@app.command()
def bench(
    space: Annotated[str | None, typer.Option(help="Presets or TOML files, by commas.")] = None,
    algos: Annotated[str | None, typer.Option(help="Algorithms, by commas.")] = None,
    objectives: Annotated[
        list[str] | None,
        typer.Option(help="Objectives of a problem, by commas; repeat it for more problems."),
    ] = None,
    predictor: Annotated[
        str | None,
        typer.Option(
            help="Predictors, by commas.",
            show_default="table where a space has one, else ensemble",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="The cost model.")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="NAME=VALUE", help="Upper limit (acc: a lower one)."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Runs of each algorithm: how many, or which, such as 31-60."),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Evaluations of a run, by commas.")] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            help="Limits of swept algorithms, such as 4,8,16.",
            show_default="up to 8, as the budget allows",
        ),
    ] = None,
    pop_size: Annotated[int | None, typer.Option(help="Networks a round.")] = None,
    start: Annotated[str | None, typer.Option(help=START_HELP)] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with these options, or a published plan (fashion, tiny); flags "
            "replace entries."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=MAX_JOBS, help="Runs at a time.")] = 1,
    backend: Annotated[str, typer.Option(help="loky, dask or ray.")] = "loky",
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask or ray cluster; default: a local one.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Its folder; default: a new one under runs/.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue the benchmark there; --algos, --seeds, ... add to it."),
    ] = None,
) -> None:
    """Compare algorithms on problems over many seeds."""
    from apq_moo.benchmarks.compare.bench import begin, check_backend, grow, run
    from apq_moo.benchmarks.compare.plan import BenchPlan

    given: dict[str, Any] = {
        "spaces": space and by_commas(space),
        "algos": algos and by_commas(algos),
        "objectives": objectives and tuple(objectives),
        "predictors": predictor and by_commas(predictor),
        "device": device,
        "limits": limit and parse_limits(limit),
        **(_seeds(seeds) if seeds is not None else {}),
        "budgets": budget and numbers(budget, "--budget"),
        "sweeps": sweep and numbers(sweep, "--sweep"),
        "pop_size": pop_size,
        "start": start,
    }
    given = {name: value for name, value in given.items() if value is not None}
    check_backend(backend, scheduler)
    if resume is not None:
        if plan is not None or folder is not None:
            raise UserError(
                "--resume DIR continues the benchmark there: leave out --plan and --out"
            )
        store = grow(resume, **given)
    else:
        asked = BenchPlan() if plan is None else _read_plan(plan)
        asked = asked.with_given(**given)
        store = begin(folder or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-bench", asked)
    begun = time.monotonic()

    def kept() -> str:
        done = f"{len(store.finished())} of {len(store.plan.cells())} cells are kept"
        return f"{done}: go on with apq-moo bench --resume {shlex.quote(str(store.folder))}"

    with going_on(kept), progress("cells") as bar:

        def tell(done: int, total: int, outcome: Outcome | None) -> None:
            bar(done, total)
            if outcome is not None and not outcome.ok:
                config = outcome.cell.config
                say(
                    f"failed: {outcome.cell.label} on {outcome.cell.problem}, seed {config.seed}: "
                    f"{as_options(outcome.error)}",
                    err,
                )

        done, failed = run(store, jobs=jobs, backend=backend, scheduler=scheduler, callback=tell)
    _print_bench(store.folder)
    lost = f", {failed} failed (run --resume {store.folder} to try again)" if failed else ""
    say(
        f"{done} cells done{lost}, {time.monotonic() - begun:.1f} s, in {store.folder}; "
        f"next: apq-moo report {store.folder} -o report.html"
    )
    if failed:
        raise typer.Exit(1)


def _read_plan(plan: Path) -> BenchPlan:
    from apq_moo.benchmarks.compare.plan import BenchPlan
    from apq_moo.benchmarks.compare.published import published_plan

    named = not plan.suffix and plan.name == str(plan) and not plan.exists()
    return published_plan(plan.name) if named else BenchPlan.read(plan)


def _seeds(text: str) -> dict[str, int]:
    """Entries of a plan: how many seeds, or from which to which."""
    match = re.fullmatch(r"(?:(\d{1,12})-)?(\d{1,12})", text.strip())
    if match is None:
        raise UserError(f"--seeds {shown(text)}: write how many, or which, such as 31-60")
    if match[1] is None:
        return {"seeds": int(match[2])}
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise UserError(f"--seeds {text}: the last is before the first")
    return {"first_seed": first, "seeds": last - first + 1}


def _print_bench(folder: Path) -> None:
    from apq_moo.benchmarks.compare.analysis import Analysis

    analysis = Analysis.read(folder)
    for problem in analysis.problems:
        out.print(_score_table(problem))


def _score_table(problem: ProblemResults) -> Table:
    from apq_moo.benchmarks.compare.tables import caution, cell_text, indicators_of, seeds_text

    table = Table(title=problem.title, box=SIMPLE)
    table.add_column("algorithm", no_wrap=True)
    names = indicators_of(problem)
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("seeds", justify="right")
    columns = {name: problem.scores(name) for name in names}
    for i, label in enumerate(problem.labels):
        of = [columns[name][i] for name in names]
        cells = [
            Text(cell_text(score, quartiles=False), style="bold" if score.best else "")
            for score in of
        ]
        table.add_row(label, *cells, seeds_text(of[0]))
    marks = caution(problem) or "Bold: no other algorithm is significantly better."
    table.caption = (
        f"Medians, compared with the {problem.known_kind} front of {len(problem.known)}. {marks}"
    )
    return table


@app.command()
def audit(
    folder: FolderArgument,
    most: Annotated[
        int, typer.Option(min=2, max=1_000_000, help="Distinct networks to measure.")
    ] = 5000,
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="Of each algorithm.")] = 5,
    on: OnOption = None,
    choose: Annotated[
        bool, typer.Option("--choose", help="Write the networks to audit-SPACE.npz; measure none.")
    ] = False,
) -> None:
    """Measure members of predicted fronts on the supernet: do they hold?"""
    from apq_moo.benchmarks.compare.audit import audit as carry_out

    with (
        going_on(lambda: "what was measured is kept: repeat the command to go on"),
        progress("measuring") as tell,
    ):
        rows = carry_out(
            folder,
            most=most,
            seeds=seeds,
            on="cpu" if choose else measuring_device(on),
            choose_only=choose,
            callback=tell,
        )
    if choose:
        say(
            f"networks are in {folder}/audit-*.npz; complete them with `apq-moo supernet measure`, "
            "then repeat this command without --choose"
        )
        return
    out.print("hypervolume of fronts as predicted and as measured, medians over seeds")
    for problem in dict.fromkeys(row.problem for row in rows):
        table = Table(title=problem, title_justify="left", box=SIMPLE)
        table.add_column("algorithm", no_wrap=True)
        for column in ("predicted", "validation", "test", "tau", "points over", "worst tenth"):
            table.add_column(column, justify="right")
        for row in rows:
            if row.problem == problem:
                table.add_row(
                    row.label,
                    f"{row.predicted_hv:.4f}",
                    f"{row.true_hv_validation:.4f}",
                    f"{row.true_hv_test:.4f}",
                    f"{row.kendall_tau:.3f}",
                    f"{row.overestimate_points:+.2f}",
                    f"{row.worst_tenth_points:+.2f}",
                )
        out.print(table)
    say(f"{folder}/audit.json")


@app.command()
def report(
    folder: FolderArgument,
    file: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html"),
    markdown: Annotated[
        Path | None, typer.Option(help="Write the score tables as Markdown too.")
    ] = None,
    latex: Annotated[Path | None, typer.Option(help="And as LaTeX (booktabs).")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace these files.")] = False,
) -> None:
    """Write all that a run, benchmark or comparison found to one page that needs no network."""
    from apq_moo.benchmarks.report import write_report

    tables = markdown is not None or latex is not None
    if tables and (folder / "comparison.json").is_file():
        raise UserError(
            f"{folder} holds a comparison, whose tables are its comparison.md and comparison.csv: "
            "leave out --markdown and --latex"
        )
    for kind, path in (("page", file), ("Markdown", markdown), ("LaTeX", latex)):
        check_output(kind, path, overwrite=overwrite)
    write_report(folder, file)
    if tables:
        _write_tables(folder, markdown, latex)
    say(f"{file}")


def _write_tables(folder: Path, markdown: Path | None, latex: Path | None) -> None:
    from apq_moo.benchmarks.compare.analysis import Analysis
    from apq_moo.benchmarks.compare.tables import indicators_of, latex_table, markdown_table
    from apq_moo.files import write_text

    analysis = Analysis.read(folder)
    for path, write in ((markdown, markdown_table), (latex, latex_table)):
        if path is not None:
            parts = [write(problem, indicators_of(problem)) for problem in analysis.problems]
            write_text(path, "\n\n".join(parts) + "\n")


@app.command()
def table(
    folder: FolderArgument,
    file: Annotated[Path, typer.Option("--out", "-o", help="A .csv or .parquet.")],
    part: Annotated[
        str | None,
        typer.Option(
            help="Of a run: front, evaluated, history; of a benchmark: scores, fronts, curves.",
            show_default="front, or scores",
        ),
    ] = None,
    genotypes: Annotated[
        bool, typer.Option("--genotypes", help="Add a column for each gene of a network.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the file.")] = False,
) -> None:
    """Write what a run or a benchmark found as one tidy table."""
    from apq_moo.benchmarks.compare.frames import load as of_bench
    from apq_moo.benchmarks.compare.store import NAME
    from apq_moo.files import replacing
    from apq_moo.results.frames import load as of_run

    check_output("table", file, overwrite=overwrite)
    load = of_bench if (folder / NAME).exists() else of_run
    found = load(folder, genotypes=genotypes, **({} if part is None else {"part": part}))
    with replacing(file) as temporary:
        if file.suffix == ".csv":
            found.to_csv(temporary, index=False)
        else:
            _require_pyarrow()
            found.to_parquet(temporary, index=False)
    say(f"{len(found):,} rows, {len(found.columns)} columns: {file}")


def _require_pyarrow() -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise UserError(
            "parquet files need pyarrow: pip install 'apq-moo[parquet]', or name a .csv"
        )


KINDS = ("fronts", "curves", "attainment", "ranks")


@app.command()
def plot(
    folder: FolderArgument,
    file: Annotated[Path, typer.Option("--out", "-o", help="A .png, .svg or .pdf.")],
    kind: Annotated[str, typer.Option(help="fronts, curves, attainment or ranks.")] = "fronts",
    problem: Annotated[
        int, typer.Option(min=1, help="Which problem, in the order of the report.")
    ] = 1,
    algos: Annotated[
        str,
        typer.Option(
            help="Algorithms to tell apart, by commas; above 7 a panel for each.",
            show_default="all",
        ),
    ] = "",
) -> None:
    """Draw a picture for a paper: vector formats, one column wide."""
    from apq_moo.benchmarks.compare.analysis import Analysis
    from apq_moo.benchmarks.report import pictures

    if kind not in KINDS:
        raise UserError(f"unknown kind of picture {kind!r}; known: {', '.join(KINDS)}")
    check_output("picture", file)
    analysis = Analysis.read(folder)
    if kind == "ranks":
        pictures.draw_ranks(file, analysis)
    else:
        of = _problem(analysis, problem)
        chosen = by_commas(algos) or None
        draw = {
            "fronts": pictures.draw_fronts,
            "curves": pictures.draw_curves,
            "attainment": pictures.draw_attainment,
        }[kind]
        draw(file, of, chosen)
    say(f"{file}")


def _problem(analysis: Analysis, number: int) -> ProblemResults:
    if number > len(analysis.problems):
        titles = "; ".join(f"{i}: {p.title}" for i, p in enumerate(analysis.problems, 1))
        raise UserError(f"--problem {number}: there are {len(analysis.problems)} ({titles})")
    return analysis.problems[number - 1]
