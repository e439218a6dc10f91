"""What every accuracy predictor promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import pytest

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.predictors import PREDICTORS, Predictor, load_predictor
from apq_moo.problems import APQProblem
from apq_moo.problems.accuracy import AccuracyModel
from apq_moo.space import Space
from apq_moo.testing.checks import Suite, assert_refused, global_generators, missing

PredictorFactory: TypeAlias = Callable[[int], AccuracyModel]
"""Makes a new predictor with a seed and fits it, always to the same samples."""


class PredictorConformance(Suite):
    """Checks of a predictor: subclass it and override ``make``.

    Fixtures:
        make: a :data:`PredictorFactory`; has to be overridden. It is called several times, so it
            should fit to few samples.
        predictor: a fitted predictor; by default ``make(0)``.
        space: the space that it is fitted to; by default the preset ``digits``.

    Anything with ``predict(X)`` and an attribute ``space`` can be checked. What derives from
    :class:`apq_moo.predictors.Predictor` has to be registered under its name, and is also saved and
    loaded, and used as scikit-learn uses its regressors.
    """

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
            with _threads(threads), global_generators(threads):
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
        """And is of the same class, has the same parameters, and is saved as the same bytes."""
        predictor = _derived(predictor)
        name = predictor.name
        assert name in PREDICTORS, f"{name!r} is not registered; declare its entry point"
        assert PREDICTORS.get(name) is type(predictor), f"{name!r} is another predictor's name"
        first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
        predictor.save(first)
        loaded = load_predictor(first, space)
        assert type(loaded) is type(predictor)
        assert repr(loaded) == repr(predictor), f"{predictor!r} is {loaded!r} after loading"
        X = _networks(space, 500)
        same = loaded.predict(X) == predictor.predict(X)
        assert same.all(), f"{(~same).sum()} of {len(X)} accuracies differ after loading"
        if predictor.has_std:
            same = loaded.predict(X, return_std=True)[1] == predictor.predict(X, return_std=True)[1]
            assert same.all(), f"{(~same).sum()} of {len(X)} deviations differ after loading"
        loaded.save(second)
        assert second.read_bytes() == first.read_bytes(), "what was loaded is saved differently"

    def test_columns_of_a_data_frame_are_found_by_their_names(
        self, predictor: AccuracyModel, space: Space
    ) -> None:
        """In whatever order; a missing one is refused."""
        predictor, X = _derived(predictor), _networks(space, 50)
        names = [gene.name for gene in space.genes]
        backwards = _Frame(X[:, ::-1], names[::-1])
        same = _predict(predictor, backwards) == _predict(predictor, X)
        assert same.all(), f"{(~same).sum()} of {len(X)} accuracies depend on the columns' order"
        assert_refused(
            lambda: predictor.predict(_Frame(X[:, 1:], names[1:])), f"a frame without {names[0]!r}"
        )

    def test_standard_deviations_belong_to_the_predictions(
        self, predictor: AccuracyModel, space: Space
    ) -> None:
        """Not negative, one a network in whatever batch; refused where there are none."""
        predictor, X = _derived(predictor), _networks(space, 100)
        if not predictor.has_std:
            assert_refused(lambda: predictor.predict(X, return_std=True), "return_std=True")
            return
        mean, std = predictor.predict(X, return_std=True)
        assert (mean == _predict(predictor, X)).all(), "its mean is not what it predicts without"
        assert std.shape == (len(X),), f"deviations of shape {std.shape} for {len(X)} networks"
        assert std.dtype == np.float64, f"deviations of dtype {std.dtype}, not float64"
        assert (std >= 0).all(), "a deviation is negative or no number"
        alone = np.concatenate([predictor.predict(X[[i]], return_std=True)[1] for i in range(9)])
        assert (alone == std[:9]).all(), "a deviation depends on the rest of the batch"
        assert predictor.predict(X[:0], return_std=True)[1].shape == (0,)

    def test_scikit_learn_clones_it(self, make: PredictorFactory, space: Space) -> None:
        """A clone has the same parameters and has learnt nothing; what it learns is its own."""
        predictor, X = _derived(make(3)), _networks(space, 50)
        before = _predict(predictor, X)
        twin = _clone(predictor)
        assert predictor.get_params()["seed"] == 3, "its seed is no parameter"
        assert repr(twin) == repr(predictor), f"the clone of {predictor!r} is {twin!r}"
        assert_refused(lambda: twin.predict(X), "a clone that is not fitted")
        assert twin.set_params(seed=4) is twin
        assert (twin.seed, predictor.seed) == (4, 3), "set_params does not set, or sets another's"
        assert_refused(lambda: twin.set_params(no_such_parameter=1), "a parameter it lacks")
        twin.fit(X, before[::-1], X_fp=X, y_fp=before[::-1])
        assert (_predict(predictor, X) == before).all(), "fitting a clone changes the original"

    def test_scikit_learn_validates_and_searches_with_it(
        self, make: PredictorFactory, space: Space
    ) -> None:
        """Cross-validation, pipelines and grid search do as one does by hand."""
        from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
        from sklearn.pipeline import Pipeline

        fitted, X = _derived(make(3)), _networks(space, 24)
        y = _predict(fitted, X).clip(0, 100)
        found = cross_val_score(_clone(fitted), X, y, cv=2, params={"X_fp": X, "y_fp": y})
        by_hand = [
            _clone(fitted).fit(X[a], y[a], X_fp=X[a], y_fp=y[a]).score(X[b], y[b])
            for a, b in KFold(2).split(X)
        ]
        assert np.array_equal(found, by_hand), f"scores {found} by scikit-learn, {by_hand} by hand"
        pipeline = Pipeline([("predictor", _clone(fitted))])
        search = GridSearchCV(pipeline, {"predictor__seed": [4]}, cv=2)
        search.fit(X, y, predictor__X_fp=X, predictor__y_fp=y)
        expected = _clone(fitted).set_params(seed=4).fit(X, y, X_fp=X, y_fp=y).predict(X)
        assert (search.predict(X) == expected).all(), "a grid search fits it differently"


@dataclass
class _Frame:
    """All that a data frame needs to have."""

    array: IntArray
    columns: list[str]

    def __len__(self) -> int:
        return len(self.array)

    def to_numpy(self) -> IntArray:
        return self.array

    def __array__(self, dtype: None = None, copy: None = None) -> IntArray:
        return self.array


def _derived(predictor: AccuracyModel) -> Predictor:
    if not isinstance(predictor, Predictor):
        pytest.skip("it does not derive from apq_moo.predictors.Predictor")
    return predictor


def _clone(predictor: Predictor) -> Predictor:
    from sklearn.base import clone

    try:
        return cast(Predictor, clone(predictor))
    except (AttributeError, RuntimeError, TypeError) as error:
        raise AssertionError(
            f"scikit-learn cannot clone it: {error}; its constructor must keep each argument "
            "unchanged in an attribute of the same name"
        ) from error


def _networks(space: Space, n: int) -> IntArray:
    """Random canonical genotypes, always the same."""
    return space.sample(n, np.random.default_rng(0))


def _predict(predictor: AccuracyModel, X: IntArray | _Frame) -> FloatArray:
    """What it answers, as an array.

    Raises:
        AssertionError: it fails.
    """
    try:
        return np.asarray(predictor.predict(cast(IntArray, X)))
    except Exception as error:
        raise AssertionError(f"predict fails for {len(X)} networks: {error!r}") from error


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Give torch and BLAS a number of threads, and assert that torch keeps it."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(n)
        with threadpool_limits(n, user_api="blas"):
            yield
        assert torch.get_num_threads() == n, "fitting changes torch's number of threads"
    finally:
        torch.set_num_threads(before)
