"""Commands that search: ``run`` and the lists of what it takes."""

from __future__ import annotations

import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from apq_moo.changes import refuse_other_settings
from apq_moo.cli.app import app, check_output, err, out, progress_bar, say, say_json
from apq_moo.cli.measuring_options import INNER, MEASURED, MEASURING, SURROGATE, Wish, measuring
from apq_moo.cli.options import (
    START_HELP,
    DeviceOption,
    JsonOption,
    LimitOption,
    MissingOption,
    OnOption,
    parse_limits,
)
from apq_moo.cli.stopping import going_on
from apq_moo.errors import UserError
from apq_moo.study.config import RunConfig, names_file, parse_objectives

if TYPE_CHECKING:
    from apq_moo.study.folder import RunFolder
    from apq_moo.study.search import Search

_DEFAULT = RunConfig()


@app.command(cls=TyperCommand)
def run(
    ctx: typer.Context,
    algo: Annotated[
        str,
        typer.Option(help="An algorithm's name, see `apq-moo algorithms`, or FILE.py:ENTRY."),
    ] = _DEFAULT.algo,
    objectives: Annotated[
        str,
        typer.Option(
            help="Any of acc, latency, energy, macs, bitops, params, size, memory, by commas."
        ),
    ] = ",".join(_DEFAULT.objectives),
    space: Annotated[str, typer.Option(help="A preset or a TOML file.")] = _DEFAULT.space,
    device: DeviceOption = _DEFAULT.device,
    missing: MissingOption = _DEFAULT.missing,
    predictor: Annotated[
        str,
        typer.Option(help="A predictor's name, the file of a fitted one, or supernet: measure."),
    ] = _DEFAULT.predictor,
    assets: Annotated[
        str | None, typer.Option(help="Folder made by `apq-moo pipeline`; default: shipped.")
    ] = None,
    limit: LimitOption = None,
    budget: Annotated[int, typer.Option(help="Evaluations in all.")] = _DEFAULT.budget,
    measure: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Networks that surrogate, or a refined search, measures in all.",
            show_default=str(MEASURED),
        ),
    ] = None,
    refine: Annotated[
        bool,
        typer.Option(
            "--refine",
            help="Measure what --predictor promises to --algo, refit, repeat; from the samples.",
        ),
    ] = False,
    inner: Annotated[
        str | None,
        typer.Option(help="The algorithm that searches surrogate's predictor.", show_default=INNER),
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option(help="Measured networks to begin with: shipped, tables, folders of runs."),
    ] = None,
    sweep: Annotated[
        int | None,
        typer.Option(
            help="Limits over which apq-ga is swept.",
            show_default="up to 8, as the budget allows",
        ),
    ] = None,
    pop_size: Annotated[int, typer.Option(help="Networks a round.")] = _DEFAULT.pop_size,
    seed: Annotated[int, typer.Option(help="Of the search.")] = _DEFAULT.seed,
    start: Annotated[str, typer.Option(help=START_HELP)] = _DEFAULT.start,
    warm_start: Annotated[
        str | None,
        typer.Option(help="Begin with: exact, a run's folder, a front.csv or a policy's JSON."),
    ] = None,
    on: OnOption = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Run folder; default: a new one under runs/.")
    ] = None,
    verify: Annotated[
        int | None,
        typer.Option(
            metavar="[K]",
            min=1,
            help="Measure 3 K front members on the supernet; show up to K (10) of their own front.",
        ),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    breakdown: Annotated[
        int | None,
        typer.Option(metavar="ROW", min=0, help="Show where this front member's costs arise."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier run in --out.")] = False,
) -> None:
    """Search a space and print the Pareto front."""
    from apq_moo.study.folder import RunFolder

    given = {
        name
        for name in ctx.params
        if (source := ctx.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    algo_file = None
    if names_file(algo):
        from apq_moo.study.own_algorithms import load

        algo_file = load(algo)
        algo = algo_file.name
    refit = None
    if refine or algo == SURROGATE or given & set(MEASURING):
        if resume is not None and given & set(MEASURING):
            named = ", ".join(f"--{name}" for name in MEASURING)
            raise UserError(f"--resume DIR continues the run there: leave out {named}")
        if resume is None:
            wish = Wish(
                algo=algo if "algo" in given else None,
                predictor=predictor if "predictor" in given else None,
                budget=budget if "budget" in given else None,
                measure=measure,
                refine=refine,
                inner=inner,
                samples=samples,
            )
            algo, predictor, budget, refit = measuring(wish, space, assets)
    config = RunConfig(
        algo=algo,
        objectives=parse_objectives(objectives),
        space=space,
        device=device,
        missing=missing,
        start=start,
        warm_start=warm_start,
        predictor=predictor,
        assets=assets,
        limits=parse_limits(limit or ()),
        budget=budget,
        sweep=sweep,
        pop_size=pop_size,
        seed=seed,
        on=on,
        refit=refit,
        algo_file=algo_file,
    )
    if resume is not None:
        opened = RunFolder.open(resume)
        _check_same(given, config, verify, opened)
        if algo_file is not None:
            opened.found(algo_file)
        carry_out(opened, breakdown=breakdown)
    else:
        from apq_moo.problems import require_exact
        from apq_moo.study.own_algorithms import usable
        from apq_moo.study.search import Search

        with usable(config.files, "the command"):
            # What cannot work is refused before there is a folder.
            search = Search(config)
            if verify:
                from apq_moo.supernet.devices import chosen_device

                require_exact(search.problem.space, config.assets)
                chosen_device(on)
            path = folder or _new_folder(algo)
            opened = RunFolder.create(path, config, verify=verify, overwrite=overwrite)
            carry_out(opened, search, breakdown=breakdown)


def _new_folder(algo: str) -> Path:
    """A name under ``runs/`` that is not taken, also by a run begun within the same second."""
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{re.sub('[^A-Za-z0-9.+=-]', '-', algo)[:100]}"
    names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    return next(path for path in map(Path("runs").joinpath, names) if not path.exists())


_FIELDS = {"limit": "limits"}


def _check_same(given: set[str], config: RunConfig, verify: int | None, folder: RunFolder) -> None:
    """Options given beside ``--resume`` must be those of the run."""
    wanted = {**config.to_dict(), "verify": verify}
    recorded = {**folder.config.to_dict(), "verify": folder.record.get("verify")}
    explicit = {_FIELDS.get(name, name) for name in given}
    if explicit & {"folder", "overwrite"}:
        raise UserError("--resume DIR continues the run there: leave out --out and --overwrite")
    then, now = ({name: of[name] for name in explicit & of.keys()} for of in (recorded, wanted))
    refuse_other_settings(f"the run in {folder.path}", then, now, "leave them out")


def carry_out(
    folder: RunFolder, search: Search | None = None, *, breakdown: int | None = None
) -> None:
    """Carry out a run, or what is left of it, and print its front.

    Args:
        folder: the run.
        search: of its configuration, where there is one already.
        breakdown: row of a front member whose costs to show layer by layer.
    """
    from apq_moo.results.report import front_table
    from apq_moo.results.run import Listener, execute, title_of
    from apq_moo.results.verification import shown_members

    if folder.finished:
        columns = folder.read_front()
    else:
        with going_on(lambda: _kept(folder)), progress_bar() as bar:
            searching = bar.add_task("searching", total=folder.config.budget)
            measure = bar.add_task("measuring", total=None, visible=False)
            columns = execute(
                folder,
                Listener(
                    searching=lambda done, total: bar.update(
                        searching, completed=done, total=total
                    ),
                    say=lambda text: err.print(text, markup=False),
                    verifying=lambda done, total: bar.update(
                        measure, completed=done, total=total, visible=True
                    ),
                ),
                search,
            )
    objectives = folder.config.objectives
    title = title_of(folder)
    if "acc_val_true" in columns:
        rows = shown_members(folder, columns)
        out.print(front_table(columns, objectives, f"measured front of {title}", rows))
        title = f"predicted front of {title}"
    out.print(front_table(columns, objectives, title))
    _print_summary(folder, columns)
    if breakdown is not None:
        _print_breakdown(folder, columns, breakdown)
    _print_next(folder, columns)


def _kept(folder: RunFolder) -> str:
    from apq_moo.study.record import recorded

    what = (
        "the search is kept, and whatever was measured"
        if folder.searched
        else f"{recorded(folder.path):,} of {folder.config.budget:,} evaluations are kept"
    )
    return f"{what}: go on with apq-moo run --resume {shlex.quote(str(folder.path))}"


def _print_breakdown(folder: RunFolder, columns: dict[str, list[Any]], row: int) -> None:
    from apq_moo.results.breakdown import break_down

    table, picture = break_down(folder, columns, row)
    out.print(table)
    say(f"drawn in {picture}")


def _print_summary(folder: RunFolder, columns: dict[str, list[Any]]) -> None:
    from apq_moo.results.verification import noise_of

    verified: dict[str, Any] = folder.record.get("verified") or {}
    if "front" in verified:
        say(f"{verified['front']} of {verified['networks']} measured networks are its front")
    for split in ("validation", "test"):
        tau = verified.get(f"kendall_tau_{split}")
        if tau is not None:
            out.print(
                f"Kendall tau of predicted and measured ({split}, {verified.get('networks')} "
                f"networks): {tau:.3f}"
            )
    if noisy := noise_of(folder, columns):
        say(noisy)
    gap = folder.record.get("gap")
    if gap is not None:
        from apq_moo.results.gap import Gap

        say(str(Gap(**gap)))
    seconds = sum(folder.record["seconds"].values())
    say(f"{len(columns['subnet'])} networks on the front, {seconds:.1f} s, in {folder.path}")


def _print_next(folder: RunFolder, columns: dict[str, list[Any]]) -> None:
    """Print the commands that may follow, filled in with a limit in the middle of the front."""
    from apq_moo.data.assets import SUPERNET, find_assets
    from apq_moo.hardware import ACC
    from apq_moo.space import load_space
    from apq_moo.texts import rounded_up

    config, path = folder.at_hand, shlex.quote(str(folder.path))
    limit = ""
    for name in config.objectives:
        if name != ACC and not limit and columns[name]:
            values = sorted(columns[name])
            limit = f" --max {name}={rounded_up(values[len(values) // 2])}"
    following = {f"apq-moo pick {path}{limit}": "one network, as JSON"}
    try:
        deployable = find_assets(load_space(config.space), config.assets).has(SUPERNET)
    except UserError:
        deployable = False
    if deployable:
        following[f"apq-moo deploy {path}{limit} -o net"] = "one network, as ONNX"
    following[f"apq-moo report {path} -o report.html"] = "all of it, as a page"
    say("next:")
    width = max(map(len, following))
    for command, what in following.items():
        say(f"  {command:{width}}  {what}")


@app.command()
def pick(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    limit: LimitOption = None,
    knee: Annotated[bool, typer.Option("--knee", help="The knee of the front.")] = False,
    file: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The policy; default: policy.json (or arch) in RUN."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="json, or apq: as the code released with APQ reads it.")
    ] = "json",
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier policy.")] = False,
) -> None:
    """Pick a network from all that a run evaluated, under limits of now, and write its policy."""
    from apq_moo.hardware import QUANTITIES
    from apq_moo.results.pick import pick as choose
    from apq_moo.results.policies import APQ, NAMES, PUBLISHED, check_format, write_policy
    from apq_moo.space import load_space
    from apq_moo.study.folder import RunFolder

    check_format(form)
    folder = RunFolder.open(run)
    path = file or folder.path / NAMES[form]
    check_output("released policy" if form == APQ else "policy", path, overwrite=overwrite)
    found = choose(folder, parse_limits(limit or ()), knee=knee)
    known = write_policy(path, load_space(folder.at_hand.space), found.subnet, form)
    worth = ", ".join(
        f"{name} {value:.5g} {QUANTITIES.get(name).unit}" for name, value in found.values.items()
    )
    say(f"{worth}; picked from {found.among:,} networks")
    for block in found.subnet.blocks:
        say(
            f"  stage {block.stage}: {block.kernel}x{block.kernel}, {block.channels} channels, "
            f"pointwise W{block.w_pw}A{block.a_pw}, depthwise W{block.w_dw}A{block.a_dw}"
        )
    say(f"{path}")
    if not known:
        say(f"the code released with APQ evaluates networks of {PUBLISHED} only, so not this", err)


@app.command()
def algorithms(as_json: JsonOption = False) -> None:
    """List the search algorithms."""
    from apq_moo.algorithms import ALGORITHMS

    entries = list(ALGORITHMS.usable())
    if as_json:
        keys = ("name", "kind", "least_objectives", "summary", "citation")
        say_json([{key: getattr(entry, key) for key in keys} for _, entry in entries])
        return
    for name, entry in entries:
        front = "a front" if entry.kind == "multi-objective" else "one network for each limit"
        least = f", from {entry.least_objectives} objectives" if entry.least_objectives > 1 else ""
        say(f"{name}: {entry.summary} [{front}{least}] ({entry.citation})")


@app.command()
def spaces(as_json: JsonOption = False) -> None:
    """List the shipped search spaces."""
    from apq_moo.space import load_space, presets

    found = [load_space(name) for name in presets()]
    if as_json:
        say_json(
            [
                {"name": space.name, "genes": space.n_var, "networks": space.count()}
                for space in found
            ]
        )
        return
    for space in found:
        say(f"{space.name}: {space.n_var} genes, {space.count():.3e} networks")
