"""Algorithm 1 of APQ (Wang et al., CVPR 2020) on arrays: several searches side by side.

Networks are rows of block configurations (:meth:`apq_moo.space.Space.block_index`), which say
everything: costs are gathered by them, and the depth of a stage is the number of its active blocks.
Searches share nothing but the arrays in which their children are made, so that a search alone and
the same one beside others take the same course.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apq_moo.algorithms.base import check_least
from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.errors import UserError, shown
from apq_moo.problems.variation import inherit
from apq_moo.space.layout import starts

if TYPE_CHECKING:
    from apq_moo.problems import FeasibleRegion

_SURPLUS = 1.2
"""Candidates drawn beyond what their share under the limits lets expect to be needed."""

_LEAST_RATE = 0.05
_ROUNDING = 1e-12
"""Relative difference that the order of a sum can make, far above what it does."""

_KINDS = 2
"""Crossovers, then mutants."""


def check_arguments(pop_size: int, n_top: int, prob: float, max_redraws: int) -> None:
    """Check the arguments of :class:`TopK`.

    Raises:
        UserError: one is out of range.
    """
    check_least(2, pop_size=pop_size)
    check_least(1, n_top=n_top)
    check_least(0, max_redraws=max_redraws)
    if not 0 < prob <= 1:
        raise UserError(f"prob must lie in (0, 1], not {shown(prob)}")


class TopK:
    """The best networks of each search, and the children that they have.

    A round of a search has ``pop_size`` children: crossovers of two of its best networks, each
    depth and each block from either; and mutants, each depth and each block drawn anew with
    probability ``prob``. All meet the limits: candidates are drawn, parents included, until enough
    do; after ``max_redraws`` attempts the missing ones are repaired
    (:meth:`apq_moo.problems.FeasibleRegion.repair`).

    Args:
        regions: what the networks of each search may be; all of one space, with limits on the same
            costs.
        rngs: a source of randomness for each.
        pop_size: N of Algorithm 1, children of a round.
        n_top: its k.
        prob: its mutation probability.
        max_redraws: attempts after the first one.

    Attributes:
        index: the best networks of each search, best first, shape ``(n_top, n_blocks)`` at most.
        worth: their violations and objectives, shape ``(n_top, 2)``.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(
        self,
        regions: Sequence[FeasibleRegion],
        rngs: Sequence[np.random.Generator],
        *,
        pop_size: int = 100,
        n_top: int = 25,
        prob: float = 0.1,
        max_redraws: int = 10,
    ) -> None:
        check_arguments(pop_size, n_top, prob, max_redraws)
        self.regions, self.rngs = list(regions), list(rngs)
        self.pop_size, self.n_top, self.prob, self.max_redraws = pop_size, n_top, prob, max_redraws
        space = self._space = self.regions[0].space
        n = len(self.regions)
        self.index: list[IntArray] = [np.empty((0, space.n_blocks), dtype=np.int64)] * n
        self.worth: list[FloatArray] = [np.empty((0, 2))] * n
        self._rates: FloatArray = np.full((n, _KINDS), 0.5)

        self._layout = space.layout
        self._stages = list(space.depth_columns)
        options = [region.options for region in self.regions]
        self._open_depths = np.array([item.open_depths[self._stages] for item in options])
        begins = starts(np.array([len(item.choices) for item in options]))
        self._choices = np.concatenate([item.choices for item in options])
        self._choice_offsets = begins[:, None] + [item.choice_offsets for item in options]
        self._counts = np.array([item.counts for item in options])
        self._tables = [table for table, _ in self.regions[0].limits]
        self._limits = np.array(
            [[limit for _, limit in region.limits] for region in self.regions]
        ).reshape(n, len(self._tables))

    # -- rounds ------------------------------------------------------------------------------------

    def tell(self, search: int, index: IntArray, violation: FloatArray, F: FloatArray) -> IntArray:
        """Take note of what networks are worth.

        Equal networks count once; ties keep what came first.

        Args:
            search: whose they are.
            index: the networks, shape ``(n, n_blocks)``.
            violation: of limits, shape ``(n,)``; smaller is better.
            F: what is minimised, shape ``(n,)``; decides between equal violations.

        Returns:
            Which are the best now, best first, as positions among the earlier best and then
            ``index``.
        """
        known = np.vstack([self.index[search], index])
        worth = np.vstack([self.worth[search], np.column_stack([violation, F])])
        order = np.lexsort((worth[:, 1], worth[:, 0]))
        size = known.shape[1] * known.itemsize
        data = known.tobytes()
        best: list[int] = []
        seen: set[bytes] = set()
        for place in order.tolist():
            key = data[place * size : (place + 1) * size]
            if key not in seen:
                seen.add(key)
                best.append(place)
                if len(best) == self.n_top:
                    break
        kept = np.array(best, dtype=np.int64)
        self.index[search], self.worth[search] = known[kept], worth[kept]
        return kept

    def children(self, searches: Sequence[int]) -> list[IntArray]:
        """The next round's children of some searches, each of shape ``(pop_size, n_blocks)``."""
        chosen = np.asarray(searches)
        shares = [self.pop_size // 2, self.pop_size - self.pop_size // 2]
        need: IntArray = np.tile(shares, len(chosen))  # by group: a search's crossovers, mutants
        rates = self._rates[chosen].ravel()
        found: list[IntArray] = []
        groups: list[IntArray] = []
        for attempt in range(self.max_redraws + 1):
            drawn = self._enough(need, rates)
            index, group = self._breed(chosen, drawn)
            fits = self._fits(index, chosen[group // _KINDS])
            if attempt == 0:
                counts = np.bincount(group[fits], minlength=len(need))
                rates = np.clip(counts / drawn, _LEAST_RATE, 1.0)
            keep = fits & (_rank(fits, group, drawn) <= need[group])
            found.append(index[keep])
            groups.append(group[keep])
            need = need - np.bincount(group[keep], minlength=len(need))
            if not need.any():
                break
        else:
            broken = ~fits & (_rank(~fits, group, drawn) <= need[group])
            for g in np.flatnonzero(need):
                rows = broken & (group == g)
                search = chosen[g // _KINDS]
                found.append(self.regions[search].repair_blocks(index[rows], self.rngs[search]))
                groups.append(group[rows])
        self._rates[chosen] = rates.reshape(-1, _KINDS)
        everyone, owner = np.concatenate(found), np.concatenate(groups)
        everyone = everyone[np.argsort(owner, kind="stable")]
        return list(everyone.reshape(len(chosen), self.pop_size, -1))

    def _enough(self, need: IntArray, rates: FloatArray) -> IntArray:
        """How many candidates of each group to draw."""
        if not self._tables:
            return need
        surplus = np.ceil(_SURPLUS * need / rates).astype(np.int64) + 2
        return np.where(need > 0, surplus, 0)

    # -- variation ---------------------------------------------------------------------------------

    def _breed(self, searches: IntArray, drawn: IntArray) -> tuple[IntArray, IntArray]:
        """Candidates, and the group of each: crossovers and mutants of the searches in turn."""
        n_depths, n_blocks = len(self._stages), self._space.n_blocks
        by_search = drawn.reshape(-1, _KINDS).sum(axis=1)
        group = np.repeat(np.arange(len(drawn)), drawn)
        owner = searches[group // _KINDS]
        crossing = (group % _KINDS == 0)[:, None]
        # Columns: two parents, new depths, which depths, which blocks.
        width = 2 + 2 * n_depths + n_blocks
        u = np.concatenate(
            [
                self.rngs[search].random((n, width))
                for search, n in zip(searches, by_search, strict=True)
            ]
        )
        chosen = u[:, 2 + n_depths :] < np.where(crossing, 0.5, self.prob)
        first, second, tops = self._parents(searches, owner, u[:, :2])
        second = np.where(crossing[:, 0], second, first)
        depths = self._layout.depths(tops)
        depth_a, depth_b = depths[first], depths[second]
        take_depth = chosen[:, :n_depths]
        depth = depth_a.copy()
        for place, stage in enumerate(self._stages):
            option = (u[:, 2 + place] * self._open_depths[owner, place]).astype(np.int64)
            drawn_depth = self._layout.depth_options[stage].take(option)
            other = np.where(crossing[:, 0], depth_b[:, stage], drawn_depth)
            depth[:, stage] = np.where(take_depth[:, place], other, depth_a[:, stage])
        take = chosen[:, n_depths:]
        index = inherit(self._layout, tops[first], tops[second], take & crossing)
        active = self._layout.active(self._layout.cut(np.zeros_like(index), depth))
        anew = active & ((take & ~crossing) | ~self._layout.active(index))
        row, block = np.nonzero(anew)
        counts = np.bincount(group[row] // _KINDS, minlength=len(searches))
        v = np.concatenate(
            [self.rngs[search].random(n) for search, n in zip(searches, counts, strict=True)]
        )
        whose = owner[row]
        rank = (v * self._counts[whose, block]).astype(np.int64)
        index[row, block] = self._choices[self._choice_offsets[whose, block] + rank]
        return np.where(active, index, self._layout.sizes), group

    def _parents(
        self, searches: IntArray, owner: IntArray, u: FloatArray
    ) -> tuple[IntArray, IntArray, IntArray]:
        """Two different parents of each candidate, as places in a matrix of all best networks."""
        tops = [self.index[search] for search in searches]
        sizes = np.zeros(len(self.regions), dtype=np.int64)
        sizes[searches] = [len(top) for top in tops]
        begins = np.zeros(len(self.regions), dtype=np.int64)
        begins[searches] = starts(sizes[searches])
        k = sizes[owner]
        first = (u[:, 0] * k).astype(np.int64)
        further = 1 + (u[:, 1] * np.maximum(k - 1, 1)).astype(np.int64)
        second = (first + further) % k
        return begins[owner] + first, begins[owner] + second, np.concatenate(tops)

    def _fits(self, index: IntArray, owner: IntArray) -> BoolArray:
        """Whether networks meet the limits of their searches, shape ``(n,)``.

        What a block may be is seen to where blocks are drawn.
        """
        fits = np.ones(len(index), dtype=bool)
        for j, table in enumerate(self._tables):
            limit = self._limits[owner, j]
            total = table.fixed + self._layout.gather(table.flat, index).sum(axis=1)
            inside = total <= limit * (1 - _ROUNDING)
            # The table's own order of adding decides where it could matter.
            near = np.flatnonzero(~inside & (total <= limit * (1 + _ROUNDING)))
            if len(near):
                inside[near] = table.gather(index[near]) <= limit[near]
            fits &= inside
        return fits

    # -- state -------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What the searches know, but for their sources of randomness."""
        return {
            "index": np.concatenate(self.index),
            "worth": np.concatenate(self.worth),
            "sizes": np.array([len(index) for index in self.index]),
            "rates": self._rates.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        ends = np.cumsum(state["sizes"])[:-1]
        self.index = np.split(np.asarray(state["index"], dtype=np.int64), ends)
        self.worth = np.split(np.asarray(state["worth"], dtype=np.float64), ends)
        self._rates = np.array(state["rates"], dtype=np.float64)


def _rank(mask: BoolArray, group: IntArray, sizes: IntArray) -> IntArray:
    """How many rows of its group up to each row are in a mask; groups are contiguous."""
    counts = np.cumsum(mask)
    begins = starts(sizes)
    before = np.where(begins > 0, counts[np.maximum(begins - 1, 0)], 0)
    ranks: IntArray = counts - before[group]
    return ranks
