"""Measuring given networks at their bits, on the validation and the test images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import IntArray
from apq_moo.data import load_images
from apq_moo.data.assets import SUPERNET, Assets
from apq_moo.data.tables import MISSING, SPLITS, AccuracyTable, load_table
from apq_moo.files import sha256
from apq_moo.space import Space
from apq_moo.supernet.measuring import measure, provenance


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
    header = {
        **provenance(space, checksums[SUPERNET], checksums["images"]),
        "images_name": assets.images,
    }
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
    jobs: int = 1,
    on: str = "cpu",
    every_s: float = 10.0,
    callback: Callable[[int, int], None] | None = None,
) -> AccuracyTable:
    """Measure networks, continuing a table of them that is already there.

    Args:
        space: the space of the networks.
        checkpoint: the supernet of the space, or of what it is part of.
        images: the name of the data set.
        X: canonical genotypes, shape ``(n, n_var)``.
        out: the table's file.
        jobs: processes.
        on: the device of each of them.
        every_s: seconds between stores.
        callback: told ``(done, total)``.

    Raises:
        UserError: see :func:`apq_moo.supernet.measuring.measure`.
    """
    data = load_images(images)
    header = {**provenance(space, sha256(checkpoint), data.checksum), "images_name": images}
    right = np.full((len(X), len(SPLITS)), MISSING, dtype=np.int32)
    table = AccuracyTable(X, right, (len(data.validation), len(data.test)), header)
    return measure(
        space, checkpoint, images, table, out, partial(_read, space), jobs=jobs, on=on,
        every_s=every_s, callback=callback,
    )  # fmt: skip


def _read(space: Space, path: Path) -> AccuracyTable:
    return load_table(path, space)
