"""Measuring many networks into a table: in parts, by several processes, going on where it stopped.

What is in the table is not measured again. Under ``torchrun`` each process measures its share, in a
file of its own beside the table's (``*.part0`` ...); such files of an interrupted run are taken up,
whoever wrote them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import BoolArray, IntArray
from apq_moo.changes import refuse_other_settings
from apq_moo.data import load_images
from apq_moo.data.images import check_images
from apq_moo.data.samples import SampleTable
from apq_moo.data.tables import MISSING, AccuracyTable
from apq_moo.errors import UserError
from apq_moo.files import growing, sha256
from apq_moo.space import Space, SpaceSpec, belonging, embed, superspace
from apq_moo.space.belonging import CONTENT
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.devices import torch_device
from apq_moo.supernet.distributed import Group, join
from apq_moo.supernet.finetuning import FineTunedScorer, FineTuning
from apq_moo.supernet.ranges import NO_RANGES
from apq_moo.supernet.scoring import Scorer
from apq_moo.workers import in_workers

_CHUNK, _CHUNK_ON_GPU = 16, 64
"""Networks that a process measures before it waits for the device and reports."""

_EVERY_S = 10.0
"""Seconds between stores."""

Counts = NDArray[np.int32]

T = TypeVar("T", SampleTable, AccuracyTable)


@dataclass(frozen=True)
class Task:
    """What a process needs to know to measure networks.

    Attributes:
        spec: of the supernet's space.
        digest: of that space.
        checkpoint: the supernet's file, and ``checksum`` its SHA-256.
        images: the name of the data set, and ``splits`` what may be classified of them.
        finetuning: of networks at their bits, or None.
        on: the device.
    """

    spec: SpaceSpec = field(compare=False)
    digest: str
    checkpoint: str
    checksum: str
    images: str
    splits: tuple[str, ...]
    finetuning: FineTuning | None
    on: str


@lru_cache(maxsize=1)
def _scorer(task: Task) -> Scorer:
    supernet, _ = load_supernet(task.checkpoint, Space(task.spec))
    supernet = supernet.to(torch_device(task.on))
    images = load_images(task.images)
    if task.finetuning is None:
        return Scorer(supernet, images)
    return FineTunedScorer(supernet, images, task.finetuning)


def _count(
    task: Task, rows: IntArray, X: IntArray, quantised: BoolArray, wanted: BoolArray
) -> tuple[IntArray, Counts]:
    scorer = _scorer(task)
    right = np.full(wanted.shape, MISSING, dtype=np.int32)
    for pattern in np.unique(wanted, axis=0):
        of = np.flatnonzero((wanted == pattern).all(axis=1))
        splits = [split for split, is_wanted in zip(task.splits, pattern, strict=True) if is_wanted]
        subnets = scorer.space.decode(X[of])
        found = scorer.count(subnets, splits, quantised=quantised[of])
        right[np.ix_(of, np.flatnonzero(pattern))] = found
    return rows, right


def measure(
    space: Space,
    checkpoint: str | Path,
    images: str,
    table: T,
    out: str | Path,
    read: Callable[[Path], T],
    *,
    finetuning: FineTuning | None = None,
    jobs: int = 1,
    on: str = "cpu",
    callback: Callable[[int, int], None] | None = None,
) -> T:
    """Measure the networks of a table, continuing a file of them that is already there.

    An interrupted measuring leaves in the file what was measured until then.

    Args:
        space: of the networks.
        checkpoint: the supernet of the space, or of what it is part of.
        images: the name of the data set.
        table: the networks, with what is known without the file.
        out: the file.
        read: reads such a file.
        finetuning: of networks at their bits, or None.
        jobs: processes here; a single one is this process.
        on: the device of all of them.
        callback: told ``(done, total)``.

    Raises:
        UserError: a file is unreadable or of other origin, another process writes it, a worker was
            killed, there is no such device, or networks are to run at their bits and the supernet
            has no ranges.
    """
    whole = superspace(space)
    supernet, _ = load_supernet(checkpoint, whole)  # refused here, before any process starts
    if table.quantised.any() and not supernet.ranges.known:
        raise UserError(NO_RANGES)
    check_images(whole, load_images(images))
    group, device = join(on)
    task = Task(
        whole.spec, whole.digest, str(checkpoint), sha256(checkpoint), images, table.splits,
        finetuning, str(device),
    )  # fmt: skip
    with growing(out) if group.leads else nullcontext():
        return _complete(task, table, embed(space, table.X), Path(out), read, group, jobs, callback)


def _complete(
    task: Task,
    empty: T,
    X: IntArray,
    out: Path,
    read: Callable[[Path], T],
    group: Group,
    jobs: int,
    callback: Callable[[int, int], None] | None,
) -> T:
    """Measure what the file of a table lacks; ``X`` are its networks in the supernet's space."""
    own = out if group.size == 1 else out.with_name(f"{out.name}.part{group.rank}")
    table, spent = _known(empty, out, read)
    group.wait()  # all have read what there is
    sizes = [len(load_images(task.images).split(name)) for name in task.splits]
    todo = table.unmeasured()[group.rank :: group.size]
    size = _CHUNK if torch_device(task.on).type == "cpu" else _CHUNK_ON_GPU
    chunks = [todo[i : i + size] for i in range(0, len(todo), size)]
    quantised, wanted = table.quantised, table.wanted
    calls = ((task, rows, X[rows], quantised[rows], wanted[rows]) for rows in chunks)
    begun = stored = time.perf_counter()
    try:
        with closing(in_workers(_count, calls, jobs)) as counted:
            for rows, right in counted:
                table = table.with_counts(rows, right, sizes)
                now = time.perf_counter()
                if now - stored > _EVERY_S:
                    _save(table, own, spent + now - begun)
                    stored = now
                if callback is not None:
                    callback(len(table.X) - len(table.unmeasured()), len(table.X))
    finally:
        _scorer.cache_clear()
        _save(table, own, spent + time.perf_counter() - begun)
    group.wait()
    if group.leads:
        table, spent = _known(empty, out, read)
        _save(table, out, spent)
        for part in _parts(out):
            part.unlink()
    group.wait()
    return read(out)


