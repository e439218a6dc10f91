"""What every predictor promises; a plug-in can be run through these too."""

import copy
import subprocess
import sys

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.predictors import PREDICTORS, Predictor, create_predictor, load_predictor
from apq_moo.predictors.metrics import kendall_tau

NAMES = list(PREDICTORS)


def fit(name, space, samples, seed=0, n=200):
    (X, y), (X_fp, y_fp) = samples.mp, samples.fp
    predictor = create_predictor(name, space, seed=seed)
    return predictor.fit(X[:n], y[:n], X_fp=X_fp[:n], y_fp=y_fp[:n])


def test_names():
    known = "additive xgboost xgboost-stacked gbdt gbdt-stacked mlp mlp-scratch"
    assert known.split() == NAMES
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
def test_depends_on_the_canonical_form_only(name, fitted, digits):
    rng = np.random.default_rng(0)
    X = digits.sample(300, rng)
    noise = rng.integers(0, digits.n_options, X.shape)
    disguised = np.where(digits.active_genes(X), X, noise)
    assert (disguised != X).any()
    np.testing.assert_array_equal(fitted[name].predict(disguised), fitted[name].predict(X))


@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_one_value_in_whatever_batch(name, fitted, digits):
    rng = np.random.default_rng(0)
    X = digits.sample(700, rng)
    everything = fitted[name].predict(X)
    for size in (1, 2, 3, 7, 31, 100, 257, 600):
        chosen = rng.permutation(len(X))[:size]
        np.testing.assert_array_equal(fitted[name].predict(X[chosen]), everything[chosen])
    assert fitted[name].predict(X[:0]).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_predicts_the_same_bits(name, fitted, digits, tmp_path):
    path = tmp_path / "predictor.safetensors"
    fitted[name].save(path)
    X = digits.sample(500, np.random.default_rng(3))
    loaded = load_predictor(path, digits)
    assert type(loaded) is type(fitted[name])
    assert loaded.seed == 1
    np.testing.assert_array_equal(loaded.predict(X), fitted[name].predict(X))
    again = tmp_path / "again.safetensors"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_predictions_and_no_global_state(name, digits, digits_samples):
    import torch

    X = digits_samples.held_out[0]
    torch_state, threads = torch.get_rng_state(), torch.get_num_threads()
    numpy_state = np.random.get_state()  # noqa: NPY002 - the state that must not change
    try:
        torch.set_num_threads(2)
        first = fit(name, digits, digits_samples, seed=5).predict(X)
        torch.set_num_threads(1)
        np.testing.assert_array_equal(fit(name, digits, digits_samples, seed=5).predict(X), first)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    other = fit(name, digits, digits_samples, seed=6).predict(X)
    assert (other != first).any() == (name != "additive")
    assert torch.equal(torch.get_rng_state(), torch_state)
    after = np.random.get_state()  # noqa: NPY002
    assert after[2] == numpy_state[2]
    np.testing.assert_array_equal(after[1], numpy_state[1])


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", NAMES)
def test_pretraining_apart_and_refitting_leave_no_trace(name, digits, digits_samples):
    (X, y), (X_fp, y_fp), (held_out, _) = (
        digits_samples.mp,
        digits_samples.fp,
        digits_samples.held_out,
    )
    together = fit(name, digits, digits_samples).predict(held_out)
    apart = create_predictor(name, digits).pretrain(X_fp[:200], y_fp[:200])
    apart.fit(X[200:300], y[200:300])
    if apart.transfers:
        with pytest.raises(UserError, match="not fitted"):
            apart.pretrain(X_fp[:200], y_fp[:200]).predict(held_out)
    apart.fit(X[:200], y[:200])
    np.testing.assert_array_equal(apart.predict(held_out), together)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", NAMES)
def test_full_precision_matters_iff_it_transfers(name, digits, digits_samples):
    (X, y), (X_fp, y_fp), (held_out, _) = (
        digits_samples.mp,
        digits_samples.fp,
        digits_samples.held_out,
    )
    predictor = create_predictor(name, digits)
    first = predictor.fit(X, y, X_fp=X_fp, y_fp=y_fp).predict(held_out)
    second = predictor.fit(X, y, X_fp=X_fp, y_fp=y_fp[::-1]).predict(held_out)
    assert (first != second).any() == predictor.transfers
    if predictor.transfers:
        with pytest.raises(UserError, match="transfers from full-precision samples"):
            create_predictor(name, digits).fit(X, y)
    else:
        np.testing.assert_array_equal(
            create_predictor(name, digits).fit(X, y).predict(X[:5]), predictor.predict(X[:5])
        )


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", NAMES)
def test_equal_accuracies_are_learnt_as_they_are(name, digits, digits_samples):
    X, X_fp = digits_samples.mp[0][:50], digits_samples.fp[0][:50]
    predictor = create_predictor(name, digits)
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
