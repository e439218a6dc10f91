"""Accuracies of the best networks of a comparison, measured once and kept in its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.benchmarks.systems.settings import Settings
from apq_moo.deadlines import Deadline, OutOfTimeError
from apq_moo.errors import UserError
from apq_moo.files import is_file
from apq_moo.npz import read_arrays, write_arrays
from apq_moo.problems.measured import exact_source
from apq_moo.space import load_space

FILE = "accuracies.npz"

Measured = dict[bytes, FloatArray]
"""Accuracies on validation and test images in percent, shape ``(2,)``, by canonical genotype."""


def known_accuracies(folder: Path, settings: Settings) -> Measured:
    """What was measured earlier.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FILE
    if not is_file(path):
        return {}
    arrays = read_arrays(path, {"X": ("iu", 2), "accuracies": ("f", 2)})
    X, accuracies = arrays["X"].astype(np.int64), arrays["accuracies"].astype(np.float64)
    if accuracies.shape != (len(X), 2) or not ((accuracies >= 0) & (accuracies <= 100)).all():
        raise UserError(f"{path} is damaged: its arrays do not belong together; delete it")
    if len(X):
        load_space(settings.space).check(X)
    return {x.tobytes(): row for x, row in zip(X, accuracies, strict=True)}


def measure(
    folder: Path,
    settings: Settings,
    networks: Iterable[IntArray],
    on: str | None,
    callback: Callable[[int, int], None],
    deadline: Deadline | None = None,
) -> Measured:
    """Measure what is not known yet, or look it up.

    What is measured before the deadline is not lost: the source of accuracies keeps it.

    Args:
        folder: of the comparison.
        settings: whose space and assets.
        networks: canonical genotypes, shape ``(n_var,)`` each.
        on: where torch measures.
        callback: told ``(networks measured, in all)``.
        deadline: when it stops; then nothing is added to what is known.

    Raises:
        UserError: networks cannot be measured, or what was measured earlier is damaged.
    """
    known = known_accuracies(folder, settings)
    new = {x.tobytes(): x for x in networks if x.tobytes() not in known}
    if not new:
        return known
    X = np.unique(np.array(list(new.values())), axis=0)
    source = exact_source(load_space(settings.space), settings.assets, on)

    def tell(done: int) -> None:
        callback(done, len(X))
        if deadline is not None:
            deadline.check()

    try:
        found = source.measure(X, tell)
    except OutOfTimeError:
        return known
    known |= {x.tobytes(): row for x, row in zip(X, found, strict=True)}
    rows = np.array([np.frombuffer(key, dtype=np.int64) for key in known])
    write_arrays(folder / FILE, {"X": rows, "accuracies": np.array(list(known.values()))})
    return known
