"""The networks that satisfy limits on additive costs: membership, sampling and repair.

Costs add over blocks, so one block may change as long as its new configuration fits into what the
others leave of every limit. Sampling and repair start from a network known to fit (an *anchor*) and
make only such changes, so they cannot leave the region, however tight its limits are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray, IntArray, distinct
from apq_moo.errors import UserError
from apq_moo.hardware import CostTable, minimum
from apq_moo.problems.feasibility import cheap_network, unreachable
from apq_moo.problems.options import BlockOptions
from apq_moo.space import Space

_SWEEPS = 8
_SAMPLING_ROUNDS = 20

_ROUNDING = 1e-12
"""Relative error allowed for in sums of blocks, far above what they can have."""


class FeasibleRegion:
    """All networks of feasible blocks whose costs stay under limits.

    Args:
        space: the search space.
        feasible: for each block, which configurations may be used, shape ``(block_sizes[b],)``.
        limits: non-negative cost tables with their upper limits, in the tables' units. A limit on a
            cost of which the largest part counts forbids configurations; the others bind together.

    Attributes:
        space: the search space.
        options: the feasible configurations.
        limits: on costs that add up.

    Raises:
        UserError: no network was found that meets all limits together.
    """

    def __init__(
        self,
        space: Space,
        feasible: tuple[BoolArray, ...],
        limits: Sequence[tuple[CostTable, float]] = (),
    ) -> None:
        self.space = space
        for table, limit in limits:
            if table.combine == "max":
                feasible = _within(feasible, table, limit)
        limits = [(table, limit) for table, limit in limits if table.combine == "sum"]
        self.options = BlockOptions(space, feasible)
        self.limits = tuple(limits)
        # Without limits: one table of zeros that never binds.
        bounds: FloatArray = np.array([limit for _, limit in limits] or [np.inf])
        self._loose, self._strict = bounds * (1 + _ROUNDING), bounds * (1 - _ROUNDING)
        self._fixed: FloatArray = np.array([table.fixed for table, _ in limits] or [0.0])
        blocks = [
            np.stack([table.blocks[b] for table, _ in limits] or [np.zeros(len(mask))], axis=1)
            for b, mask in enumerate(feasible)
        ]
        self._costs: FloatArray = space.layout.table(blocks, inactive=0.0)
        self._ranked = [_rank(costs, mask) for costs, mask in zip(blocks, feasible, strict=True)]
        self._anchor = (
            cheap_network(space, feasible, limits)
            if limits
            else self.options.draw(np.zeros((1, space.n_blocks)))[0]
        )
        self._stage_costs = self._cost_stages()

    # -- membership --------------------------------------------------------------------------------

    def contains(self, X: IntArray) -> BoolArray:
        """Whether each genotype is in the region, shape ``(n,)``."""
        return self.contains_blocks(self.space.block_index(X))

    def contains_blocks(self, index: IntArray) -> BoolArray:
        """The same for block configurations of shape ``(n, n_blocks)``."""
        inside: BoolArray = np.all(self.options.feasible_blocks(index), axis=1)
        for table, limit in self.limits:
            inside &= table.gather(index) <= limit
        return inside

    # -- sampling ----------------------------------------------------------------------------------

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Draw distinct networks of the region.

        Every stage's depth is uniform over those that still fit, stage by stage in random order.
        Given the depths, configurations start from uniform ones as far as these fit; then blocks
        are redrawn one at a time, uniformly over what fits: Gibbs sampling, whose stationary
        distribution is uniform over the networks of the region with these depths. (Where several
        limits bind, changes of one block may not connect all of them; it is then approximate.)

        Args:
            n: how many.
            rng: source of randomness.

        Returns:
            Canonical genotypes, shape ``(n, n_var)``; fewer rows where no more were found.
        """
        found = np.empty((0, self.space.n_blocks), dtype=np.int64)
        for attempt in range(_SAMPLING_ROUNDS):
            bounds = self._strict if attempt % 2 else self._loose
            drawn = self._draw(n - len(found), bounds, rng)
            found = distinct(np.vstack([found, drawn[self.contains_blocks(drawn)]]))
            if len(found) == n:
                break
        return self.space.from_block_index(found)

    def _draw(self, n: int, bounds: FloatArray, rng: np.random.Generator) -> IntArray:
        depth = self._fit_depths(n, None, bounds, rng)
        wanted = self.options.draw(rng.random((n, self.space.n_blocks)))
        index, _ = self._place(wanted, depth, bounds, rng)
        active = self.space.layout.active(index)
        for _ in range(_SWEEPS if self.limits else 0):
            self._redraw(index, active, bounds, rng)
        return index

    # -- repair ------------------------------------------------------------------------------------

    def repair(self, X: IntArray, rng: np.random.Generator) -> IntArray:
        """Bring networks into the region with few changes.

        Infeasible configurations are replaced by the nearest feasible ones. A network that then
        exceeds a limit keeps its blocks, tried in random order, as long as cheap ones in all the
        other places would still fit; the blocks that it cannot keep are redrawn.

        Args:
            X: genotypes within bounds, shape ``(n, n_var)``.
            rng: source of randomness.

        Returns:
            Canonical genotypes of the region; those that were in it come back unchanged.
        """
        return self.space.from_block_index(self.repair_blocks(self.space.block_index(X), rng))

    def repair_blocks(self, index: IntArray, rng: np.random.Generator) -> IntArray:
        """The same for block configurations of shape ``(n, n_blocks)``."""
        index = self.options.repair(index)
        for bounds in (self._loose, self._strict):
            outside = np.flatnonzero(~self.contains_blocks(index))
            if not len(outside):
                break
            wanted = index[outside]
            depths = self.space.layout.depth_genes(wanted)
            depth = self._fit_depths(len(outside), depths, bounds, rng)
            pulled, lost = self._place(wanted, depth, bounds, rng)
            self._redraw(pulled, lost, bounds, rng)
            index[outside] = pulled
        return index

    # -- moves -------------------------------------------------------------------------------------
    #
    # Sums are kept up as blocks change, so they round differently from the tables' own. Moves are
    # tried up to just beyond the limits, and what the tables then refuse, again up to just below.

    def _cost(self, b: int | IntArray, index: IntArray) -> FloatArray:
        costs: FloatArray = self._costs[self.space.layout.offsets[b] + index]
        return costs

    def _gathered(self, index: IntArray) -> FloatArray:
        """Costs of all blocks, shape ``(..., n_blocks, n_limits)``."""
        costs: FloatArray = self.space.layout.gather(self._costs, index)
        return costs

    def _totals(self, index: IntArray) -> FloatArray:
        """Costs of whole networks, shape ``(n, n_limits)``."""
        totals: FloatArray = self._fixed + self._gathered(index).sum(axis=1)
        return totals

    def _place(
        self, wanted: IntArray, depth: IntArray, bounds: FloatArray, rng: np.random.Generator
    ) -> tuple[IntArray, BoolArray]:
        """Give networks the wanted configurations, as far as they fit.

        Where not all do, they replace the anchor's one by one, in random order.

        Args:
            wanted: feasible configurations, shape ``(n, n_blocks)``.
            depth: depths that fit with the anchor's blocks, see :meth:`_fit_depths`.
            bounds: of the sums.
            rng: source of randomness.

        Returns:
            Configurations, and which active blocks have not got the wanted one.
        """
        layout = self.space.layout
        depths = layout.depth_options[np.arange(depth.shape[1]), depth]
        lost = layout.active(layout.cut(np.zeros_like(wanted), depths))
        index = np.where(lost, wanted, self.space.block_sizes)
        whole = (self._totals(index) <= bounds).all(axis=1, keepdims=True)
        index = np.where(lost & ~whole, self._anchor, index)
        lost &= ~whole
        totals = self._totals(index)
        for row, b in _random_order(lost.shape, rng):
            change = self._cost(b, wanted[row, b]) - self._cost(b, index[row, b])
            fits = lost[row, b] & (totals + change <= bounds).all(axis=1)
            index[row[fits], b[fits]] = wanted[row[fits], b[fits]]
            totals[fits] += change[fits]
            lost[row[fits], b[fits]] = False
        return index, lost

    def _fit_depths(
        self, n: int, wanted: IntArray | None, bounds: FloatArray, rng: np.random.Generator
    ) -> IntArray:
        """Depths that fit with the anchor's blocks, as indices of shape ``(n, n_stages)``.

        Each stage gets the wanted depth or the deepest below it that fits; without a wish, one
        drawn uniformly from those that fit.
        """
        costs = self._stage_costs
        totals = np.repeat((self._fixed + costs[:, 0].sum(axis=0))[None], n, axis=0)
        depth = np.zeros((n, len(costs)), dtype=np.int64)
        for row, stage in _random_order(depth.shape, rng):
            extra = costs[stage] - costs[stage, :1]
            fitting = (totals[:, None] + extra <= bounds).all(axis=2).sum(axis=1)
            count = np.clip(fitting, 1, self.options.open_depths[stage])
            if wanted is None:
                pick = (rng.random(n) * count).astype(np.int64)
            else:
                pick = np.minimum(wanted[row, stage], count - 1)
            depth[row, stage] = pick
            totals += extra[row, pick]
        return depth

    def _redraw(
        self, index: IntArray, mask: BoolArray, bounds: FloatArray, rng: np.random.Generator
    ) -> None:
        """Redraw the masked blocks of ``index`` in place, uniformly over what fits.

        With several limits a proposal that fits the one that leaves the fewest configurations is
        kept only where it fits the others; the set proposed from does not depend on the present
        configuration, so the uniform distribution stays stationary (Metropolis).
        """
        totals = self._totals(index)
        for b in rng.permutation(self.space.n_blocks):
            row = np.flatnonzero(mask[:, b])
            if not len(row):
                continue
            order, ranked = self._ranked[b]
            others = totals[row] - self._cost(b, index[row, b])
            room = bounds - others
            counts = np.stack(
                [np.searchsorted(ranked[j], room[:, j], side="right") for j in range(len(ranked))]
            )
            tightest = counts.argmin(axis=0)
            rank = (rng.random(len(row)) * counts.min(axis=0)).astype(np.int64)
            proposal = order[tightest, rank]
            after = others + self._cost(b, proposal)
            fits = (after <= bounds).all(axis=1)
            index[row[fits], b] = proposal[fits]
            totals[row[fits]] = after[fits]

    def _cost_stages(self) -> FloatArray:
        """Costs of the anchor's stages by depth, shape ``(n_stages, n_depths, n_limits)``.

        Infinite where a depth is not open or the stage offers fewer depths.
        """
        costs = self._gathered(self._anchor)
        stages = self.space.spec.stages
        most = max(len(stage.depths) for stage in stages)
        result = np.full((len(stages), most, costs.shape[1]), np.inf)
        for number, blocks in enumerate(self.space.layout.stage_blocks):
            for i, depth in enumerate(stages[number].depths[: self.options.open_depths[number]]):
                result[number, i] = costs[blocks][:depth].sum(axis=0)
        return result


