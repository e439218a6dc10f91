"""What a run found as one tidy table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.errors import UserError, shown
from apq_moo.files import read_csv
from apq_moo.hardware import minimised
from apq_moo.results.pick import read_everything
from apq_moo.space import Space, load_space
from apq_moo.study.folder import HISTORY, RunFolder

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("front", "evaluated", "history")
"""What of a run can be had as a table."""


def load(folder: str | Path, part: str = "front", *, genotypes: bool = False) -> pd.DataFrame:
    """Read a run.

    Args:
        folder: of the run.
        part: ``front``, a row for each of its networks: the objectives in natural units (percent,
            ms, mJ, ...), where they were measured ``acc_val_true``, ``acc_test`` and
            ``measured_front``, and ``subnet``, the network as JSON; ``evaluated``, a row for each
            evaluation in the order in which they were made: the objectives, whether the limits are
            met (``feasible``), and ``kept``, whether it counts, which is all unless the algorithm
            reports only what it holds in the end; or ``history``, the hypervolume after so many
            evaluations and seconds.
        genotypes: whether to add a column for each gene, named as in ``space.genes``, with the
            index of its option; 0 where the block is skipped.

    Returns:
        The table.

    Raises:
        UserError: there is no run, it has not come so far, or there is no such part.

    >>> load("runs/none")
    Traceback (most recent call last):
    apq_moo.errors.UserError: runs/none holds no run (no run.json)
    """
    import pandas as pd

    run = RunFolder.open(folder)
    if part not in PARTS:
        raise UserError(f"part must be one of {', '.join(PARTS)} for a run; not {shown(part)}")
    if part == "history":
        if genotypes:
            raise UserError("part='history' has no networks: leave out genotypes=True")
        if not run.finished:
            raise UserError(f"the run in {run.path} has no history yet: go on with it first")
        return pd.DataFrame(read_csv(run.path / HISTORY)).apply(pd.to_numeric)
    space = load_space(run.at_hand.space)
    if part == "front":
        columns = run.read_front()
        X = space.encode(columns["subnet"])
        found = pd.DataFrame({**columns, "subnet": list(map(json.dumps, columns["subnet"]))})
    else:
        archive, kept = read_everything(run)
        natural = minimised(run.config.objectives, archive.F)
        found = pd.DataFrame(natural, columns=list(run.config.objectives))
        found["feasible"] = archive.feasible
        found["kept"] = kept is None
        if kept is not None:
            found.loc[kept.rows[-1], "kept"] = True
        X = archive.genotypes
    return with_genotypes(found, space, X) if genotypes else found


def with_genotypes(frame: pd.DataFrame, space: Space, X: NDArray[np.integer[Any]]) -> pd.DataFrame:
    """A table with a column for each gene.

    Args:
        frame: a row for each network.
        space: the space.
        X: canonical genotypes, shape ``(n, n_var)``.
    """
    import pandas as pd

    genes = pd.DataFrame(X, columns=[gene.name for gene in space.genes], index=frame.index)
    return pd.concat([frame, genes], axis=1)
