"""What every accuracy predictor promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.predictors import PREDICTORS, Predictor, load_predictor
from apq_moo.problems import APQProblem
from apq_moo.problems.accuracy import AccuracyModel
from apq_moo.space import Space, load_space
from apq_moo.testing.checks import assert_refused, global_generators, missing

PredictorFactory: TypeAlias = Callable[[int], AccuracyModel]
"""Makes a new predictor with a seed and fits it, always to the same samples."""


class PredictorConformance:
    """Checks of a predictor: subclass it and override ``make``.

    Fixtures:
        make: a :data:`PredictorFactory`; has to be overridden. It is called several times, so it
            should fit to few samples.
        predictor: a fitted predictor; by default ``make(0)``.
        space: the space that it is fitted to; by default the preset ``digits``.

    Anything with ``predict(X)`` and an attribute ``space`` can be checked. What derives from
    :class:`apq_moo.predictors.Predictor` has to be registered under its name, and is also saved and
    loaded.
    """

    @pytest.fixture
    def space(self) -> Space:
        """The space that the predictor is fitted to."""
        return load_space("digits")

    @pytest.fixture
    def make(self) -> PredictorFactory:
        """Makes a fitted predictor from a seed."""
        raise missing("make")

    @pytest.fixture
    def predictor(self, make: PredictorFactory) -> AccuracyModel:
        """A fitted predictor."""
        return make(0)

    def test_accuracies_are_finite_percent(self, predictor: AccuracyModel, space: Space) -> None:
        """One finite float for each row; the middle one lies between 1 and 100."""
        X = _networks(space, 200)
        values = _predict(predictor, X)
        assert values.shape == (len(X),), f"shape {values.shape} for {len(X)} networks"
        assert values.dtype == np.float64, f"dtype {values.dtype}, not float64"
        assert np.isfinite(values).all(), "an accuracy is not finite"
        assert 1 < np.median(values) <= 100, f"median {np.median(values)}: percent, not fractions"

    def test_an_empty_batch_has_no_accuracies(self, predictor: AccuracyModel, space: Space) -> None:
        """No rows in, no values out."""
        assert _predict(predictor, _networks(space, 1)[:0]).shape == (0,)

    def test_depends_on_the_canonical_form_only(
        self, predictor: AccuracyModel, space: Space
    ) -> None:
        """Genes of inactive blocks do not matter."""
        rng = np.random.default_rng(0)
        X = space.sample(300, rng)
        noise = rng.integers(0, space.n_options, X.shape)
        disguised = np.where(space.active_genes(X), X, noise)
        same = _predict(predictor, disguised) == _predict(predictor, X)
        assert same.all(), f"inactive genes change {(~same).sum()} of {len(X)} accuracies"

    def test_a_row_has_one_value_in_whatever_batch(
        self, predictor: AccuracyModel, space: Space
    ) -> None:
        """Bit by bit, in batches of any size and order."""
        X = _networks(space, 700)
        everything = _predict(predictor, X)
        rng = np.random.default_rng(1)
        for size in (1, 2, 3, 7, 31, 100, 257, 600):
            chosen = rng.permutation(len(X))[:size]
            same = _predict(predictor, X[chosen]) == everything[chosen]
            assert same.all(), f"in a batch of {size}, {(~same).sum()} accuracies differ"

    def test_predicting_changes_nothing(self, predictor: AccuracyModel, space: Space) -> None:
        """The same answer twice; the genotypes stay as they are, and so do global generators."""
        X = _networks(space, 50)
        before = X.copy()
        with global_generators(1):
            first = _predict(predictor, X)
        assert np.array_equal(X, before), "predict writes into X"
        with global_generators(2):
            again = _predict(predictor, X)
        assert (again == first).all(), "predict answers differently when asked again"

    def test_fitting_depends_on_the_seed_only(self, make: PredictorFactory, space: Space) -> None:
        """The same seed gives the same bits, on one thread or two; no global generator moves."""
        X = _networks(space, 200)
        fits = []
        for threads in (2, 1):
            with _torch_threads(threads), global_generators(threads):
                fits.append(_predict(make(5), X))
        differ = int((fits[0] != fits[1]).sum())
        assert not differ, f"fitted twice with one seed, {differ} of {len(X)} accuracies differ"

    def test_problems_of_another_space_refuse_it(
        self, predictor: AccuracyModel, space: Space
    ) -> None:
        """Also if that has the same genes: the attribute ``space`` tells."""
        spec = space.spec
        other = Space(replace(spec, name="other", classes=spec.classes + 1))
        assert_refused(
            lambda: APQProblem(other, predictor=predictor),
            f"{type(predictor).__name__}, fitted to {space.name!r}, on another space",
        )
        X = _networks(space, 20)
        found = APQProblem(space, ("acc", "params"), predictor=predictor).evaluate_raw(X)["acc"]
        assert (found == _predict(predictor, X)).all()

    def test_saved_and_loaded_predicts_the_same_bits(
        self, predictor: AccuracyModel, space: Space, tmp_path: Path
    ) -> None:
        """And is of the same class, has the same seed, and is saved as the same bytes."""
        if not isinstance(predictor, Predictor):
            pytest.skip("it does not derive from apq_moo.predictors.Predictor")
        name = predictor.name
        assert name in PREDICTORS, f"{name!r} is not registered; declare its entry point"
        assert PREDICTORS.get(name) is type(predictor), f"{name!r} is another predictor's name"
        first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
        predictor.save(first)
        loaded = load_predictor(first, space)
        assert type(loaded) is type(predictor)
        assert loaded.seed == predictor.seed
        X = _networks(space, 500)
        same = loaded.predict(X) == predictor.predict(X)
        assert same.all(), f"{(~same).sum()} of {len(X)} accuracies differ after loading"
        loaded.save(second)
        assert second.read_bytes() == first.read_bytes(), "what was loaded is saved differently"


def _networks(space: Space, n: int) -> IntArray:
    """Random canonical genotypes, always the same."""
    return space.sample(n, np.random.default_rng(0))


def _predict(predictor: AccuracyModel, X: IntArray) -> FloatArray:
    """What it answers, as an array.

    Raises:
        AssertionError: it fails.
    """
    try:
        return np.asarray(predictor.predict(X))
    except Exception as error:
        raise AssertionError(f"predict fails for {len(X)} networks: {error!r}") from error


@contextmanager
def _torch_threads(n: int) -> Iterator[None]:
    """Give torch a number of threads, and assert that it keeps them."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(n)
        yield
        assert torch.get_num_threads() == n, "fitting changes torch's number of threads"
    finally:
        torch.set_num_threads(before)
