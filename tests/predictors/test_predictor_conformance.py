"""What every predictor promises, and what those of the registry promise beside."""

import copy
import subprocess
import sys

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.predictors import PREDICTORS, Predictor, create_predictor
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.testing import PredictorConformance

NAMES = list(PREDICTORS)


def fit(predictor, samples, n=200):
    (X, y), (X_fp, y_fp) = samples.mp, samples.fp
    return predictor.fit(X[:n], y[:n], X_fp=X_fp[:n], y_fp=y_fp[:n])


class TestPredictors(PredictorConformance):
    @pytest.fixture(params=NAMES)
    def name(self, request):
        return request.param

    @pytest.fixture
    def make(self, name, digits, digits_samples, brief):
        return lambda seed: fit(brief(name, digits, seed), digits_samples)

    @pytest.fixture
    def predictor(self, name, fitted):
        return fitted[name]

    @pytest.fixture
    def space(self, digits):
        return digits

    def test_the_seed_matters_where_fitting_is_random(self, name, make, digits_samples):
        X = digits_samples.held_out[0]
        differ = make(5).predict(X) != make(6).predict(X)
        assert differ.any() == (name not in {"additive", "gp-scratch"})


def test_names():
    known = "additive xgboost xgboost-stacked gbdt gbdt-stacked mlp mlp-scratch gp-scratch gp"
    assert {*known.split(), "ensemble", "mlp-stacked"} == set(NAMES)
    assert all(PREDICTORS.get(name).name == name for name in NAMES)


