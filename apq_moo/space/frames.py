"""Data frames as genotype matrices: their columns are found by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from apq_moo.errors import UserError, shown


def gene_matrix(genes: Iterable[str], X: Any) -> Any:
    """The columns of a data frame in the order of the genes; anything else as it is.

    Args:
        genes: names of the genes, in order.
        X: genotypes. A data frame is what has ``columns`` and ``to_numpy``, as those of pandas and
            polars do; its columns may stand in any order.

    Returns:
        An array of shape ``(n, n_genes)`` for a data frame, else ``X`` itself.

    Raises:
        UserError: a gene has no column or several, or a column is no gene.
    """
    if not (hasattr(X, "columns") and hasattr(X, "to_numpy")):
        return X
    names, columns = list(genes), list(X.columns)
    known, place = set(names), {column: i for i, column in enumerate(columns)}
    rule = f"a data frame needs one for each of the {len(names)} genes, in any order"
    if unknown := [column for column in columns if column not in known]:
        raise UserError(f"the column {shown(unknown[0])} is no gene; {rule}, like {names[0]!r}")
    if missing := [name for name in names if name not in place]:
        raise UserError(f"the column {missing[0]!r} is missing; {rule}")
    if twice := [column for i, column in enumerate(columns) if place[column] != i]:
        raise UserError(f"the column {twice[0]!r} is there twice; {rule}")
    array = np.asarray(X.to_numpy())[:, [place[name] for name in names]]
    # Columns that may lack values come as objects, even where no value is lacking.
    return np.array(array.tolist()).reshape(array.shape) if array.dtype == object else array
