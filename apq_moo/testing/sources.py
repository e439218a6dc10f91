"""What everything that says how accurate networks are promises."""

from __future__ import annotations

import re

import numpy as np
import pytest

from apq_moo.arrays import IntArray
from apq_moo.problems import AccuracySource, APQProblem, ExactSource
from apq_moo.testing.checks import missing

_SHA256 = re.compile(r"[0-9a-f]{64}")


class SourceConformance:
    """Checks of an accuracy source: subclass it and override ``source``.

    Fixtures:
        source: an :class:`AccuracySource`; has to be overridden.
        networks: canonical genotypes to ask it for; by default 12 random ones of its space.
    """

    @pytest.fixture
    def source(self) -> AccuracySource:
        """The source."""
        raise missing("source")

    @pytest.fixture
    def networks(self, source: AccuracySource) -> IntArray:
        """Networks of its space."""
        return source.space.sample(12, np.random.default_rng(0))

    def test_accuracies_are_percent(self, source: AccuracySource, networks: IntArray) -> None:
        """A finite number from 0 to 100 for each network, also for none."""
        for X in (networks, networks[:1], networks[:0]):
            found = source.predict(X)
            assert found.shape == (len(X),)
            assert ((found >= 0) & (found <= 100)).all(), f"{found} are no percents"

    def test_values_depend_on_the_network_alone(
        self, source: AccuracySource, networks: IntArray
    ) -> None:
        """Not on the rest of a batch, its order, or whether genotypes are at hand."""
        found = source.predict(networks)
        order = np.random.default_rng(1).permutation(len(networks))
        assert np.array_equal(source.predict(networks[order]), found[order])
        index = source.space.block_index(networks)
        assert np.array_equal(source(index), found), "blocks give other values than genotypes"
        assert np.array_equal(source(index[:1]), found[:1])

    def test_says_where_its_values_come_from(self, source: AccuracySource) -> None:
        """A name in one line, and checksums."""
        assert source.name, "it has no name"
        assert len(source.name.splitlines()) == 1, f"its name {source.name!r} is not one line"
        for name, checksum in source.digest.items():
            assert _SHA256.fullmatch(checksum), f"the checksum of {name} is {checksum!r}"

    def test_what_it_says_of_itself_holds(self, source: AccuracySource, networks: IntArray) -> None:
        """Sums over blocks, samples of the whole space and measured splits are its own values."""
        found = source.predict(networks)
        gains = source.block_gains()
        if gains is not None:
            index = source.space.block_index(networks)
            padded = [np.append(of, 0.0) for of in gains[1]]
            total = gains[0] + sum(of[index[:, b]] for b, of in enumerate(padded))
            np.testing.assert_allclose(total, found, rtol=0, atol=1e-9)
        known = source.samples()
        if known is not None:
            assert len(known[0]) == source.space.count(), "its samples are not the whole space"
            assert np.array_equal(source.predict(known[0][:50]), known[1][:50])
        if isinstance(source, ExactSource):
            measured = source.measure(networks)
            assert measured.shape == (len(networks), 2)
            assert np.array_equal(measured[:, 0], found), "validation is not what it predicts"

    def test_a_problem_takes_it(self, source: AccuracySource, networks: IntArray) -> None:
        """As the objective that it is."""
        problem = APQProblem(source.space, ("acc", "macs"), predictor=source)
        F, _ = problem.evaluate_blocks(source.space.block_index(networks), networks)
        assert np.array_equal(-F[:, 0], source.predict(networks))
        assert problem.accuracy is source
