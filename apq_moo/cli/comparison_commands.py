"""The command that compares systems at equal cost: ``compare-systems``."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apq_moo.cli.app import app, err, progress, say
from apq_moo.cli.options import as_options, each_limit, numbers
from apq_moo.cli.stopping import going_on
from apq_moo.defaults import MAX_JOBS, MOST_EPOCHS
from apq_moo.errors import UserError
from apq_moo.texts import by_commas

if TYPE_CHECKING:
    from apq_moo.benchmarks.compare.store import Outcome
    from apq_moo.benchmarks.systems.comparison import Comparison


@app.command(name="compare-systems")
def compare_systems(
    space: Annotated[str | None, typer.Option(help="A preset or a TOML file.")] = None,
    targets: Annotated[
        int | None,
        typer.Option(help="Limits on latency: 100 to 70 % of MobileNetV2's, 3 of them."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="NAME=VALUE", help="A target; repeat it for more."),
    ] = None,
    systems: Annotated[str | None, typer.Option(help="Algorithms, by commas.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Evaluations of a system for each target, by commas."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Searches of each.")] = None,
    predictor: Annotated[str | None, typer.Option(help="Where accuracies come from.")] = None,
    device: Annotated[str | None, typer.Option(help="The cost model.")] = None,
    assets: Annotated[str | None, typer.Option(help="A folder of assets.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=MAX_JOBS, help="Searches at a time.")] = 1,
    measure: Annotated[
        bool, typer.Option(help="Measure the best networks on validation and test images.")
    ] = True,
    finish: Annotated[
        str | None,
        typer.Option(
            metavar="none|EPOCHS",
            help="Fine-tune the best network of each search.",
            show_default="none",
        ),
    ] = None,
    search: Annotated[
        bool, typer.Option(help="Carry out what has not ended; without, only tables are written.")
    ] = True,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE,...",
            help="Where torch measures: cpu, cuda, or cuda:0,cuda:1, on which searches take turns.",
        ),
    ] = None,
    stop_after: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Then leave what has not ended, which --resume goes on with."
        ),
    ] = None,
    rates: Annotated[
        Path | None, typer.Option(help="TOML file of what an hour takes; default: the paper's.")
    ] = None,
    seconds_per_evaluation: Annotated[
        float | None,
        typer.Option(min=0, help="Count hours by evaluations; default: the seconds measured."),
    ] = None,
    deployments: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, show_default="40", help="N of the hours in all."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Its folder; default: a new one under runs/.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue the comparison there, perhaps with more --max, --systems, ..."),
    ] = None,
) -> None:
    """Compare systems under common targets, and what each of them spends."""
    from apq_moo.benchmarks.systems.ledger import Rates
    from apq_moo.benchmarks.systems.settings import Limit
    from apq_moo.benchmarks.systems.tables import MARKDOWN, write_tables
    from apq_moo.deadlines import Deadline

    begun = time.monotonic()
    deadline = None if stop_after is None else Deadline.after(stop_after)
    if targets is not None and limit:
        raise UserError("--targets chooses limits, and --max gives them: leave one out")
    priced: dict[str, Any] = {
        "rates": rates and Rates.read(rates),
        "seconds_per_evaluation": seconds_per_evaluation,
        "deployments": deployments,
    }
    priced = {name: value for name, value in priced.items() if value is not None}
    grown: dict[str, Any] = {
        "targets": limit and tuple(Limit(*pair) for pair in each_limit(limit)),
        "systems": systems and by_commas(systems),
        "budgets": budget and numbers(budget, "--budget"),
        "seeds": seeds,
        "finish": _epochs(finish),
    }
    grown = {name: value for name, value in grown.items() if value is not None}
    fixed: dict[str, Any] = {
        "space": space, "n_targets": targets, "predictor": predictor, "device": device,
        "assets": assets,
    }  # fmt: skip
    fixed = {name: value for name, value in fixed.items() if value is not None}
    comparison = _comparison(folder, resume, fixed, grown)
    comparison.price(replace(comparison.pricing, **priced))
    devices = by_commas(on) if on else ()

    def kept() -> str:
        where = shlex.quote(str(comparison.folder))
        return f"what ended is kept: go on with apq-moo compare-systems --resume {where}"

    with going_on(kept):
        with progress("searches") as bar:

            def tell(done: int, total: int, outcome: Outcome | None) -> None:
                bar(done, total)
                if outcome is not None and not outcome.ok:
                    what = f"{outcome.cell.label}, seed {outcome.cell.config.seed}"
                    say(f"failed: {what}: {as_options(outcome.error)}", err)

            done, failed = comparison.ended(), 0
            if search:
                done, failed = comparison.run(
                    jobs=jobs, on=devices, deadline=deadline, callback=tell
                )
        with progress("measuring") as bar:
            write_tables(
                comparison, measuring=measure, jobs=jobs, on=devices, deadline=deadline,
                callback=bar,
            )  # fmt: skip
    for line in (comparison.folder / MARKDOWN).read_text(encoding="utf-8").splitlines():
        say(line)
    say(f"{done} searches, {time.monotonic() - begun:.1f} s, in {comparison.folder}")
    if deadline is not None and deadline.passed:
        say(f"stopped after {stop_after:g} s: {kept()}")
    if failed:
        say(f"{failed} failed: apq-moo compare-systems --resume {comparison.folder}", err)
        raise typer.Exit(1)


def _comparison(
    folder: Path | None, resume: Path | None, fixed: dict[str, Any], grown: dict[str, Any]
) -> Comparison:
    """A new comparison, or the one to go on with.

    Raises:
        UserError: one that is there is given what it cannot have anew.
    """
    from apq_moo.benchmarks.systems.comparison import Comparison
    from apq_moo.benchmarks.systems.settings import settings_of

    if resume is None:
        name = f"{datetime.now():%Y%m%d-%H%M%S}-systems"
        settings = settings_of(**fixed, **grown)
        return Comparison.create(folder or Path("runs") / name, settings)
    if fixed or folder is not None:
        raise UserError(
            "--resume DIR continues the comparison there, with more --max, --systems, --budget or "
            "--seeds if they are given: leave out what else it is of"
        )
    comparison = Comparison.open(resume)
    comparison.grow(**grown)
    return comparison


def _epochs(text: str | None) -> int | None:
    """Epochs of fine-tuning; 0 for none."""
    if text is None or text == "none":
        return None if text is None else 0
    found = numbers(text, "--finish")
    if len(found) != 1 or not 1 <= found[0] <= MOST_EPOCHS:
        raise UserError(f"--finish {text!r}: write none, or epochs from 1 to {MOST_EPOCHS:,}")
    return found[0]