def _within(
    feasible: tuple[BoolArray, ...], table: CostTable, limit: float
) -> tuple[BoolArray, ...]:
    """The configurations under a limit on a cost of which the largest part counts.

    Raises:
        UserError: no network is.
    """
    least, _ = minimum(table, feasible)
    if least > limit:
        raise UserError(unreachable(table, limit, least))
    return tuple(
        mask & (costs <= limit) for mask, costs in zip(feasible, table.blocks, strict=True)
    )


def _rank(costs: FloatArray, mask: BoolArray) -> tuple[IntArray, FloatArray]:
    """Feasible configurations by ascending cost under each limit, and those costs.

    Args:
        costs: shape ``(n_configurations, n_limits)``.
        mask: which are feasible, shape ``(n_configurations,)``.

    Returns:
        Two matrices of shape ``(n_limits, n_feasible)``.
    """
    allowed = np.flatnonzero(mask)
    order = costs[allowed].argsort(axis=0, kind="stable")
    return allowed[order].T, np.take_along_axis(costs[allowed], order, axis=0).T.copy()


def _random_order(
    shape: tuple[int, ...], rng: np.random.Generator
) -> Iterator[tuple[IntArray, IntArray]]:
    """Visit the columns of each row of a matrix in its own random order."""
    rows = np.arange(shape[0])
    for columns in rng.random(shape).argsort(axis=1).T:
        yield rows, columns
