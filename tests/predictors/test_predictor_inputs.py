"""Networks on engineered features and on the output of M_FP: inputs, inference and files."""

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.predictors import Recipe, create_predictor, load_predictor
from apq_moo.predictors.features import PER_BLOCK, engineered
from apq_moo.predictors.inference import ExactNetwork
from apq_moo.predictors.inputs import Inputs
from apq_moo.predictors.network import check_weights
from apq_moo.predictors.storage import read_state, write_state
from apq_moo.predictors.training import initial_weights

KINDS = [
    "mlp:features=engineered:target=log-error",
    "mlp-scratch:features=engineered",
    "mlp-stacked:target=log-error",
    "mlp-stacked:features=engineered",
]


@pytest.fixture(scope="module")
def networks(digits, digits_samples):
    (X, y), (X_fp, y_fp) = digits_samples.mp, digits_samples.fp
    recipe = Recipe(batch=32, lr=3e-3, bits_lr=3e-3, epochs=2, min_steps=40)
    found = {}
    for text in KINDS:
        predictor = create_predictor(text, digits)
        recipes = {"pretraining", "transfer", "training"} & set(predictor.get_params())
        predictor.set_params(**dict.fromkeys(recipes, recipe))
        found[text] = predictor.fit(X[:200], y[:200], X_fp=X_fp[:200], y_fp=y_fp[:200])
    return found


def plain(weights, architecture, bits):
    """The network in float64, as its description says."""
    h = np.maximum(architecture @ weights["layers.0.0.weight"].T + weights["layers.0.0.bias"], 0)
    h = h + bits @ weights["quantize_fc.weight"].T + weights["quantize_fc.bias"]
    for name in ("layers.1.0", "layers.2.0"):
        h = np.maximum(h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"], 0)
    return (h @ weights["regressor.weight"].T + weights["regressor.bias"])[:, 0]


@pytest.mark.parametrize("text", KINDS)
def test_predictions_by_hand(text, networks, digits, digits_samples):
    predictor, X = networks[text], digits_samples.held_out[0][:300]
    if "engineered" in text:
        index = digits.block_index(X)
        drawn = digits.sample(1000, np.random.default_rng(0))
        known = engineered(digits, digits.block_index(drawn))
        spread = known.std(axis=0)
        spread[spread < 1e-9] = 1
        features = (engineered(digits, index) - known.mean(axis=0)) / spread
        assert np.abs(features).max() < 30
        per_block = features[:, : PER_BLOCK * digits.n_blocks].reshape(len(X), -1, PER_BLOCK)
        of = [0, 1, 2, 15]
        rest = features[:, PER_BLOCK * digits.n_blocks :]
        architecture = np.hstack([per_block[:, :, of].reshape(len(X), -1), rest[:, :-1]])
        bits = np.delete(per_block, of, axis=2).reshape(len(X), -1)
        bits = np.hstack([bits, rest[:, -1:]])
    else:
        Z, split = digits.one_hot(X), digits.n_architecture_inputs
        architecture, bits = Z[:, :split], Z[:, split:]
    if "stacked" in text:
        below = plain(predictor._below, architecture, np.zeros_like(bits))
        architecture = np.column_stack([architecture, below])
    expected = predictor.center + predictor.scale * plain(predictor.weights, architecture, bits)
    if "log-error" in text:
        expected = 101 - np.exp(-expected)
    np.testing.assert_allclose(predictor.predict(X), expected, atol=2e-3)


@pytest.mark.parametrize("text", KINDS)
def test_rows_and_batches_and_files(text, networks, digits, tmp_path):
    predictor = networks[text]
    X = digits.sample(300, np.random.default_rng(1))
    found = predictor.predict(X)
    order = np.random.default_rng(2).permutation(300)
    np.testing.assert_array_equal(predictor.predict(X[order]), found[order])
    np.testing.assert_array_equal([predictor.predict(row[None])[0] for row in X[:9]], found[:9])
    predictor.save(tmp_path / "p.safetensors")
    loaded = load_predictor(tmp_path / "p.safetensors", digits)
    np.testing.assert_array_equal(loaded.predict(X), found)
    assert repr(loaded) == repr(predictor)


def test_extremes_are_cut_off(digits):
    """Real inputs are cut off; the largest weights that files may hold change nothing of that."""
    plain_inputs = Inputs(digits, "engineered")
    inputs = plain_inputs.above(lambda index: np.full(len(index), 1e9))
    assert inputs.n_real == (plain_inputs.n_real[0] + 1, plain_inputs.n_real[1])
    rng = np.random.default_rng(0)
    weights = initial_weights(digits, rng, zero_bits=False, sizes=inputs.sizes)
    weights["layers.0.0.weight"][:, -1] = 1e6
    network = ExactNetwork(digits, check_weights(weights, digits, inputs.sizes), inputs)
    index = digits.block_index(digits.sample(50, rng))
    architecture, bits = inputs.real(index)
    assert (architecture[:, -1] == 30).all()
    expected = plain({k: v.astype(float) for k, v in weights.items()}, architecture, bits)
    np.testing.assert_allclose(network.of_blocks(index), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("text", "name", "change", "message"),
    [
        (KINDS[1], "inputs.center", lambda a: a[1:], "float64 numbers inputs.center"),
        (KINDS[1], "inputs.center", lambda a: a * np.nan, "inputs.center must be numbers of"),
        (KINDS[1], "inputs.scale", lambda a: a * 0, "inputs.scale must be numbers of 1e-09"),
        (KINDS[1], "inputs.scale", lambda a: a.astype("f4"), "float64 numbers inputs.scale"),
        (KINDS[1], "quantize_fc.weight", lambda a: a[:, 1:], "quantize_fc.weight has shape"),
        (KINDS[2], "fp.regressor.bias", lambda a: a * np.inf, "regressor.bias must hold"),
        (KINDS[2], "fp.layers.0.0.weight", lambda a: a[:, 1:], "layers.0.0.weight has shape"),
        (KINDS[3], "layers.0.0.weight", lambda a: a[:, 1:], "layers.0.0.weight has shape"),
    ],
)
def test_damaged_files(text, name, change, message, networks, digits, tmp_path):
    path = tmp_path / "p.safetensors"
    networks[text].save(path)
    arrays, header = read_state(path, digits)
    write_state(path, digits, arrays | {name: change(arrays[name])}, header)
    with pytest.raises(UserError, match=message):
        load_predictor(path, digits)
    del arrays[name]
    write_state(path, digits, arrays, header)
    with pytest.raises(UserError, match=r"does not hold a predictor|is missing"):
        load_predictor(path, digits)


def test_choices_are_checked(digits, digits_samples):
    X, y = digits_samples.mp
    with pytest.raises(UserError, match="features must be one-hot or engineered, not 'options'"):
        create_predictor("mlp-scratch:features=options", digits).fit(X, y)
    with pytest.raises(UserError, match="target must be accuracy or log-error, not 3"):
        create_predictor("mlp:target=3", digits).pretrain(X, y)
