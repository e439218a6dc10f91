"""Which subnets learn from the largest in a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.space import Block, Space, find_distribution
from apq_moo.supernet.gradients import Student
from apq_moo.supernet.recipe import TrainConfig

_POOL = 256
"""Networks of which the candidates are those nearest in size."""

_RATE = 0.05
"""Share of a new loss in the running means."""


class Drawing:
    """Draws the smallest and random subnets, all functions of the seed and of the step.

    With ``best-up`` or ``worst-up`` each random subnet is one of a few of like size (AttentiveNAS,
    Wang et al., CVPR 2021). There a predictor or the loss on some images says which is best; both
    need forward passes. Here nothing but what training has shown anyway says so: for each option
    of each gene, the running mean of how much more the losses of the students with it were than
    the largest subnet's on the same images. A network's score is the mean over its active genes,
    bits among them where it is quantised. That is an additive guess, of weights as they were a
    while ago; options that were not trained yet score as the largest.

    Args:
        space: the space.
        config: settings.

    Attributes:
        excess: the running means, shape ``(2, n_var, options)``, of full precision and quantised.
    """

    def __init__(self, space: Space, config: TrainConfig) -> None:
        self.space = space
        self.config = config
        self.excess: FloatArray = np.zeros((2, space.n_var, int(space.n_options.max())))
        self._rows: list[tuple[IntArray, bool]] = []
        self._fewest = with_fewest_bits(space, np.vstack([space.largest(), space.smallest()]))
        self._macs = macs_tables(space)

    def students(self, step: int) -> list[Student]:
        """The subnets of a step; with groups of momentum, larger ones first."""
        config, space = self.config, self.space
        self._rows = []
        if step < config.warmup:
            return []
        rng = np.random.default_rng([config.seed, 2, step])
        rows = np.vstack([space.smallest(), self._random(rng, quantised=False)])
        if config.shrink:
            rows = self._shrunk(rows, step)
        self._rows = [(row, False) for row in rows]
        begun = step - (config.steps - config.quantised_steps)
        if begun >= 0:
            drawn = self._random(rng, quantised=True)
            phases = int(space.n_options[space.bit_columns].max())
            widest = 1 + phases * begun // config.quantised_steps
            if config.bit_phases and widest < phases:
                drawn = with_widest_bits(space, drawn, widest, rng)
            if config.bit_sandwich:
                drawn = np.vstack([self._fewest, drawn])
            self._rows += [(row, True) for row in drawn]
        if config.momentum_groups:
            size = macs(space, self._macs, np.array([row for row, _ in self._rows]))
            self._rows = [self._rows[i] for i in np.argsort(-size, kind="stable")]
        subnets = space.decode(np.array([row for row, _ in self._rows]))
        return [Student(s, q) for s, (_, q) in zip(subnets, self._rows, strict=True)]

    def learn(self, losses: Sequence[float]) -> None:
        """Learn from the losses of a step: the largest subnet's, then those of its students."""
        for (row, quantised), loss in zip(self._rows, losses[1:], strict=True):
            if not row.any():  # the smallest is there in every step
                continue
            genes = np.flatnonzero(self._counted(row[None], quantised=quantised)[0])
            mean = self.excess[int(quantised)]
            mean[genes, row[genes]] += _RATE * (loss - losses[0] - mean[genes, row[genes]])

    def _random(self, rng: np.random.Generator, *, quantised: bool) -> IntArray:
        config, space = self.config, self.space
        draw = find_distribution(config.draw)
        first = draw(space, config.random_subnets, rng)
        if config.sampling == "random":
            return first
        pool = np.vstack([first, draw(space, _POOL, rng)])
        size = np.log1p(macs(space, self._macs, pool))
        score = self._score(pool, quantised=quantised)
        if config.sampling == "worst-up":
            score = -score
        chosen = []
        for i in range(len(first)):
            near = np.argsort(np.abs(size - size[i]), kind="stable")[: config.candidates]
            chosen.append(near[score[near].argmin()])
        return pool[chosen]

    def _score(self, X: IntArray, *, quantised: bool) -> FloatArray:
        counted = self._counted(X, quantised=quantised)
        means = self.excess[int(quantised)][np.arange(self.space.n_var), X]
        score: FloatArray = (means * counted).sum(axis=1) / counted.sum(axis=1)
        return score

    def _counted(self, X: IntArray, *, quantised: bool) -> BoolArray:
        """Which genes mean something, shape ``(n, n_var)``."""
        counted = self.space.active_genes(X).copy()
        if not quantised:
            counted[:, self.space.bit_columns] = False
        return counted

    def _shrunk(self, rows: IntArray, step: int) -> IntArray:
        """Rows with the largest option wherever a dimension is not elastic yet."""
        config, space = self.config, self.space
        length = config.steps - config.quantised_steps - config.warmup
        phase = 3 * (step - config.warmup) // max(1, length)
        fixed = ("depth", "channels")[phase:]
        if not fixed:
            return rows
        keep = np.array([gene.kind not in fixed for gene in space.genes])
        blocks = np.array([gene.block for gene in space.genes])
        # Genes of blocks that were drawn inactive are 0, the smallest option: they say nothing.
        drawn = np.where(blocks >= 0, space.active(rows)[:, blocks], True)
        return np.where(keep & drawn, rows, space.largest())


def with_widest_bits(space: Space, X: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """Networks with bits drawn anew, uniformly from the widest options of each role.

    Where the rules forbid what is drawn, a block keeps its bits.

    Args:
        space: the space.
        X: networks, in canonical form.
        count: how many options.
        rng: the source of randomness.
    """
    options = space.n_options[space.bit_columns]
    bits = rng.integers(np.maximum(options - count, 0), options, (len(X), len(options)))
    return _with_bits(space, X, bits)


def with_fewest_bits(space: Space, X: IntArray) -> IntArray:
    """Networks with the fewest bits of each role; a block keeps its own if the rules forbid it."""
    return _with_bits(space, X, 0)


def _with_bits(space: Space, X: IntArray, bits: IntArray | int) -> IntArray:
    drawn = X.copy()
    drawn[:, space.bit_columns] = bits
    index, before = space.block_index(drawn), space.block_index(X)
    if space.spec.forbidden:
        for b in range(space.n_blocks):
            allowed = np.isin(index[:, b], space.allowed(b))
            index[:, b] = np.where(allowed, index[:, b], before[:, b])
    return space.from_block_index(index)


def macs_tables(space: Space) -> list[IntArray]:
    """Multiply-accumulates of each block by kernel and channels, its options' indices."""
    return [
        np.array(
            [
                [
                    sum(
                        layer.macs
                        for layer in plan.layers(Block(plan.stage, kernel, channels, 8, 8, 8, 8))
                    )
                    for channels in plan.options["channels"]
                ]
                for kernel in plan.options["kernel"]
            ]
        )
        for plan in space.plans
    ]


def macs(space: Space, tables: Sequence[IntArray], X: IntArray) -> IntArray:
    """Multiply-accumulates of networks, of their searchable blocks, shape ``(n,)``."""
    active = space.active(X)
    total = np.zeros(len(X), dtype=np.int64)
    for b, table in enumerate(tables):
        kernel, channels = X[:, space.block_columns[b, :2]].T
        total += active[:, b] * table[kernel, channels]
    return total
