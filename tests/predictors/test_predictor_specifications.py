"""Predictors by name and parameters, and what trees see and are fitted to."""

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.predictors import (
    MLPPredictor,
    StackedXGBoostPredictor,
    create_predictor,
    find_predictor,
    is_specification,
    load_predictor,
)
from apq_moo.predictors.features import engineered, option_values
from apq_moo.predictors.storage import read_state, write_state
from apq_moo.predictors.targets import from_target, slope, to_target
from apq_moo.problems import resolve


def test_a_name_with_parameters(digits):
    text = "xgboost-stacked:target=log-error:rounds=5:learning_rate=1e-1:features=engineered"
    found = create_predictor(text, digits, seed=3)
    assert isinstance(found, StackedXGBoostPredictor)
    parameters = {"target": "log-error", "rounds": 5, "features": "engineered", "seed": 3}
    assert {name: found.get_params()[name] for name in parameters} == parameters
    network = create_predictor("mlp:transfer__lr=0.5:transfer__epochs=2", digits)
    assert isinstance(network, MLPPredictor)
    assert (network.transfer.lr, network.transfer.epochs) == (0.5, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oracle", "unknown predictor 'oracle'"),
        ("oracle:target=log-error", "unknown predictor 'oracle'"),
        ("xgboost:round=3", "has no parameter 'round'; it has space, seed, features"),
        ("xgboost:", "write NAME:PARAMETER=VALUE"),
        ("xgboost:rounds", "'rounds' in 'xgboost:rounds': write NAME:PARAMETER=VALUE"),
        ("xgboost:seed=3", "write NAME:PARAMETER=VALUE"),
    ],
)
def test_refused(text, message, digits):
    with pytest.raises(UserError, match=message):
        create_predictor(text, digits)


def test_what_is_a_specification():
    assert all(map(is_specification, ["xgboost", "xgboost:target=log-error", "xgboost:x=1"]))
    assert not any(map(is_specification, ["xgboost:x", "C:\\mlp=1", "xgboost.safetensors", ""]))


@pytest.mark.parametrize("name", ["xgboost", "xgboost-stacked", "gbdt"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("target=log", "target must be accuracy or log-error, not 'log'"),
        ("features=3", "features must be options or engineered, not 3"),
    ],
)
def test_unknown_choices_are_refused_in_fitting_and_in_files(
    name, change, message, brief, digits, digits_samples, tmp_path
):
    X, y = (part[:60] for part in digits_samples.mp)
    with pytest.raises(UserError, match=message):
        create_predictor(f"{name}:{change}", digits).fit(X, y, X_fp=X, y_fp=y)
    path = tmp_path / "p.safetensors"
    brief(name, digits).fit(X, y, X_fp=X, y_fp=y).save(path)
    arrays, header = read_state(path, digits)
    parameter, _, value = change.partition("=")
    header["parameters"][parameter] = int(value) if value.isdigit() else value
    write_state(path, digits, arrays, header)
    with pytest.raises(UserError, match=message):
        load_predictor(path, digits)


def test_found_by_its_specification(digits):
    found = find_predictor(digits, "xgboost:rounds=3:target=log-error")
    assert (found.rounds, found.target) == (3, "log-error")
    X = digits.sample(5, np.random.default_rng(0))
    source = resolve("xgboost:rounds=3:target=log-error", digits)
    assert source.name == "xgboost:rounds=3:target=log-error"
    expected = source.predict_blocks(digits.block_index(X))
    np.testing.assert_array_equal(found.predict(X), expected)


def test_files_of_before_trees_had_a_choice(digits, digits_samples, tmp_path):
    """They hold none, and were fitted to accuracies on options, whatever is the default now."""
    X, y = digits_samples.mp
    given = {"features": "options", "target": "accuracy", "max_depth": 3}
    predictor = StackedXGBoostPredictor(digits, rounds=5, **given).fit(X, y, X_fp=X, y_fp=y)
    path = tmp_path / "p.safetensors"
    predictor.save(path)
    arrays, header = read_state(path, digits)
    for name in ("features", "target"):
        del header["parameters"][name]
    write_state(path, digits, arrays, header)
    loaded = load_predictor(path, digits)
    assert repr(loaded) == repr(predictor)
    np.testing.assert_array_equal(loaded.predict(X), predictor.predict(X))


@pytest.mark.parametrize("name", ["xgboost-stacked", "gbdt-stacked"])
def test_trees_on_engineered_features_and_logarithms(name, digits, digits_samples):
    """As the library grows them by hand on the same features and targets."""
    (X, y), (X_fp, y_fp) = digits_samples.mp, digits_samples.fp
    held_out = digits_samples.held_out[0][:50]
    size = {"xgboost-stacked": "rounds", "gbdt-stacked": "max_iter"}[name]
    text = f"{name}:features=engineered:target=log-error:{size}=30"
    found = create_predictor(text, digits).fit(X, y, X_fp=X_fp, y_fp=y_fp)

    def by_hand(features, target, at):
        twin = create_predictor(text, digits)
        return twin._grow(features.astype(np.float32), target).predict(at.astype(np.float32))

    both = np.concatenate([X, held_out])
    options = option_values(digits, X_fp), option_values(digits, digits.architecture(both))
    full = by_hand(options[0], y_fp, options[1])
    stacked = np.column_stack([engineered(digits, digits.block_index(both)), full])
    target = by_hand(stacked[: len(X)], -np.log(101 - y), stacked[len(X) :])
    expected = 101 - np.exp(-target.astype(float))
    np.testing.assert_allclose(found.predict(held_out), expected, rtol=1e-12)


def test_targets():
    accuracies = np.array([0.0, 50.0, 99.5, 100.0])
    target = to_target(accuracies, "log-error")
    np.testing.assert_allclose(target, -np.log([101, 51, 1.5, 1]))
    np.testing.assert_allclose(from_target(target, "log-error"), accuracies, atol=1e-12)
    step = 1e-6
    found = (from_target(target + step, "log-error") - accuracies) / step
    np.testing.assert_allclose(found[1:], slope(accuracies, "log-error")[1:], rtol=1e-4)
    assert from_target(np.array([-1e6, -5.0]), "log-error").tolist() == [0, 0]
    np.testing.assert_array_equal(from_target(accuracies, "accuracy"), accuracies)
    np.testing.assert_array_equal(slope(accuracies, "accuracy"), np.ones(4))
