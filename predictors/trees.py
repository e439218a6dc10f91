"""Ensembles of regression trees as plain arrays: checked, and evaluated on one thread.

The libraries that grow them predict the same to the bit. They are not asked to, because XGBoost
trusts the trees in a file (a wrong child crashes the interpreter), and because a process that was
forked after its parent had used OpenMP's threads hangs when it uses them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import IntArray
from apq_moo.predictors.storage import Arrays

Features = NDArray[np.float32]

_MAX_NODES = 2**21
_MAX_DEPTH = 1000
_MAX_STEPS = 2**23
"""On the ways of a row to a leaf of each tree."""

_WHOLE = 3
"""Trees of at most this depth are faster evaluated in all their nodes than walked."""

_MAX_WHOLE = 2**20
"""Leaves of trees that are evaluated in all their nodes, whether they have these leaves or not."""

_CHUNK = 64
"""Rows computed at a time; what is computed of them stays in the processor's cache."""

_CHUNK_VALUES = 2**20


@dataclass
class Trees:
    """Regression trees, whose values are added in their order.

    A row takes a node's left child where its feature is less than the node's threshold. Each of the
    nodes is a root, or the child of one that comes before it.

    Attributes:
        base: what the sums begin with, shape ``(1,)``; its type is that of the sums.
        roots: where each tree begins, shape ``(n_trees,)``, int32.
        children: left and right child of each node, -1 of a leaf; shape ``(n_nodes, 2)``, int32.
        features: of each node, shape ``(n_nodes,)``, int32; not used of a leaf.
        thresholds: of each node, shape ``(n_nodes,)``, float32; not used of a leaf.
        values: of each node, shape ``(n_nodes,)``, of the type of ``base``; used of leaves only.
        n_features: of the rows that they predict from.

    Raises:
        ValueError: the arrays are not that.
    """

    base: NDArray[Any]
    roots: NDArray[Any]
    children: NDArray[Any]
    features: NDArray[Any]
    thresholds: NDArray[Any]
    values: NDArray[Any]
    n_features: int

    def __post_init__(self) -> None:
        self._check()
        inner = self.children[:, 0] >= 0
        nodes = np.arange(len(inner))
        # A leaf is its own left child, which every row takes.
        self._children = np.where(inner[:, None], self.children, nodes[:, None]).astype(np.int64)
        self._features = np.where(inner, self.features, 0).astype(np.int64)
        self._thresholds = np.where(inner, self.thresholds, np.float32(np.inf))
        level = self.roots.astype(np.int64)
        self._depth = 0
        while (level := self._children[level[inner[level]]].ravel()).size:
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise ValueError(f"its trees are deeper than {_MAX_DEPTH}")
        if len(self.roots) * self._depth > _MAX_STEPS:
            raise ValueError("its trees are too many for their depth")
        self._is_whole = self._depth <= _WHOLE and len(self.roots) << self._depth <= _MAX_WHOLE
        if self._is_whole:
            self._fill_up()

    def _fill_up(self) -> None:
        """Lay the trees out as if all had the same depth.

        A level's nodes are in the order of the choices that lead to them, the first one leading.
        """
        nodes = self.roots.astype(np.int64)[None]
        self._levels: list[list[tuple[IntArray, Features]]] = []
        for _ in range(self._depth):
            self._levels.append([(self._features[at], self._thresholds[at, None]) for at in nodes])
            nodes = self._children[nodes].transpose(0, 2, 1).reshape(-1, len(self.roots))
        self._leaves = self.values[nodes.T].ravel()
        self._first_leaves = len(nodes) * np.arange(len(self.roots))[:, None]

    def _check(self) -> None:
        n = self.features.size
        if not 0 < n <= _MAX_NODES:
            raise ValueError(f"its trees must have 1 to {_MAX_NODES} nodes, not {n}")
        shapes = {
            "base": (1,),
            "roots": (self.roots.size,),
            "children": (n, 2),
            "features": (n,),
            "thresholds": (n,),
            "values": (n,),
        }
        kind = self.base.dtype
        if kind not in (np.float32, np.float64):
            raise ValueError("the values of its trees must be float32 or float64")
        types: dict[str, np.dtype[Any]] = dict.fromkeys(shapes, np.dtype(np.int32))
        types |= {"base": kind, "values": kind, "thresholds": np.dtype(np.float32)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != types[name]:
                raise ValueError(f"the {name} of its trees must be {types[name]} of shape {shape}")
        leaf = self.children[:, 0] < 0
        inner = np.flatnonzero(~leaf)
        children = self.children[inner]
        if (self.children[leaf] != -1).any() or (children <= inner[:, None]).any():
            raise ValueError("a child in its trees does not come after its parent")
        if not np.array_equal(np.sort(np.append(self.roots, children)), np.arange(n)):
            raise ValueError("a node of its trees is neither a root nor the child of one node")
        features = self.features[inner]
        if ((features < 0) | (features >= self.n_features)).any():
            raise ValueError(f"its trees use features other than the {self.n_features} there are")
        if np.isnan(self.thresholds[inner]).any():
            raise ValueError("a threshold of its trees is not a number")
        with np.errstate(over="ignore"):
            largest = np.abs(np.append(self.values[leaf], self.base).astype(np.float64)).sum()
        if not largest <= np.finfo(np.float32).max:
            raise ValueError("the values of its trees must be finite, as must be their sum")

    @classmethod
    def joined(
        cls,
        base: NDArray[Any],
        sizes: Sequence[int],
        children: IntArray,
        features: IntArray,
        thresholds: Features,
        values: NDArray[Any],
        n_features: int,
    ) -> Self:
        """Make an ensemble of trees whose children are numbered in each tree from 0.

        Args:
            base: see :class:`Trees`.
            sizes: number of nodes of each tree.
            children: see :class:`Trees`.
            features: see :class:`Trees`.
            thresholds: see :class:`Trees`.
            values: see :class:`Trees`.
            n_features: see :class:`Trees`.

        Raises:
            ValueError: these are no trees.
        """
        roots = np.cumsum(sizes) - sizes
        if (
            children.shape != (sum(sizes), 2)
            or (children >= np.repeat(sizes, sizes)[:, None]).any()
        ):
            raise ValueError("its trees have fewer nodes than they name")
        children = np.where(children < 0, -1, children + np.repeat(roots, sizes)[:, None])
        return cls(
            base,
            roots.astype(np.int32),
            children.astype(np.int32),
            features.astype(np.int32),
            thresholds,
            values,
            n_features,
        )

    def dump(self, name: str) -> Arrays:
        """The arrays, with ``name`` and a point before their names."""
        return {f"{name}.{part}": getattr(self, part) for part in _PARTS}

    @classmethod
    def parse(cls, arrays: Arrays, name: str, n_features: int) -> Self:
        """Take over what :meth:`dump` returned.

        Raises:
            KeyError, ValueError: it is not that, or the trees are not over so many features.
        """
        parts = {part: arrays[f"{name}.{part}"] for part in _PARTS}
        return cls(**parts, n_features=n_features)

    def predict(self, features: Features) -> NDArray[Any]:
        """Sums of the trees' values, shape ``(n,)``, for finite features ``(n, n_features)``."""
        total = np.empty(len(features), dtype=self.base.dtype)
        chunk = max(min(_CHUNK, _CHUNK_VALUES // len(self.roots)), 1)
        for start in range(0, len(features), chunk):
            columns = np.ascontiguousarray(features[start : start + chunk].T)
            values = self._whole(columns) if self._is_whole else self._walked(columns)
            values[0] += self.base
            # Sums are added tree by tree only along columns, of which there must be more than one.
            one = values.shape[1] == 1
            sums = np.add.accumulate(values)[-1] if one else np.add.reduce(values, axis=0)
            total[start : start + chunk] = sums
        return total

    def _whole(self, columns: Features) -> NDArray[Any]:
        """The values of each tree, shape ``(n_trees, n)``, for features ``(n_features, n)``."""
        chosen: list[NDArray[np.uint8]] = []
        place = np.zeros((len(self.roots), columns.shape[1]), dtype=np.uint8)
        for level in self._levels:
            right = [(columns.take(of, axis=0) >= at).view(np.uint8) for of, at in level]
            for choice in chosen:
                half = len(right) // 2
                pairs = zip(right[:half], right[half:], strict=True)
                right = [a ^ (choice & (a ^ b)) for a, b in pairs]
            chosen += right
            place <<= 1
            place |= right[0]
        return self._leaves.take(place + self._first_leaves)

    def _walked(self, columns: Features) -> NDArray[Any]:
        """The same; for each row and tree, only the nodes on the way to a leaf are looked at."""
        n = columns.shape[1]
        flat, rows = columns.ravel(), np.arange(n)
        node = np.repeat(self.roots.astype(np.int64)[:, None], n, axis=1)
        for _ in range(self._depth):
            place = self._features[node] * n + rows
            right = flat[place] >= self._thresholds[node]
            node = self._children.ravel()[2 * node + right]
        return self.values[node]


_PARTS = tuple(field.name for field in fields(Trees) if field.name != "n_features")
