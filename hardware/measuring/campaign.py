"""Timing many things in rounds of random order, so that slow spells of a machine spread evenly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import iqr

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.changes import refuse_other_settings
from apq_moo.errors import UserError
from apq_moo.files import replacing
from apq_moo.hardware.measuring.timing import Rule, Runner, half_width, observe
from apq_moo.npz import HEADER, header_of, read_arrays

_SAVE_S = 5.0

Callback = Callable[[int, int], None]


class Campaign:
    """Observations of many things, made visit by visit.

    In each of the first rounds everything is visited once, in random order. Further rounds, up to
    twice as many, go to what is not settled yet. Other work on a machine only
    ever slows things down, so the quietest visit to a thing, the one with the smallest median,
    counts; it is settled when that median is known to the wanted precision and another visit's is
    within twice the precision of it.

    Args:
        prepare: for each thing a function that makes its runner, called anew in every round.
        rule: how one visit is timed.
        seed: of the orders.
        rounds: that visit everything.

    Attributes:
        visits: observations in ms of each visit to each thing so far.
        rule: as given.
    """

    def __init__(
        self, prepare: Sequence[Callable[[], Runner]], rule: Rule, seed: int, rounds: int
    ) -> None:
        self._prepare = prepare
        self._rounds = rounds
        self._seed = seed
        self.rule = rule
        self.visits: list[list[FloatArray]] = [[] for _ in prepare]

    def run(self, file: CampaignFile | None = None, callback: Callback | None = None) -> None:
        """Time everything, or what is left of it.

        Args:
            file: where to continue from, and where to save now and then.
            callback: told ``(visits made, visits so far known to be needed)``.

        Raises:
            UserError: the file belongs to another campaign, or cannot be written.
        """
        if file is not None:
            file.load(self)
        saved = time.monotonic()
        try:
            for number in range(2 * self._rounds):
                rest = self._round(number)
                made = sum(map(len, self.visits))
                ahead = max(self._rounds - 1 - number, 0) * len(self.visits)
                for i, thing in enumerate(rest):
                    self.visits[thing].append(observe(self._prepare[thing](), self.rule))
                    if callback is not None:
                        callback(made + i + 1, made + len(rest) + ahead)
                    if file is not None and time.monotonic() - saved > _SAVE_S:
                        file.save(self)
                        saved = time.monotonic()
        finally:
            if file is not None:
                file.save(self)

    def _round(self, number: int) -> list[int]:
        """What is left to visit in a round, in random order."""
        order = np.random.default_rng([self._seed, number]).permutation(len(self.visits))
        return [
            thing
            for thing in order.tolist()
            if len(self.visits[thing]) <= number
            and (number < self._rounds or not self.settled(thing))
        ]

    def _quietest(self, thing: int) -> FloatArray:
        return min(self.visits[thing], key=np.median)

    def settled(self, thing: int) -> bool:
        """Whether the median of a thing is known well enough."""
        medians = sorted(float(np.median(visit)) for visit in self.visits[thing])
        agree = len(medians) > 1 and medians[1] <= medians[0] * (1 + 2 * self.rule.precision)
        return agree and half_width(self._quietest(thing)) <= self.rule.precision

    def medians(self) -> FloatArray:
        """Median of the quietest visit to each thing in ms, shape ``(n,)``."""
        return np.array([np.median(self._quietest(i)) for i in range(len(self.visits))])

    def quartile_ranges(self) -> FloatArray:
        """Interquartile range of each thing's quietest visit in ms, shape ``(n,)``."""
        return np.array([iqr(self._quietest(i)) for i in range(len(self.visits))])

    def counts(self) -> IntArray:
        """Observations of each thing in all visits, shape ``(n,)``."""
        return np.array([sum(map(len, visits)) for visits in self.visits], dtype=np.int64)


class CampaignFile:
    """Where the observations of an unfinished campaign are kept.

    Args:
        path: the file.
        settings: everything that observations depend on, as JSON.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))

    def save(self, campaign: Campaign) -> None:
        """Write what has been observed, atomically.

        Raises:
            UserError: it cannot be written.
        """
        header = np.frombuffer(json.dumps(self.settings).encode(), dtype=np.uint8)
        visits = [visit for visits in campaign.visits for visit in visits]
        with replacing(self.path) as temporary, temporary.open("wb") as handle:
            np.savez(
                handle,
                header=header,
                visits=np.array([len(visits) for visits in campaign.visits], dtype=np.int64),
                lengths=np.array([len(visit) for visit in visits], dtype=np.int64),
                observations=np.concatenate([np.empty(0), *visits]),
            )

    def load(self, campaign: Campaign) -> None:
        """Take over what has been observed before, if anything.

        Raises:
            UserError: the file is damaged or belongs to another campaign.
        """
        if not self.path.is_file():
            return
        wanted = dict.fromkeys(("visits", "lengths"), ("i", 1))
        try:
            data = read_arrays(
                self.path, {"header": HEADER, "observations": ("f", 1), **wanted}, max_bytes=2**27
            )
            settings = header_of(data, self.path)
        except UserError as error:
            raise UserError(f"{error}; remove it to begin anew") from error
        counts, lengths = data["visits"], data["lengths"]
        mend = "remove the file to begin anew"
        refuse_other_settings(self.path, settings, self.settings, mend)
        if (
            len(counts) != len(campaign.visits)
            or (counts < 0).any()
            or (lengths < 1).any()
            or counts.sum() != len(lengths)
            or lengths.sum() != len(data["observations"])
            or not np.isfinite(data["observations"]).all()
        ):
            raise UserError(f"{self.path} is damaged; remove it to begin anew")
        rest = iter(np.split(data["observations"], np.cumsum(lengths)[:-1]))
        campaign.visits = [[next(rest) for _ in range(n)] for n in counts]
