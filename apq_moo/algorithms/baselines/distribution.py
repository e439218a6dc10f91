"""Distributions over the networks of a space, by logits of what its blocks and stages choose from.

A block chooses one of its candidates, a stage its depth, all independently; so a sum over active
blocks has an exact expectation, and its gradient is a few products. H. Cai et al., ProxylessNAS,
ICLR 2019, section 3.3; blocks of stages with a depth take the place of its skipped ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.space import Space

BlockCosts = Sequence[FloatArray]
"""For each block what its candidates cost, shape ``(n_candidates,)``."""


@dataclass(frozen=True)
class Candidates:
    """What a block chooses from.

    A candidate is a combination of options of several choices, such as of four bit-widths. Its
    probability is proportional to the product of its options', so that combinations which are left
    out give their share to the others.

    Attributes:
        numbers: its configurations, shape ``(n,)``.
        options: which option of each choice a candidate is, shape ``(n, n_choices)``.
    """

    numbers: IntArray
    options: IntArray

    @classmethod
    def apart(cls, numbers: IntArray) -> Candidates:
        """Candidates with a probability each."""
        return cls(numbers, np.arange(len(numbers))[:, None])

    @property
    def sizes(self) -> IntArray:
        """How many options each choice has, shape ``(n_choices,)``."""
        sizes: IntArray = self.options.max(axis=0) + 1
        return sizes


@dataclass(frozen=True)
class Probabilities:
    """Of candidates and depths; or gradients by these.

    Attributes:
        blocks: for each block, shape ``(n_candidates,)``.
        depths: for each stage, shape ``(n_depths,)``.
    """

    blocks: list[FloatArray]
    depths: list[FloatArray]


class Distribution:
    """Independent choices of all blocks and depths.

    Args:
        space: the space.
        blocks: what each block chooses from; one that is never active may have one candidate.
        depths: the depths that each stage chooses from, ascending.

    Attributes:
        space: as given.
        blocks: as given.
        depths: as given.
        logits: of all choices of all blocks, then of all depths; 0 in the beginning, so that
            candidates of one choice are equally probable.
        spans: where those of each block lie, and then those of each stage's depths.
    """

    def __init__(
        self, space: Space, blocks: Sequence[Candidates], depths: Sequence[Sequence[int]]
    ) -> None:
        self.space, self.blocks = space, list(blocks)
        self.depths: list[IntArray] = [np.array(options) for options in depths]
        lengths = [int(block.sizes.sum()) for block in blocks] + [len(d) for d in self.depths]
        ends = np.cumsum(lengths)
        self.spans = [slice(int(end) - n, int(end)) for n, end in zip(lengths, ends, strict=True)]
        self._columns = [
            span.start + np.r_[0, block.sizes[:-1]].cumsum() + block.options
            for span, block in zip(self.spans, self.blocks, strict=False)
        ]
        self.logits: FloatArray = np.zeros(ends[-1])

    def _depth_spans(self) -> list[slice]:
        return self.spans[len(self.blocks) :]

    # -- probabilities -----------------------------------------------------------------------------

    def probabilities(
        self, temperature: float = 1.0, noise: FloatArray | None = None
    ) -> Probabilities:
        """Of the logits, over a temperature; with Gumbel noise a sample of relaxed choices.

        Args:
            temperature: high ones make all alike.
            noise: added to the logits, same shape.
        """
        logits = self.logits / temperature
        if noise is not None:
            logits = (self.logits + noise) / temperature
        return Probabilities(
            [softmax(logits[columns].sum(axis=1)) for columns in self._columns],
            [softmax(logits[place]) for place in self._depth_spans()],
        )

    def back(self, at: Probabilities, by: Probabilities, temperature: float = 1.0) -> FloatArray:
        """A gradient by the logits, shape of :attr:`logits`.

        Args:
            at: the probabilities.
            by: a gradient by these.
            temperature: with which they were made.
        """
        gradient = np.zeros_like(self.logits)
        for columns, p, g in zip(self._columns, at.blocks, by.blocks, strict=True):
            np.add.at(gradient, columns, (through_softmax(p, g) / temperature)[:, None])
        for place, p, g in zip(self._depth_spans(), at.depths, by.depths, strict=True):
            gradient[place] = through_softmax(p, g) / temperature
        return gradient

    def nothing(self) -> Probabilities:
        """Zeros."""
        return Probabilities(
            [np.zeros(len(block.numbers)) for block in self.blocks],
            [np.zeros(len(depths)) for depths in self.depths],
        )

    def marginals(self, block: int, p: FloatArray) -> list[FloatArray]:
        """Probabilities of the options of each choice of a block."""
        of = self.blocks[block]
        totals = [np.zeros(size) for size in of.sizes]
        for choice, total in enumerate(totals):
            np.add.at(total, of.options[:, choice], p)
        return totals

    # -- costs -------------------------------------------------------------------------------------

    def expected(
        self, p: Probabilities, costs: BlockCosts, fixed: float = 0.0
    ) -> tuple[float, Probabilities]:
        """The expectation of a cost that adds up, and its gradient by the probabilities.

        Args:
            p: probabilities.
            costs: of candidates.
            fixed: of everything else.
        """
        means = [float(of @ cost) for of, cost in zip(p.blocks, costs, strict=True)]
        gradient, total = self.nothing(), fixed
        for stage, blocks in enumerate(self.space.layout.stage_blocks):
            sums = np.r_[0.0, np.cumsum(means[blocks])][self.depths[stage]]
            total += float(p.depths[stage] @ sums)
            gradient.depths[stage][:] = sums
            for position, b in enumerate(range(blocks.start, blocks.stop)):
                active = float(p.depths[stage][self.depths[stage] > position].sum())
                gradient.blocks[b][:] = active * costs[b]
        return total, gradient

    def tilted(self, p: Probabilities, costs: BlockCosts, by: float) -> Probabilities:
        """Networks' probabilities times ``exp(-by * cost)``, normalised: independent choices too.

        A depth weighs as much as all choices of the blocks that it has together.
        """
        found, weighs = [], []
        for of, cost in zip(p.blocks, costs, strict=True):
            with np.errstate(divide="ignore"):
                logs = np.log(of) - by * cost
            most = logs.max()
            parts = np.exp(logs - most)
            found.append(parts / parts.sum())
            weighs.append(most + np.log(parts.sum()))
        depths = []
        for stage, blocks in enumerate(self.space.layout.stage_blocks):
            sums = np.r_[0.0, np.cumsum(weighs[blocks])][self.depths[stage]]
            with np.errstate(divide="ignore"):
                depths.append(softmax(np.log(p.depths[stage]) + sums))
        return Probabilities(found, depths)

    # -- networks ----------------------------------------------------------------------------------

    def sample(
        self, n: int, p: Probabilities, rng: np.random.Generator
    ) -> tuple[IntArray, IntArray]:
        """Draw networks.

        Returns:
            Which candidate each block has, shape ``(n, n_blocks)``, active or not; and which depth
            each stage, ``(n, n_stages)``.
        """
        blocks = [_draw(of, rng.random(n)) for of in p.blocks]
        depths = [_draw(of, rng.random(n)) for of in p.depths]
        return np.stack(blocks, axis=1), np.stack(depths, axis=1)

    def mode(self, p: Probabilities) -> IntArray:
        """The network of the most probable choices, as block configurations ``(n_blocks,)``."""
        chosen = np.array([[int(of.argmax()) for of in p.blocks]])
        depths = np.array([[int(of.argmax()) for of in p.depths]])
        network: IntArray = self.networks(chosen, depths)[0]
        return network

    def networks(self, chosen: IntArray, depths: IntArray) -> IntArray:
        """Block configurations of what :meth:`sample` returned, shape ``(n, n_blocks)``."""
        index = [of.numbers[chosen[:, b]] for b, of in enumerate(self.blocks)]
        deep = [options[depths[:, stage]] for stage, options in enumerate(self.depths)]
        return self.space.layout.cut(np.stack(index, axis=1), np.stack(deep, axis=1))

    def active(self, depths: IntArray) -> BoolArray:
        """Which blocks networks of some depths have, shape ``(n, n_blocks)``."""
        deep = [options[depths[:, stage]] for stage, options in enumerate(self.depths)]
        layout = self.space.layout
        mask: BoolArray = np.stack(deep, axis=1)[:, layout.stage_of] > layout.position
        return mask

    def score(self, p: Probabilities, chosen: IntArray, depths: IntArray) -> Probabilities:
        """The gradient of a network's log probability by the probabilities of its choices.

        Blocks that it has not chose nothing.

        Args:
            p: probabilities.
            chosen: candidates of its blocks, shape ``(n_blocks,)``.
            depths: its depths, shape ``(n_stages,)``.
        """
        gradient = self.nothing()
        for b in np.flatnonzero(self.active(depths[None])[0]):
            gradient.blocks[b][chosen[b]] = 1 / p.blocks[b][chosen[b]]
        for stage, place in enumerate(depths):
            gradient.depths[stage][place] = 1 / p.depths[stage][place]
        return gradient


def added(one: Probabilities, other: Probabilities, times: float = 1.0) -> Probabilities:
    """A gradient and a multiple of another."""
    return Probabilities(
        [a + times * b for a, b in zip(one.blocks, other.blocks, strict=True)],
        [a + times * b for a, b in zip(one.depths, other.depths, strict=True)],
    )


def softmax(logits: FloatArray) -> FloatArray:
    """Along the only axis."""
    parts = np.exp(logits - logits.max())
    shares: FloatArray = parts / parts.sum()
    return shares


def through_softmax(p: FloatArray, gradient: FloatArray) -> FloatArray:
    """A gradient by logits: ``sum_j g_j p_j (delta_ij - p_i)``.

    Args:
        p: probabilities, shape ``(n,)``.
        gradient: by these; of gates (ProxylessNAS, equation 4), or of anything else.
    """
    result: FloatArray = p * (gradient - p @ gradient)
    return result


def _draw(p: FloatArray, u: FloatArray) -> IntArray:
    """Options by uniform numbers, shape of these."""
    found: IntArray = np.searchsorted(np.cumsum(p)[:-1], u, side="right")
    return found
