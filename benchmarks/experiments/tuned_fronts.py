"""What do members of a front gain when they are fine-tuned, and what would they reach alone?

Run as ``python -m apq_moo.benchmarks.experiments.tuned_fronts --run RUN --out tuned.json --tenth
--jobs 12 --on cuda:0,cuda:1``. Members of a run's front, evenly spread in accuracy with both ends
among them, are measured at their bits on the validation and the test images:

* as they inherit their weights;
* after fine-tuning for some epochs, as ``apq-moo finetune`` does it but for the batch, which is
  that of the supernet's recipe. Each length is a run of its own with its own schedule. Where that
  is worse on the validation images, the inherited network is what comes out;
* with ``--tenth``, after fine-tuning for a tenth of the steps of the next;
* trained alone from random weights for as many steps as the supernet was. In the first three
  quarters this is the supernet's recipe in full precision, on this subnet only and with a cosine of
  its own; in the last quarter it is the fine-tuning at its bits, with labels in place of a teacher,
  and with a cosine of its own again. So bits are learned by the same quantisers in both ways.

An interrupted run goes on where it stopped: finished trainings are in the file, unfinished ones in
``*.training`` beside it. With ``--seconds`` it stops by itself, and the same command goes on; leave
a minute of what time there is to workers that begin and end.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apq_moo.arrays import FloatArray
from apq_moo.benchmarks.experiments.tuned_trainings import Job, halves, lengths, recipe, trained
from apq_moo.changes import refuse_other_settings
from apq_moo.data.assets import find_assets
from apq_moo.data.tables import SPLITS
from apq_moo.deploy.cutting import Inheritance, inheritance
from apq_moo.deploy.tuning import TuningConfig
from apq_moo.errors import UserError, reported, shown
from apq_moo.files import growing, read_json, write_json
from apq_moo.hardware import ACC
from apq_moo.space import Space, Subnet, load_space, refuse_other_space, superspace
from apq_moo.study.folder import MEASURED, ON_FRONT, RunFolder
from apq_moo.supernet.devices import device_of, torch_device
from apq_moo.supernet.scoring import Scorer
from apq_moo.supernet.training import TrainConfig
from apq_moo.texts import by_commas
from apq_moo.versions import versions
from apq_moo.workers import in_workers

ALONE, TENTH, INHERITED = "alone", "tenth", "inherited"
_MEND = "name another file"
_MOST_DIGITS = 7
_NEAR = 0.3
"""Points of accuracy within which a tenth of the steps is to bring a member to what it is alone."""


# -- members ---------------------------------------------------------------------------------------


def evenly(values: Sequence[float] | FloatArray, n: int) -> list[int]:
    """Which of some values are evenly spread over their range, ascending by value.

    Args:
        values: at least one.
        n: how many are wanted; all where there are fewer. Both ends are among two and more.
    """
    order = np.argsort(values, kind="stable")
    ascending = np.asarray(values, dtype=np.float64)[order]
    n = min(n, len(order))
    wanted = np.linspace(ascending[0], ascending[-1], n)
    at = np.abs(ascending[:, None] - wanted).argmin(axis=0)
    if n > 1:
        at[-1] = len(order) - 1
    # Each once: first those that are too low go up, then those that are too high go down.
    for i in range(1, n):
        at[i] = max(at[i], at[i - 1] + 1)
    at = np.minimum(at, np.arange(len(order) - n, len(order)))
    return [int(i) for i in order[at]]


def members(columns: Mapping[str, Sequence[Any]], n: int) -> list[int]:
    """Rows of a front evenly spread in accuracy, ascending by it, both ends among them.

    Accuracies are measured ones on the validation images, of the measured front, where there are
    any; else those that the run's objective says.

    Args:
        columns: of ``front.csv``.
        n: how many; all where there are fewer.

    Raises:
        UserError: accuracy is no objective of the run, nor measured.
    """
    rows = [row for row, on_front in enumerate(columns.get(ON_FRONT, ())) if on_front]
    name = MEASURED[0] if rows else ACC
    if name not in columns:
        raise UserError("accuracy is no objective of the run; name one that searched for it")
    rows = rows or list(range(len(columns[name])))
    return [rows[i] for i in evenly([float(columns[name][row]) for row in rows], n)]


# -- results ---------------------------------------------------------------------------------------


def kept(member: Mapping[str, Any], column: str) -> dict[str, float] | None:
    """Accuracies of what comes out of a column's training; None where it is not done.

    That is the inherited network where a fine-tuned one is worse on the validation images.
    """
    inherited: dict[str, float] = member[INHERITED]
    found: dict[str, float] | None = {INHERITED: inherited, **member["trained"]}.get(column)
    if found is None or column == ALONE or found["validation"] >= inherited["validation"]:
        return found
    return inherited


def table(state: Mapping[str, Any]) -> list[str]:
    """Lines of a table in Markdown: accuracies on the validation and the test images, in percent.

    Args:
        state: what the file holds.
    """
    columns = state["settings"]["columns"]
    heads = [_head(column, steps) for column, steps in columns.items()]
    lines = [
        f"| million operations | bits | inherited | {' | '.join(heads)} |",
        "|---" * (3 + len(heads)) + "|",
    ]
    for member in state["members"]:
        cells = [_cell(kept(member, column)) for column in (INHERITED, *columns)]
        lines.append(f"| {member['macs'] / 1e6:.2f} | {member['bits']:.1f} | {' | '.join(cells)} |")
    return lines


def _head(column: str, steps: int) -> str:
    name = {TENTH: f"a tenth of {ALONE}"}.get(column, column)
    return f"{name} ({steps:,} steps)"


def _cell(found: Mapping[str, float] | None) -> str:
    return "" if found is None else " / ".join(f"{found[split]:.2f}" for split in SPLITS)


def aims(state: Mapping[str, Any]) -> list[str]:
    """What the table is to show, in lines, of members of which both sides are known."""
    lines, of = [], state["members"]
    for column in state["settings"]["columns"]:
        if column == ALONE:
            continue
        done = [member for member in of if column in member["trained"]]
        if done:
            worse = sum(
                m["trained"][column]["validation"] < m[INHERITED]["validation"] for m in done
            )
            after = sum(_of(m, column, "test") < m[INHERITED]["test"] for m in done)
            lines.append(
                f"{column}: {worse} of {len(done)} are worse than inherited on the validation "
                f"images and kept as they were; of what comes out {after} are worse on the test "
                "images"
            )
    both = [m for m in of if {TENTH, ALONE} <= m["trained"].keys()]
    for split in SPLITS if both else ():
        gaps = [_of(m, TENTH, split) - _of(m, ALONE, split) for m in both]
        near = sum(round(gap, 3) >= -_NEAR for gap in gaps)
        lines.append(
            f"a tenth of the steps, {split} images: {near} of {len(both)} within {_NEAR} points "
            f"of alone or above; gaps from {min(gaps):+.2f} to {max(gaps):+.2f}"
        )
    return lines


def _of(member: Mapping[str, Any], column: str, split: str) -> float:
    found = kept(member, column)
    assert found is not None
    return found[split]


def main(argv: Sequence[str] | None = None) -> None:
    """Train, print each training as it is done, and the table at the end."""
    began = time.time()
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="a run's folder")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--assets", help="where the supernet lies; default: the run's")
    parser.add_argument("--members", type=int, default=12)
    parser.add_argument("--epochs", default="1,5,20", help="of fine-tuning, by commas")
    parser.add_argument("--tenth", action="store_true", help="a tenth of alone's steps too")
    parser.add_argument("--alone-steps", type=int, help="0: not alone; default: the supernet's")
    parser.add_argument("--batch", type=int, help="images of a step; default: the supernet's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--seconds", type=float, help="stop then, and keep what was done")
    parser.add_argument("--on", default="cpu", help="devices by commas, such as cuda:0,cuda:1")
    args = parser.parse_args(argv)
    until = None if args.seconds is None else began + args.seconds
    with growing(args.out):
        plan = _planned(args)
        state = _begin(args, plan)
        jobs = _jobs(args, plan, state, until)
        print(_said(plan, jobs), flush=True)
        left = len(jobs) - _train(args, state, jobs)
    for line in (*table(state), *aims(state)):
        print(line, flush=True)
    if left:
        spent = time.time() - began
        print(
            f"stopped after {spent:.0f} s: {left} trainings are left; repeat the command to go on"
        )


@dataclass(frozen=True)
class _Plan:
    """What is to be done.

    Attributes:
        place: of the space, a preset's name or a file.
        assets: of the run, or those that were asked for.
        space: the run's.
        subnets: the members.
        left: what the first of them inherits.
        trainings: of each member, by column: in full precision, and at bits.
        settings: all that results depend on.
    """

    place: str
    assets: str | None
    space: Space
    subnets: list[Subnet]
    left: Inheritance
    trainings: dict[str, tuple[TrainConfig | None, TuningConfig]]
    settings: dict[str, Any]


def _planned(args: argparse.Namespace) -> _Plan:
    for name in ("members", "jobs", "batch"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    epochs = _epochs_of(args.epochs)
    folder = RunFolder.open(args.run)
    folder.check_inputs()
    config = folder.at_hand
    space, place = load_space(config.space), args.assets or config.assets
    whole = recipe(find_assets(superspace(space), None if space.spec.part_of else place))
    front = folder.read_front()
    rows = members(front, args.members)
    subnets = [Subnet.from_dict(front["subnet"][row]) for row in rows]
    devices = by_commas(args.on) or ("",)
    for name in reversed(devices):  # the first stays the current one
        torch_device(name)
    left = inheritance(space, subnets[0], place, devices[0])
    batch = min(args.batch or whole.batch_size, len(left.images.train))
    whole = replace(whole, batch_size=batch)
    alone = whole.steps if args.alone_steps is None else args.alone_steps
    columns = lengths(epochs, len(left.images.train), batch)
    if args.tenth:
        columns[TENTH] = max(1, (alone or whole.steps) // 10)
    trainings: dict[str, tuple[TrainConfig | None, TuningConfig]] = {
        name: (None, TuningConfig(steps=steps, batch_size=batch, seed=args.seed))
        for name, steps in columns.items()
    }
    if alone:
        columns[ALONE] = alone
        trainings[ALONE] = halves(whole, alone, args.seed)
    settings = {
        "space": space.name,
        "digest": space.digest,
        "images_sha256": left.images.checksum,
        "supernet_sha256": left.origin["supernet_sha256"],
        "columns": columns,
        "trainings": {
            name: {"train": None if train is None else asdict(train), "tuning": asdict(tuning)}
            for name, (train, tuning) in trainings.items()
        },
        "rows": rows,
        "x": space.encode(subnets).tolist(),
    }
    return _Plan(config.space, place, space, subnets, left, trainings, settings)


def _epochs_of(text: str) -> list[int]:
    parts = by_commas(text)
    if not all(part.isdecimal() and len(part) < _MOST_DIGITS and int(part) for part in parts):
        raise UserError(f"epochs must be positive integers by commas, not {shown(text)}")
    return sorted({int(part) for part in parts})


def _begin(args: argparse.Namespace, plan: _Plan) -> dict[str, Any]:
    """The results so far; at first what members inherit."""
    if args.out.is_file():
        state: dict[str, Any] = read_json(args.out)
        if isinstance(known := state.get("settings"), dict):
            refuse_other_space(known, plan.space, args.out)
        refuse_other_settings(args.out, known, plan.settings, _MEND)
        return state
    supernet, images = plan.left.supernet, plan.left.images
    whole = [replace(subnet, space=supernet.space.name) for subnet in plan.subnets]
    found = Scorer(supernet, images).accuracies(whole, SPLITS, quantised=True).round(3)
    on_gpu = device_of(supernet).type == "cuda"
    state = {
        "settings": plan.settings,
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "versions": versions(),
        "members": [
            {
                "macs": sum(layer.macs for layer in plan.space.layers(subnet)),
                "bits": round(subnet.mean_bits, 3),
                INHERITED: dict(zip(SPLITS, accuracies, strict=True)),
                "trained": {},
            }
            for subnet, accuracies in zip(plan.subnets, found.tolist(), strict=True)
        ],
    }
    write_json(args.out, state)
    return state


def _jobs(
    args: argparse.Namespace, plan: _Plan, state: dict[str, Any], until: float | None
) -> dict[tuple[int, str], Job]:
    """What is left to be trained, the longest first, on devices by turns."""
    columns, devices = plan.settings["columns"], by_commas(args.on)
    todo = [
        (i, column)
        for column in sorted(columns, key=lambda name: -columns[name])
        for i in range(len(plan.subnets))
        if column not in state["members"][i]["trained"]
    ]
    jobs = {}
    for number, (i, column) in enumerate(todo):
        train, tuning = plan.trainings[column]
        name = f"{args.out.stem}-{i}-{column.replace(' ', '-')}.training"
        jobs[i, column] = Job(
            plan.place, plan.subnets[i].to_dict(), plan.assets, tuning, train,
            devices[number % len(devices)], args.out.with_name(name), until,
        )  # fmt: skip
    return jobs


def _said(plan: _Plan, jobs: Mapping[tuple[int, str], Job]) -> str:
    steps = sum(job.steps for job in jobs.values())
    batch = next(iter(plan.trainings.values()))[1].batch_size if plan.trainings else 0
    return f"{len(jobs)} trainings to do, {steps:,} steps of {batch:,} images in all"


def _train(
    args: argparse.Namespace, state: dict[str, Any], jobs: Mapping[tuple[int, str], Job]
) -> int:
    """Carry out trainings, each written as it is done; returns how many."""
    begun, done = time.perf_counter(), 0
    calls = [(*key, job) for key, job in jobs.items()]
    with closing(in_workers(trained, calls, args.jobs)) as results:
        for i, column, found in results:
            if found is None:
                continue
            done += 1
            state["members"][i]["trained"][column] = found
            write_json(args.out, state)
            for file in (jobs[i, column].checkpoint, jobs[i, column].first_checkpoint):
                file.unlink(missing_ok=True)
            print(
                f"{done} of {len(jobs)} after {time.perf_counter() - begun:.0f} s: member {i}, "
                f"{column}: {_cell(found)} (inherited {_cell(state['members'][i][INHERITED])}), "
                f"{found['seconds']:.0f} s on {jobs[i, column].on}",
                flush=True,
            )
    return done


if __name__ == "__main__":
    with reported():
        main()
