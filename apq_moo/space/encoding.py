"""Integer encoding of a search space: genotype matrices and what can be computed of them.

A genotype is an integer matrix ``X`` of shape ``(n, n_var)``; each entry is an option's index. The
columns are one depth for each stage that offers more than one, then for each block its kernel,
middle channels, and bits ``w_pw``, ``a_pw``, ``w_dw``, ``a_dw``. A block beyond its stage's depth
is inactive; its genes mean nothing and are 0 in canonical form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from apq_moo.arrays import BoolArray, IntArray
from apq_moo.errors import UserError
from apq_moo.space.frames import gene_matrix
from apq_moo.space.layout import Layout, starts
from apq_moo.space.plan import plan_blocks
from apq_moo.space.spec import FIELDS, SpaceSpec

_CHUNK = 2048
"""Rows indexed at a time, so that they stay in the processor's cache."""


@dataclass(frozen=True)
class Gene:
    """One column of a genotype matrix.

    Attributes:
        name: such as ``stage0.depth`` or ``block3.kernel``.
        kind: ``depth`` or one of the per-block fields.
        stage: its stage, from 0.
        block: its block, from 0 over the whole network; -1 for a depth.
        options: what the indices stand for.
    """

    name: str
    kind: str
    stage: int
    block: int
    options: tuple[int, ...]


