"""Measuring given networks at their bits, on the validation and the test images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apq_moo.arrays import IntArray
from apq_moo.data import ImageSet, load_images
from apq_moo.data.assets import SUPERNET, Assets
from apq_moo.data.tables import MISSING, SPLITS, AccuracyTable, load_table
from apq_moo.errors import UserError
from apq_moo.files import sha256
from apq_moo.space import Space, embed, superspace
from apq_moo.supernet.backends import evaluator_for
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.distributed import join
from apq_moo.supernet.network import Supernet

_CHUNK = 64
"""Networks between two looks at the device's results."""


class Scorer:
    """Counts what networks of a supernet classify rightly, all splits in one pass.

    Args:
        supernet: the weights.
        images: the data set.
    """

    def __init__(self, supernet: Supernet, images: ImageSet) -> None:
        device = next(supernet.parameters()).device
        parts = [images.split(name) for name in SPLITS]
        self.space = supernet.space
        self.sizes = [len(part) for part in parts]
        calibration = torch.from_numpy(images.calibration.images).to(device)
        self._evaluator = evaluator_for(supernet, calibration)
        together = torch.from_numpy(np.concatenate([part.images for part in parts]))
        self._images = self._evaluator.prepare(together)
        labels = np.concatenate([part.labels for part in parts])
        self._labels = torch.from_numpy(labels).to(device)

    def count(self, X: IntArray) -> NDArray[np.int32]:
        """Rightly classified images of each split at the networks' bits, shape ``(n, 2)``.

        Args:
            X: canonical genotypes of the supernet's space.
        """
        rows: list[Tensor] = []
        for subnet in self.space.decode(X):
            logits = self._evaluator.logits(subnet, self._images, quantised=True)
            right = (logits.argmax(1) == self._labels).split(self.sizes)
            rows.append(torch.stack([part.sum() for part in right]))
        found: NDArray[np.int32] = torch.stack(rows).cpu().numpy().astype(np.int32)
        return found


def _provenance(space: Space, supernet: str, images: str, checksum: str) -> dict[str, Any]:
    return {
        "space": space.name,
        "digest": space.digest,
        "images_name": images,
        "images_sha256": checksum,
        "supernet_sha256": supernet,
    }


def begin_table(space: Space, assets: Assets, X: IntArray, path: str | Path) -> AccuracyTable:
    """A file of networks that are to be measured, or what is there of them already.

    It can be completed by :func:`tabulate`, here or on another machine.

    Args:
        space: of the networks.
        assets: of the space, or of what it is part of.
        X: canonical genotypes, shape ``(n, n_var)``.
        path: the file. What an earlier one with the same supernet has measured stays in it.

    Returns:
        These networks and those measured before, in lexicographic order.

    Raises:
        UserError: the file is unreadable, or cannot be written; or the images are not here.
    """
    checksums = assets.checksums()
    header = _provenance(space, checksums[SUPERNET], assets.images, checksums["images"])
    data = load_images(assets.images)
    sizes = len(data.validation), len(data.test)
    known: dict[bytes, NDArray[np.int32]] = {}
    seconds = 0.0
    if Path(path).exists():
        earlier = load_table(path, space)
        if {**header, "seconds": 0} == {**earlier.provenance, "seconds": 0}:
            seconds = float(earlier.provenance.get("seconds", 0.0))
            measured = (earlier.right != MISSING).all(axis=1)
            known = {
                bytes(row): right
                for row, right in zip(earlier.X[measured], earlier.right[measured], strict=True)
            }
            X = np.vstack([X, earlier.X[measured]])
    X = np.unique(X, axis=0)
    nothing = np.full(len(SPLITS), MISSING, dtype=np.int32)
    right = np.array([known.get(bytes(row), nothing) for row in X])
    table = AccuracyTable(X, right, sizes, {**header, "seconds": seconds})
    table.save(path)
    return table


def tabulate(
    space: Space,
    checkpoint: str | Path,
    images: str,
    X: IntArray,
    out: str | Path,
    *,
    on: str = "cpu",
    every_s: float = 10.0,
    callback: Callable[[int, int], None] | None = None,
) -> AccuracyTable:
    """Measure networks, continuing a table of them that is already there.

    Under ``torchrun`` each process measures its share, in a file of its own beside ``out``
    (``*.part0`` ...); such files of an interrupted run are taken up, whoever wrote them.

    Args:
        space: the space of the networks.
        checkpoint: the supernet of the space, or of what it is part of.
        images: the name of the data set.
        X: canonical genotypes, shape ``(n, n_var)``.
        out: the table's file.
        on: the device of each process.
        every_s: seconds between stores.
        callback: told ``(done, total)`` of this process.

    Raises:
        UserError: a file is unreadable or of other networks, or there is no such device.
    """
    group, device = join(on)
    supernet, _ = load_supernet(checkpoint, superspace(space))
    data = load_images(images)
    out = Path(out)
    own = out if group.size == 1 else out.with_name(f"{out.name}.part{group.rank}")
    scorer = Scorer(supernet.to(device), data)
    provenance = _provenance(space, sha256(checkpoint), images, data.checksum)
    sizes = (scorer.sizes[0], scorer.sizes[1])
    empty = np.full((len(X), len(SPLITS)), MISSING, dtype=np.int32)
    table = AccuracyTable(X, empty, sizes, provenance)
    right, spent = _merged(table, out, space)
    group.wait()  # all have read what there is
    begun = stored = time.perf_counter()
    todo = np.flatnonzero((right == MISSING).any(axis=1))[group.rank :: group.size]
    chunks = [todo[i : i + _CHUNK] for i in range(0, len(todo), _CHUNK)]

    def store(path: Path, seconds: float) -> None:
        header = {**provenance, "seconds": round(seconds, 3)}
        replace(table, right=right, provenance=header).save(path)

    for number, chunk in enumerate(chunks):
        right[chunk] = scorer.count(embed(space, X[chunk]))
        now = time.perf_counter()
        if now - stored > every_s:
            store(own, spent + now - begun)
            stored = now
        if callback is not None:
            callback(min(len(todo), (number + 1) * _CHUNK), len(todo))
    store(own, spent + time.perf_counter() - begun)
    group.wait()
    if group.leads:
        right, spent = _merged(table, out, space)
        store(out, spent)
        for part in _parts(out):
            part.unlink()
    group.wait()
    return load_table(out, space)


def _parts(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f"{escape(out.name)}.part*"))


def _merged(table: AccuracyTable, out: Path, space: Space) -> tuple[NDArray[np.int32], float]:
    """What is known from a table and its parts, and the seconds it took.

    Raises:
        UserError: a file is unreadable or of other origin.
    """
    right, spent = table.right.copy(), 0.0
    for path in (out, *_parts(out)):
        if not path.exists():
            continue
        earlier = load_table(path, space)
        header: dict[str, Any] = dict(earlier.provenance)
        spent = max(spent, float(header.pop("seconds", 0.0)))
        if header != table.provenance or not np.array_equal(earlier.X, table.X):
            raise UserError(f"{path} holds other networks, or those of another supernet")
        right = np.where(right == MISSING, earlier.right, right)
    return right, spent
