"""A space for given images and a given budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apq_moo.data.counting import Facts, facts_of
from apq_moo.errors import UserError, shown
from apq_moo.hardware import (
    Device,
    cost_table,
    feasible_options,
    find_cost,
    find_device,
    maximum,
    minimum,
)
from apq_moo.pipeline.family import WIDTHS, Member, member
from apq_moo.problems import FeasibleRegion
from apq_moo.space import FIELDS, ROLES, Space

MARGIN = 2.0
"""How far below a limit the smallest network is to be, and how far above it the largest."""


@dataclass(frozen=True)
class Design:
    """A space that was chosen.

    Attributes:
        member: the space.
        device: the cost model.
        limits: what was wished: upper limits of costs, by name.
        ranges: of each of these, what the smallest and the largest network of the space take.
    """

    member: Member
    device: str
    limits: dict[str, float]
    ranges: dict[str, tuple[float, float]]

    @property
    def facts(self) -> Facts:
        """What is in the image set."""
        return self.member.facts


def design(
    images: str, limits: Mapping[str, float], device: str | Path | Device = "bitfusion"
) -> Design:
    """Choose the space of the family whose networks lie around a budget.

    Of the widths at which the smallest network takes at most half of every limit, and the largest
    at least twice one of them, the one is chosen in whose range, on a logarithmic scale, the limit
    that rules out most lies nearest to the middle. Costs grow with the width, and nothing is
    random.

    Args:
        images: an image set, or ``folder:PATH@SIZE``.
        limits: upper ones, by the name of a cost (see :func:`apq_moo.hardware.cost_names`).
        device: the cost model of latency and energy.

    Raises:
        UserError: there are no such images or but one class, no or an odd limit, or a limit that no
            network of the family meets.
    """
    if not limits:
        raise UserError("a space is made for a limit, of latency, energy or size; give one")
    for name, limit in limits.items():
        find_cost(name)
        if not 0 < limit < math.inf:
            raise UserError(f"the limit of {name} must be a positive number, not {shown(limit)}")
    model = find_device(device)
    facts = facts_of(images)
    if facts.classes < 2:
        raise UserError(
            f"image set {shown(images)} has a single class; networks tell at least two apart"
        )
    limits = {name: float(limit) for name, limit in limits.items()}
    bits = _usable_bits(facts, limits, model)
    found: list[Design] = []
    for width in WIDTHS:  # wider ones fit worse than the first that costs too much
        of = member(facts, width, bits)
        found.append(Design(of, str(device), limits, _ranges(of, limits, model)))
        if _above_the_middle(found[-1]) > 0:
            break
    _refuse_too_small(found[0], model)
    best = min(found, key=_misfit)
    _refuse_contradiction(best.member, limits, model)
    return best


def _usable_bits(
    facts: Facts, limits: Mapping[str, float], device: Device
) -> dict[str, tuple[int, ...]]:
    """The bits of the family that a device can run in every block."""
    space = member(facts, WIDTHS[0]).space()
    tables = [cost_table(space, name, device) for name in limits]
    feasible = feasible_options(space, tables)
    minimum(tables[0], feasible)  # says what cannot run, where nothing can
    usable = {}
    for role in ROLES:
        options = space.plans[0].options[role]
        seen = [
            set(space.block_genes(b, np.flatnonzero(mask))[:, FIELDS.index(role)].tolist())
            for b, mask in enumerate(feasible)
        ]
        usable[role] = tuple(options[gene] for gene in sorted(set.intersection(*seen)))
    return usable


def _smallest(of: Member) -> Space:
    """The small networks of a space, few enough to be costed at once."""
    low = of.expand[0]
    return of.space(depths=of.depths[:1], expand=(low, 2 * low), bits=_ends(of))


def _largest(of: Member) -> Space:
    """The large networks of a space, likewise."""
    high = of.expand[1]
    return of.space(depths=of.depths[-1:], expand=(high - 1, high), bits=_ends(of))


def _ends(of: Member) -> dict[str, list[int]]:
    return {role: sorted({options[0], options[-1]}) for role, options in of.bits.items()}


def _ranges(
    of: Member, limits: Mapping[str, float], device: Device
) -> dict[str, tuple[float, float]]:
    """What the smallest and the largest network of a space take of each limited cost."""
    found = []
    for space, extreme in ((_smallest(of), minimum), (_largest(of), maximum)):
        tables = [cost_table(space, name, device) for name in limits]
        feasible = feasible_options(space, tables)
        found.append([extreme(table, feasible)[0] for table in tables])
    return dict(zip(limits, zip(*found, strict=True), strict=True))


def _refuse_contradiction(of: Member, limits: Mapping[str, float], device: Device) -> None:
    """Find out whether a network meets all limits at once.

    Raises:
        UserError: none does.
    """
    space = _smallest(of)
    tables = [cost_table(space, name, device) for name in limits]
    wished = list(zip(tables, limits.values(), strict=True))
    FeasibleRegion(space, feasible_options(space, tables), wished)


def _refuse_too_small(narrowest: Design, device: Device) -> None:
    size = f"{narrowest.facts.size}x{narrowest.facts.size}"
    for name, limit in narrowest.limits.items():
        least, unit = narrowest.ranges[name][0], find_cost(name).unit
        if least > limit:
            raise UserError(
                f"no network for {size} images has {name} <= {limit:g} {unit} on "
                f"{shown(device.name)}: the smallest has {least:.4g} {unit}; allow more, or scale "
                "the images to fewer pixels"
            )


def _above_the_middle(of: Design) -> float:
    """How far the middle of a space's range lies above the limit that rules out most of it."""
    return max(
        math.log(math.sqrt(low * high) / of.limits[name]) for name, (low, high) in of.ranges.items()
    )


def _misfit(of: Design) -> tuple[bool, bool, bool, float]:
    """How badly a space fits; see :func:`design`."""
    pairs = [(of.limits[name], *ends) for name, ends in of.ranges.items()]
    met = all(low <= limit for limit, low, _ in pairs)
    below = all(MARGIN * low <= limit for limit, low, _ in pairs)
    above = any(high >= MARGIN * limit for limit, _, high in pairs)
    return not met, not below, not above, abs(_above_the_middle(of))
