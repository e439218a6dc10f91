"""Measuring given networks at their bits, on the validation and the test images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from apq_moo.arrays import IntArray
from apq_moo.data import ImageSource, load_images
from apq_moo.data.assets import SUPERNET, Assets
from apq_moo.data.tables import MISSING, SPLITS, AccuracyTable, load_table
from apq_moo.files import growing, sha256
from apq_moo.space import Space
from apq_moo.supernet.measuring import measure, origin_of, provenance


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
        UserError: the file is unreadable, cannot be written, or is being written by another
            process; or the images are not here.
    """
    checksums = assets.checksums()
    header = {
        **provenance(space, checksums[SUPERNET], checksums["images"]),
        "images_name": assets.images,
        "seconds": 0.0,
    }
    data = load_images(assets.images)
    with growing(path):
        return _begin(space, X, Path(path), data, header)


def _begin(
    space: Space, X: IntArray, path: Path, data: ImageSource, header: dict[str, Any]
) -> AccuracyTable:
    table = _unmeasured(np.unique(X, axis=0), data, header)
    if path.exists():
        earlier = load_table(path, space)
        if origin_of(earlier) == origin_of(table):
            known = np.setdiff1d(np.arange(len(earlier.X)), earlier.unmeasured())
            table = _unmeasured(
                np.unique(np.vstack([X, earlier.X[known]]), axis=0), data, earlier.provenance
            )
            places = {bytes(row): place for place, row in enumerate(table.X)}
            rows = np.array([places[bytes(row)] for row in earlier.X[known]], dtype=np.int64)
            table = table.with_counts(rows, earlier.right[known], table.images)
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
        callback: told ``(done, total)``.

    Raises:
        UserError: see :func:`apq_moo.supernet.measuring.measure`.
    """
    data = load_images(images)
    header = {**provenance(space, sha256(checkpoint), data.checksum), "images_name": images}
    return measure(
        space, checkpoint, images, _unmeasured(X, data, header), out,
        partial(load_table, space=space), jobs=jobs, on=on, callback=callback,
    )  # fmt: skip


def _unmeasured(X: IntArray, images: ImageSource, header: dict[str, Any]) -> AccuracyTable:
    right = np.full((len(X), len(SPLITS)), MISSING, dtype=np.int32)
    return AccuracyTable(X, right, (len(images.validation), len(images.test)), header)