def _save(table: T, path: Path, seconds: float) -> None:
    replace(table, provenance={**table.provenance, "seconds": round(seconds, 3)}).save(path)


def _parts(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f"{escape(out.name)}.part*"))


def _known(table: T, out: Path, read: Callable[[Path], T]) -> tuple[T, float]:
    """A table with what files of it know, and the seconds that it took.

    Raises:
        UserError: a file is unreadable or of other origin.
    """
    spent, origin = 0.0, origin_of(table)
    for path in (out, *_parts(out)):
        if not path.exists():
            continue
        earlier = read(path)
        spent = max(spent, float(earlier.provenance.get("seconds", 0.0)))
        refuse_other_settings(path, origin_of(earlier), origin, "name another file")
        if not np.array_equal(earlier.X, table.X):
            raise UserError(f"{path} holds other networks than these; name another file")
        table = table.joined(earlier)
    return table, spent


def origin_of(table: SampleTable | AccuracyTable) -> dict[str, Any]:
    """What a table was measured from: images by their checksum, wherever they lay."""
    told = {"seconds", "images", "images_name", CONTENT}
    return {name: value for name, value in table.provenance.items() if name not in told}


def provenance(space: Space, checksum: str, images_sha256: str) -> dict[str, Any]:
    """Where what is measured comes from.

    Args:
        space: of the networks.
        checksum: of the supernet's file.
        images_sha256: of the images.
    """
    return {
        **belonging(space),
        "images_sha256": images_sha256,
        "supernet_sha256": checksum,
    }
