"""A whole run: search, front, optional verification, and the folder they go to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apq_moo.errors import UserError, escaped
from apq_moo.hardware import minimised
from apq_moo.problems.evaluated import Evaluated
from apq_moo.results.gap import certified_gap
from apq_moo.results.history import history
from apq_moo.results.report import draw_front, front_columns, not_offered
from apq_moo.results.verification import verify_front
from apq_moo.study.folder import HISTORY, RunFolder, alone
from apq_moo.study.inputs import refuse_changes
from apq_moo.study.kept import kept_by, what_counts
from apq_moo.study.own_algorithms import usable
from apq_moo.study.search import Search
from apq_moo.versions import processor, versions


@dataclass(frozen=True)
class Listener:
    """What a run tells while it goes; every function may be replaced.

    Attributes:
        searching: ``(evaluations done, in all)``.
        say: a line of text.
        verifying: ``(networks measured, in all)``.
    """

    searching: Callable[[int, int], None] = lambda _done, _total: None
    say: Callable[[str], None] = lambda _text: None
    verifying: Callable[[int, int], None] = lambda _done, _total: None


def execute(
    folder: RunFolder, listener: Listener | None = None, search: Search | None = None
) -> dict[str, list[Any]]:
    """Carry out the run of a folder, or what is left of it.

    Args:
        folder: the run.
        listener: told what happens.
        search: of the folder's configuration, where the caller has made it already.

    Returns:
        The columns of ``front.csv``.

    Raises:
        UserError: see :class:`Search` and :func:`verify_front`; a file cannot be written; or
            another process carries out the run.
    """
    listener = listener or Listener()
    what = f"the run in {folder.path}"
    with alone(folder.path), usable(folder.config.files, what):
        return _execute(folder, listener, search or Search(folder.at_hand))


def _execute(folder: RunFolder, listener: Listener, search: Search) -> dict[str, list[Any]]:
    config = folder.config
    refuse_changes(search.data, folder.record.get("data"), f"the run in {folder.path}")
    folder.store(versions=versions(), processor=processor(), data=search.data)
    if "start" not in folder.record["config"]:
        listener.say("begun before first networks were of all sizes: it goes on with uniform ones")
    lost = not_offered(search.problem)
    if lost:
        device = search.problem.device.name
        listener.say(f"not offered, since {device} does not run them: {lost}")
    if search.source is not None and not folder.searched:
        each = search.source.estimate_s(search.problem.space.largest()[None])
        if each:
            listener.say(
                f"measuring a network {search.source.where} takes up to {each:.2g} s: "
                f"{config.budget * each:,.0f} s at most in all; what is measured is kept"
            )
    begun = time.perf_counter()
    told = listener.searching
    if search.source is not None and search.source.measures:
        told = _by_minutes(listener)
    archive = search.run(folder=folder.path, callback=told)
    spent = search.trace.seconds[-1] if search.trace.seconds else 0.0
    seconds = {"load": search.seconds, "search": max(time.perf_counter() - begun, spent)}
    kept = kept_by(search, archive)
    front = what_counts(archive, kept).front()
    if len(front) == 0:
        raise UserError(_nothing_found(config.limits, config.objectives, archive))
    columns = front_columns(search.problem.space, config.objectives, front, search.surrogate)
    folder.write_front(columns)
    folder.write_table(HISTORY, history(search.problem, archive, search.trace, kept))
    if search.gradient_steps:
        folder.store(
            gradient_steps=search.gradient_steps,
            gradient_evaluations=search.gradient_evaluations,
        )
    folder.store(
        evaluations=len(archive),
        front=len(front),
        seconds=seconds,
        gap=certified_gap(search, front),
    )
    verify = folder.record.get("verify")
    if verify:
        columns, spent = verify_front(
            folder, columns, front, verify, say=listener.say, callback=listener.verifying
        )
        seconds["verify"] = spent
    draw_front(folder.path / "front.png", columns, config.objectives, title_of(folder))
    folder.store(status="finished", seconds=seconds)
    return columns


def _by_minutes(listener: Listener, every_s: float = 60.0) -> Callable[[int, int], None]:
    """Tells a listener about networks as they are measured, and once a minute in a line."""
    begun = told = time.perf_counter()
    first: int | None = None

    def tell(done: int, total: int) -> None:
        nonlocal told, first
        listener.searching(done, total)
        first = done if first is None else first
        now = time.perf_counter()
        if now - told >= every_s and done > first:
            told = now
            left = (now - begun) * (total - done) / (done - first) / 60
            listener.say(
                f"{done:,} of {total:,} networks measured in {(now - begun) / 60:.1f} min, "
                f"about {left:.1f} min to go"
            )

    return tell


def _nothing_found(
    limits: dict[str, float], objectives: tuple[str, ...], archive: Evaluated
) -> str:
    text = "no network that meets all limits was found"
    if "acc" in limits and "acc" in objectives:
        best = minimised(objectives, archive.F)[:, objectives.index("acc")].max()
        text += f" (acc of at least {limits['acc']:g}; the largest found is {best:.2f})"
    return f"{text}; change a limit or raise budget={len(archive)}"


def title_of(folder: RunFolder) -> str:
    """One line that says what the run searched."""
    config = folder.config
    what = f"{config.algo} on {config.space}"
    steps = folder.record.get("gradient_steps")
    beside = f", {steps:,} gradient steps" if steps else ""
    return escaped(f"{what}: {folder.record['evaluations']:,} evaluations{beside}")