def test_importing_the_room_is_light():
    code = (
        "import sys, apq_moo.predictors;"
        "print([m for m in ('torch', 'xgboost', 'sklearn', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run(  # noqa: S603 - runs this interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_ranks_held_out_networks(name, fitted, digits_samples):
    X, y = digits_samples.held_out
    predicted = fitted[name].predict(X)
    assert predicted.shape == y.shape
    assert predicted.dtype == np.float64
    assert kendall_tau(y, predicted) > 0.75
    # In percent, not merely in the right order.
    assert np.abs(predicted - y).mean() < 0.5 * np.abs(y - y.mean()).mean()


@pytest.mark.parametrize("name", NAMES)
def test_pretraining_apart_and_refitting_leave_no_trace(name, brief, digits, digits_samples):
    (X, y), (X_fp, y_fp), (held_out, _) = (
        digits_samples.mp,
        digits_samples.fp,
        digits_samples.held_out,
    )
    together = fit(brief(name, digits), digits_samples).predict(held_out)
    apart = brief(name, digits).pretrain(X_fp[:200], y_fp[:200])
    apart.fit(X[200:300], y[200:300])
    if apart.transfers:
        with pytest.raises(UserError, match="not fitted"):
            apart.pretrain(X_fp[:200], y_fp[:200]).predict(held_out)
    apart.fit(X[:200], y[:200])
    np.testing.assert_array_equal(apart.predict(held_out), together)


@pytest.mark.parametrize("name", NAMES)
def test_full_precision_matters_iff_it_transfers(name, brief, digits, digits_samples):
    (X, y), (X_fp, y_fp), (held_out, _) = (
        digits_samples.mp,
        digits_samples.fp,
        digits_samples.held_out,
    )
    predictor = brief(name, digits)
    first = predictor.fit(X, y, X_fp=X_fp, y_fp=y_fp).predict(held_out)
    second = predictor.fit(X, y, X_fp=X_fp, y_fp=y_fp[::-1]).predict(held_out)
    assert (first != second).any() == predictor.transfers
    if predictor.transfers:
        with pytest.raises(UserError, match="transfers from full-precision samples"):
            brief(name, digits).fit(X, y)
    else:
        np.testing.assert_array_equal(
            brief(name, digits).fit(X, y).predict(X[:5]), predictor.predict(X[:5])
        )


@pytest.mark.parametrize("name", NAMES)
def test_equal_accuracies_are_learnt_as_they_are(name, brief, digits, digits_samples):
    X, X_fp = digits_samples.mp[0][:50], digits_samples.fp[0][:50]
    predictor = brief(name, digits)
    predictor.fit(X, np.full(50, 64.0), X_fp=X_fp, y_fp=np.full(50, 70.0))
    np.testing.assert_allclose(predictor.predict(X), 64.0, atol=0.5)


def test_transfer_of_the_network_helps_when_samples_are_few(fitted, digits, digits_samples):
    (X, y), (held_out, accuracies) = digits_samples.mp, digits_samples.held_out
    transferred = copy.deepcopy(fitted["mlp"]).fit(X[:100], y[:100])
    alone = create_predictor("mlp-scratch", digits, seed=1).fit(X[:100], y[:100])
    tau = [kendall_tau(accuracies, p.predict(held_out)) for p in (transferred, alone)]
    assert tau[0] > tau[1] + 0.07


@pytest.mark.parametrize("name", ["xgboost", "gbdt"])
def test_transfer_by_stacking_helps_when_samples_are_few(name, imagenet, imagenet_samples):
    (X, y), (X_fp, y_fp) = imagenet_samples.mp, imagenet_samples.fp
    held_out, accuracies = imagenet_samples.held_out
    stacked = create_predictor(f"{name}-stacked", imagenet).fit(X, y, X_fp=X_fp, y_fp=y_fp)
    alone = create_predictor(name, imagenet).fit(X, y)
    tau = [kendall_tau(accuracies, p.predict(held_out)) for p in (stacked, alone)]
    assert tau[0] > tau[1] + 0.03


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[0, 1]], [50.0], "expects X of shape"),
        ("rows", [50.0], "at least 2 rows with one accuracy each"),
        ("rows", [50.0, 101.0], "percent, 0 to 100; sample 1 has 101.0"),
        ("rows", [float("nan"), 50.0], "percent, 0 to 100; sample 0 has nan"),
        ("rows", ["a", "b"], "must be numbers"),
        ("one row", [50.0], "at least 2 rows"),
    ],
)
def test_malformed_samples(X, y, message, digits):
    rows = digits.sample(2, np.random.default_rng(0))
    X = {"rows": rows, "one row": rows[:1]}.get(X, X) if isinstance(X, str) else X
    with pytest.raises(UserError, match=message):
        create_predictor("additive", digits).fit(X, y)
    with pytest.raises(UserError, match=message):
        create_predictor("additive", digits).pretrain(X, y)


def test_misuse(digits, fitted, tmp_path):
    rows = digits.sample(2, np.random.default_rng(0))
    predictor = create_predictor("additive", digits)
    with pytest.raises(UserError, match="not fitted"):
        predictor.predict(rows)
    with pytest.raises(UserError, match="nothing to save"):
        predictor.save(tmp_path / "x")
    with pytest.raises(UserError, match="give both or neither"):
        predictor.fit(rows, [1.0, 2.0], X_fp=rows)
    with pytest.raises(UserError, match="unknown predictor 'oracle'; known: additive, "):
        create_predictor("oracle", digits)
    with pytest.raises(UserError, match=r"from 0 to 2\^31 - 1, not -1"):
        create_predictor("additive", digits, seed=-1)
    with pytest.raises(UserError, match="out of range"):
        fitted["mlp"].predict(rows + 100)


def test_a_plug_in_needs_four_methods(digits):
    class Mean(Predictor):
        name = "mean"

        def _fit(self, X, y):
            self.value = y.mean()

        def _predict(self, X):
            return np.full(len(X), self.value)

        def _state(self):
            return {}, {"value": self.value}

        def _restore(self, arrays, settings):
            self.value = settings["value"]

    X = digits.sample(3, np.random.default_rng(0))
    np.testing.assert_allclose(Mean(digits).fit(X, [1.0, 2.0, 6.0]).predict(X), 3.0)