class Encoding:
    """The genes of a space, and what matrices of them stand for.

    Args:
        spec: the description.

    Attributes:
        spec: the description.
        name: its name.
        n_var: number of genes.
        n_blocks: number of searchable blocks, active or not.
        genes: the columns, in order.
        n_options: number of options of each gene, shape ``(n_var,)``.
        plans: what is fixed about each block.
        layout: of block tables.
        block_sizes: configurations of each block, shape ``(n_blocks,)``.
        depth_columns: column of the depth of each stage that offers more than one.
        block_columns: columns of each block, shape ``(n_blocks, 6)``.
        bit_columns: columns of all bits.

    Raises:
        UserError: see :func:`apq_moo.space.plan.plan_blocks`.
    """

    def __init__(self, spec: SpaceSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.plans = plan_blocks(spec)
        self.n_blocks = len(self.plans)
        self.layout = Layout(self.plans, spec.stages)
        self.block_sizes = self.layout.sizes
        genes = [
            Gene(f"stage{i}.depth", "depth", i, -1, stage.depths)
            for i, stage in enumerate(spec.stages)
            if len(stage.depths) > 1
        ]
        self.depth_columns = {gene.stage: i for i, gene in enumerate(genes)}
        n_depth = self._n_depth = len(genes)
        for b, plan in enumerate(self.plans):
            genes += [
                Gene(f"block{b}.{name}", name, plan.stage, b, plan.options[name]) for name in FIELDS
            ]
        self.genes = tuple(genes)
        self.n_var = len(genes)
        self.n_options: IntArray = np.array([len(gene.options) for gene in genes], dtype=np.int64)
        self.block_columns: IntArray = np.arange(n_depth, self.n_var).reshape(self.n_blocks, -1)
        self.bit_columns: IntArray = self.block_columns[:, 2:].ravel()
        # A block is active iff the gene of its stage's depth is at least this; where the stage has
        # one depth only, any gene is at least 0.
        self._depth_column = np.array([self.depth_columns.get(p.stage, 0) for p in self.plans])
        self._least_gene = np.array(
            [np.searchsorted(spec.stages[p.stage].depths, p.position, "right") for p in self.plans]
        )

    @property
    def gene_type(self) -> np.dtype[Any]:
        """The smallest unsigned integer that holds any option's index."""
        return np.min_scalar_type(int(self.n_options.max()) - 1)

    # -- genotypes ---------------------------------------------------------------------------------

    def check(self, X: ArrayLike, *, reals: bool = False) -> IntArray:
        """Check a genotype matrix.

        Args:
            X: integers of shape ``(n, n_var)``, or one row; or a data frame, whose columns are
                found by their genes' names (see :func:`apq_moo.space.frames.gene_matrix`).
            reals: whether finite reals are rounded to the nearest integers, or refused.

        Returns:
            ``X`` as an int64 matrix.

        Raises:
            UserError: wrong shape or columns, not integers, or an index out of range.
        """
        X = gene_matrix((gene.name for gene in self.genes), X)
        try:
            array = np.atleast_2d(np.asarray(X))
        except ValueError as error:
            raise UserError("X must be a matrix: its rows differ in length") from error
        if array.ndim != 2 or array.shape[1] != self.n_var:
            raise UserError(
                f"space {self.name!r} expects X of shape (n, {self.n_var}), got {array.shape}"
            )
        if reals and array.dtype.kind == "f" and np.isfinite(array).all():
            array = np.rint(array).astype(np.int64)
        if array.dtype.kind not in "iu":
            raise UserError(f"X must hold integers (option indices), got {array.dtype}")
        bad = (array < 0) | (array >= self.n_options)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise UserError(
                f"X[{row}, {column}] = {array[row, column]} is out of range: gene "
                f"{self.genes[column].name} has {self.n_options[column]} options"
            )
        return array.astype(np.int64, copy=False)

    def active(self, X: IntArray) -> BoolArray:
        """Which blocks are active, shape ``(n, n_blocks)``."""
        mask: BoolArray = X[:, self._depth_column] >= self._least_gene
        return mask

    def depths(self, X: IntArray) -> IntArray:
        """Depth of each stage, shape ``(n, n_stages)``."""
        return self.layout.depths(np.where(self.active(X), 0, self.block_sizes))

    def active_genes(self, X: IntArray) -> BoolArray:
        """Which genes mean something, shape ``(n, n_var)``; depth genes always do."""
        mask = np.ones(X.shape, dtype=bool)
        mask[:, self._n_depth :] = self.active(X).repeat(len(FIELDS), axis=1)
        return mask

    def canonical(self, X: IntArray) -> IntArray:
        """A copy with inactive genes set to 0; equal rows are equal networks."""
        return np.where(self.active_genes(X), X, 0)

    def architecture(self, X: IntArray) -> IntArray:
        """Canonical form with all bit genes 0: equal rows are equal full-precision networks."""
        result = self.canonical(X)
        result[:, self.bit_columns] = 0
        return result

    def block_index(self, X: IntArray) -> IntArray:
        """One number for each block's configuration, shape ``(n, n_blocks)``.

        It lies in ``[0, block_sizes[b])`` and enumerates the fields in row-major order; an inactive
        block gets ``block_sizes[b]``. Tables of per-block costs are indexed by it. Columns are
        contiguous in memory.
        """
        index = np.empty((self.n_blocks, len(X)), dtype=np.int64)
        skippable = np.flatnonzero(self._least_gene)
        for start in range(0, len(X), _CHUNK):
            rows, part = X[start : start + _CHUNK], index[:, start : start + _CHUNK]
            self.layout.number(rows[:, self._n_depth :], out=part)
            for b in skippable:
                inactive = rows[:, self._depth_column[b]] < self._least_gene[b]
                np.copyto(part[b], self.block_sizes[b], where=inactive)
        return index.T

    def block_genes(self, block: int, index: ArrayLike) -> IntArray:
        """Inverse of :meth:`block_index` for one block: genes of shape ``(..., 6)``."""
        places = self.layout.offsets[block] + np.asarray(index)
        genes: IntArray = self.layout.genes[places].astype(np.int64)
        return genes

    def from_block_index(self, index: IntArray, dtype: DTypeLike = np.int64) -> NDArray[Any]:
        """Inverse of :meth:`block_index`: canonical genotypes, shape ``(n, n_var)``.

        Args:
            index: shape ``(n, n_blocks)``.
            dtype: of the result; :attr:`gene_type` is the smallest that serves.
        """
        X = np.empty((len(index), self.n_var), dtype=dtype)
        genes = self.layout.gather(self.layout.genes, index)
        X[:, self._n_depth :] = genes.reshape(len(index), self.n_var - self._n_depth)
        X[:, : self._n_depth] = self.layout.depth_genes(index)[:, list(self.depth_columns)]
        return X

    # -- features ----------------------------------------------------------------------------------

    @cached_property
    def one_hot_offsets(self) -> IntArray:
        """Position of each block gene's first option among the inputs, ``(n_blocks, 6)``."""
        widths = self.n_options[self.block_columns].T
        return starts(widths.ravel()).reshape(widths.shape).T

    @property
    def n_architecture_inputs(self) -> int:
        """Leading one-hot inputs that describe kernels and channels; the rest describe bits."""
        return int(self.n_options[self.block_columns[:, :2]].sum())

    @property
    def n_inputs(self) -> int:
        """Width of :meth:`one_hot`."""
        return int(self.n_options[self.block_columns].sum())

    def one_hot_index(self, X: IntArray) -> IntArray:
        """Positions of the ones, shape ``(n, n_blocks, 6)``; -1 where a block is inactive."""
        index = X[:, self.block_columns] + self.one_hot_offsets
        return np.where(self.active(X)[:, :, None], index, -1)

    def one_hot(self, X: IntArray) -> NDArray[np.float32]:
        """Inputs of a predictor, shape ``(n, n_inputs)``, in the published layout.

        Field by field (kernels, channels, then the four bit roles), within a field block by block,
        within a block option by option; inactive blocks are all zero, which is how depth shows.
        """
        index = self.one_hot_index(X)  # its -1 falls into one more column, cut off below
        out = np.zeros((len(X), self.n_inputs + 1), dtype=np.float32)
        out[np.arange(len(X))[:, None, None], index] = 1.0
        return out[:, :-1]
