"""Ensembles: what their members say, weighted, and how they are kept."""

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.predictors import EnsemblePredictor, create_predictor, load_predictor
from apq_moo.predictors.storage import read_state, write_state

MEMBERS = "2*gp-scratch/steps=3+0.5*additive+1.5*xgboost-stacked/rounds=20/target=log-error"


@pytest.fixture(scope="module")
def fit(digits, digits_samples):
    (X, y), (X_fp, y_fp) = digits_samples.mp, digits_samples.fp
    return lambda predictor: predictor.fit(X[:200], y[:200], X_fp=X_fp[:300], y_fp=y_fp[:300])


@pytest.fixture(scope="module")
def ensemble(digits, fit):
    return fit(EnsemblePredictor(digits, seed=5, members=MEMBERS))


def test_the_mixture_of_its_members(ensemble, digits, digits_samples, fit):
    X = digits_samples.held_out[0][:40]
    process = fit(create_predictor("gp-scratch:steps=3", digits, seed=5))
    members = [
        process,
        fit(create_predictor("additive", digits, seed=6)),
        fit(create_predictor("xgboost-stacked:rounds=20:target=log-error", digits, seed=7)),
    ]
    weights, predictions = np.array([0.5, 0.125, 0.375]), [m.predict(X) for m in members]
    mean, std = ensemble.predict(X, return_std=True)
    np.testing.assert_allclose(mean, weights @ predictions)
    # The second moment of the mixture, where all have the variance of the one that knows its own.
    own = process.predict(X, return_std=True)[1] ** 2
    second = weights @ [own + prediction**2 for prediction in predictions]
    np.testing.assert_allclose(std, np.sqrt(second - mean**2))
    np.testing.assert_array_equal(ensemble.predict_blocks(digits.block_index(X)), mean)


def test_members_that_know_no_deviation_still_disagree(digits, digits_samples, fit):
    names = ("xgboost:rounds=20", "xgboost:rounds=20")
    found = fit(EnsemblePredictor(digits, members="+".join(names).replace(":", "/")))
    X = digits_samples.held_out[0][:40]
    first, second = (fit(create_predictor(names[i], digits, seed=i)).predict(X) for i in (0, 1))
    assert not found.transfers
    mean, std = found.predict(X, return_std=True)
    np.testing.assert_allclose(mean, (first + second) / 2)
    np.testing.assert_allclose(std, np.abs(first - second) / 2, atol=1e-6)


def test_ranks_no_worse_than_the_worst_of_its_members(ensemble, digits_samples):
    X, y = digits_samples.held_out
    errors = [np.square(m.predict(X) - y).mean() for m in ensemble._predictors]
    assert np.square(ensemble.predict(X) - y).mean() < max(errors)


def test_parameters_of_members_are_kept(ensemble, digits, tmp_path):
    ensemble.save(tmp_path / "e.safetensors")
    loaded = load_predictor(tmp_path / "e.safetensors", digits)
    assert [m.get_params() for m in loaded._predictors] == [
        m.get_params() for m in ensemble._predictors
    ]
    assert loaded.transfers


@pytest.mark.parametrize(
    "members",
    [
        *("gp", "", "gp+", "0*gp+additive", "-1*gp+additive", "nan*gp+additive", "x*gp+additive"),
        *("ensemble+gp", "gp+2*ensemble/members=a", "+".join(["additive"] * 33), 3, None),
    ],
)
def test_refused_members(members, digits):
    with pytest.raises(UserError, match="write 2 to 32 predictors other than ensembles"):
        EnsemblePredictor(digits, members=members)
    with pytest.raises(UserError, match="write 2 to 32 predictors other than ensembles"):
        EnsemblePredictor(digits).set_params(members=members)


def test_unknown_members(digits):
    with pytest.raises(UserError, match="unknown predictor 'oracle'"):
        EnsemblePredictor(digits, members="gp+oracle")
    with pytest.raises(UserError, match="no parameter 'size'"):
        EnsemblePredictor(digits, members="gp/size=3+gp")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h["settings"]["members"].pop(), "needs what 3 members have learnt"),
        (lambda h: h["settings"].update(members=3), "needs what 3 members have learnt"),
        (lambda h: h["settings"]["members"][0].clear(), "does not hold a predictor 'ensemble'"),
        (lambda h: h["parameters"].update(members="gp"), "write 2 to 32 predictors"),
        (lambda h: h["parameters"].update(members="gp+gp+gp"), "does not hold a predictor"),
        (
            lambda h: h["settings"]["members"][2]["parameters"].update(target="x"),
            "target must be accuracy or log-error",
        ),
    ],
)
def test_damaged_files(change, message, ensemble, digits, tmp_path):
    path = tmp_path / "e.safetensors"
    ensemble.save(path)
    arrays, header = read_state(path, digits)
    change(header)
    write_state(path, digits, arrays, header)
    with pytest.raises(UserError, match=message):
        load_predictor(path, digits)
