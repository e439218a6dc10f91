"""Predictors as scikit-learn's regressors: parameters, searches over them, deviations, frames."""

import copy

import numpy as np
import pytest
from sklearn.base import clone, is_regressor
from sklearn.ensemble import VotingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from apq_moo.errors import UserError
from apq_moo.predictors import (
    PREDICTORS,
    AdditivePredictor,
    GBDTPredictor,
    MLPPredictor,
    Predictor,
    Recipe,
    XGBoostPredictor,
    create_predictor,
    load_predictor,
)
from apq_moo.predictors.finding import SubspacePredictor
from apq_moo.predictors.storage import read_state, write_state
from apq_moo.space import embed, load_space, superspace
from apq_moo.testing import PredictorConformance

NAMES = list(PREDICTORS)
SEEN = {"features": "options", "target": "log-error"}
TREES = {
    "xgboost": {
        **SEEN,
        "rounds": 1500,
        "max_depth": 2,
        "learning_rate": 0.1,
        "colsample_bytree": 0.3,
        "subsample": 0.8,
        "min_child_weight": 3,
    },
    "gbdt": {
        **SEEN,
        "max_iter": 800,
        "max_depth": 2,
        "learning_rate": 0.1,
        "max_features": 0.3,
        "min_samples_leaf": 5,
        "l2_regularization": 1.0,
    },
}
NETWORK = {"features": "one-hot", "target": "accuracy"}
PROCESS = {"steps": 50, "learning_rate": 0.06, "likelihood_rows": 1000, "max_rows": 5000}
DEFAULTS = {
    "additive": {},
    "ensemble": {"members": "3*gp+xgboost-stacked"},
    "gp": {**PROCESS, "rounds": 1500},
    "gp-scratch": PROCESS,
    "mlp": {
        **NETWORK,
        "pretraining": Recipe(128, 3e-3, 0.0, 25, 600, 1.0, 0.05),
        "transfer": Recipe(64, 3e-4, 1e-3, 25, 600, 1.0, 0.05),
    },
    "mlp-scratch": {**NETWORK, "training": Recipe(64, 2e-3, 2e-3, 25, 600, 1.0, 0.05)},
    "mlp-stacked": {
        **NETWORK,
        "pretraining": Recipe(128, 3e-3, 0.0, 25, 600, 1.0, 0.05),
        "training": Recipe(64, 2e-3, 2e-3, 25, 600, 1.0, 0.05),
    },
} | {f"{name}{kind}": values for name, values in TREES.items() for kind in ("", "-stacked")}
OTHER = {
    "xgboost": {
        "features": "engineered",
        "target": "accuracy",
        "rounds": 10,
        "max_depth": 1,
        "learning_rate": 0.5,
        "colsample_bytree": 0.9,
        "subsample": 0.3,
        "min_child_weight": 20,
    },
    "gbdt": {
        "features": "engineered",
        "target": "accuracy",
        "max_iter": 10,
        "max_depth": 1,
        "learning_rate": 0.5,
        "max_features": 0.9,
        "min_samples_leaf": 30,
        "l2_regularization": 50.0,
    },
    "mlp": {
        "features": "engineered",
        "target": "log-error",
        "pretraining__lr": 1e-2,
        "pretraining__batch": 7,
        "transfer__lr": 1e-2,
        "transfer__bits_lr": 1e-2,
        "transfer__epochs": 30,
        "transfer__min_steps": 40,
        "transfer__weight_decay": 9.0,
        "transfer__warmup": 0.5,
    },
    "mlp-scratch": {"training__lr": 1e-2, "features": "engineered", "target": "log-error"},
    "mlp-stacked": {"training__lr": 1e-2, "pretraining__lr": 1e-2, "features": "engineered"},
    "gp": {"steps": 2, "learning_rate": 0.3, "likelihood_rows": 20, "max_rows": 30, "rounds": 5},
    "gp-scratch": {"steps": 2},
    "ensemble": {"members": "additive+xgboost-stacked/rounds=20"},
}


def samples_of(samples, n=80):
    """The first of each kind, as what ``fit`` takes."""
    (X, y), (X_fp, y_fp) = samples.mp, samples.fp
    return X[:n], y[:n], {"X_fp": X_fp[: n + 1], "y_fp": y_fp[: n + 1]}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_arguments_with_their_defaults(name, digits):
    predictor = create_predictor(name, digits, seed=3)
    assert predictor.get_params(deep=False) == {"space": digits, "seed": 3, **DEFAULTS[name]}
    assert is_regressor(predictor)
    assert predictor._estimator_type == "regressor"  # scikit-learn before 1.6


def test_recipes_are_opened(digits):
    parameters = MLPPredictor(digits).get_params()
    assert parameters["transfer__lr"] == 3e-4
    assert parameters["pretraining__batch"] == 128
    assert len(parameters) == 2 + 2 + 2 + 2 * 7


@pytest.mark.parametrize(
    ("name", "parameter"), [(name, parameter) for name in OTHER for parameter in OTHER[name]]
)
def test_every_parameter_matters(name, parameter, brief, digits, digits_samples):
    X, y, fp = samples_of(digits_samples)
    predictor = brief(name, digits).fit(X, y, **fp)
    usual = predictor.predict(X)
    predictor.set_params(**{parameter: OTHER[name][parameter]})
    assert predictor.get_params()[parameter] == OTHER[name][parameter]
    assert (predictor.fit(X, y, **fp).predict(X) != usual).any()
    assert (brief(name, digits).fit(X, y, **fp).predict(X) == usual).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_search_finds_what_one_finds_by_hand(name, brief, digits, digits_samples):
    X, y, fp = samples_of(digits_samples)
    untaught = brief(name, digits)
    parameter, value = next(iter(OTHER.get(name.removesuffix("-stacked"), {"seed": 1}).items()))
    values = [untaught.get_params()[parameter], value]
    # The full-precision samples are more in number, so that each fold gets all of them.
    search = GridSearchCV(untaught, {parameter: values}, cv=3).fit(X, y, **fp)
    means = [
        np.mean(
            [
                clone(untaught)
                .set_params(**{parameter: value})
                .fit(X[train], y[train], **fp)
                .score(X[test], y[test])
                for train, test in KFold(3).split(X)
            ]
        )
        for value in values
    ]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], means, rtol=1e-12)
    best = values[int(np.argmax(means))]
    assert search.best_params_ == {parameter: best}
    by_hand = brief(name, digits).set_params(**{parameter: best}).fit(X, y, **fp)
    np.testing.assert_array_equal(search.predict(X), by_hand.predict(X))
    check_is_fitted(search.best_estimator_)


def test_pipelines_and_ensembles(brief, digits, digits_samples):
    X, y, _ = samples_of(digits_samples)
    untaught = brief("xgboost", digits)
    expected = clone(untaught).fit(X, y).predict(X)
    # Genes that come as reals are rounded on their way.
    pipeline = Pipeline([("round", FunctionTransformer(_rounded)), ("predictor", untaught)])
    np.testing.assert_array_equal(pipeline.fit(X + 0.25, y).predict(X - 0.25), expected)
    scores = cross_val_score(pipeline, X, y, cv=3, n_jobs=2)
    np.testing.assert_array_equal(scores, cross_val_score(untaught, X, y, cv=3))
    additive = AdditivePredictor(digits)
    both = VotingRegressor([("trees", clone(untaught)), ("sum", additive)]).fit(X, y)
    mean = (expected + clone(additive).fit(X, y).predict(X)) / 2
    np.testing.assert_allclose(both.predict(X), mean, rtol=1e-12)


def _rounded(X):
    return np.rint(X).astype(int)


def test_score_is_r2(digits, digits_samples):
    (X, y), (held_out, accuracies) = digits_samples.mp, digits_samples.held_out
    predictor = AdditivePredictor(digits).fit(X, y)
    residual = accuracies - predictor.predict(held_out)
    expected = 1 - (residual**2).sum() / ((accuracies - accuracies.mean()) ** 2).sum()
    assert predictor.score(held_out, accuracies) == pytest.approx(expected, rel=1e-12)
    assert 0.8 < expected < 1
    weights = np.arange(len(accuracies)) < 500
    assert predictor.score(held_out, accuracies, weights) == pytest.approx(
        predictor.score(held_out[:500], accuracies[:500]), rel=1e-12
    )


def test_changed_parameters_forget_what_was_learnt(brief, digits, digits_samples):
    X, y, fp = samples_of(digits_samples)
    predictor = brief("mlp", digits).fit(X, y, **fp)
    with pytest.raises(UserError, match=r"MLPPredictor has no parameter 'transfer__rate'; it has "):
        predictor.set_params(transfer__batch=3, transfer__rate=1.0)
    with pytest.raises(UserError, match="lr must be at least 0, not -1"):
        predictor.set_params(seed=5, transfer__lr=-1)
    with pytest.raises(UserError, match=r"from 0 to 2\^31 - 1, not -1"):
        predictor.set_params(transfer__batch=3, seed=-1)
    # What is refused changes nothing.
    assert (predictor.seed, predictor.transfer.batch) == (0, 32)
    assert predictor.predict(X).shape == y.shape
    recipe = Recipe(batch=5, lr=1.0, bits_lr=2.0)
    predictor.set_params(transfer__lr=0.5, transfer=recipe, seed=np.int64(7))
    assert predictor.transfer == Recipe(batch=5, lr=0.5, bits_lr=2.0)
    assert recipe.lr == 1.0
    with pytest.raises(UserError, match="not fitted"):
        predictor.predict(X)
    with pytest.raises(UserError, match="give X_fp and y_fp"):
        predictor.fit(X, y)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("xgboost", {"max_depth": -1}, r"XGBoostPredictor\('digits', max_depth=-1\) cannot be"),
        ("xgboost", {"subsample": 2.0}, "subsample exceed bound"),
        ("xgboost", {"rounds": 0}, "rounds must be at least 1, not 0"),
        ("xgboost", {"rounds": "many"}, "cannot be fitted"),
        ("gbdt", {"max_iter": 0}, r"'max_iter' parameter .* must be an int in the range \[1, inf"),
        ("gbdt", {"max_features": "all"}, "'max_features' parameter"),
    ],
)
def test_parameters_that_fitting_refuses(name, parameters, message, digits, digits_samples):
    X, y, _ = samples_of(digits_samples)
    with pytest.raises(UserError, match=message) as caught:
        PREDICTORS.get(name)(digits, **parameters).fit(X, y)
    assert "\n" not in str(caught.value)


def test_malformed_recipes():
    for name, value in {"batch": 0, "epochs": 0, "lr": -0.1, "warmup": float("nan")}.items():
        with pytest.raises(UserError, match=f"a recipe's {name} must be at least [01], not"):
            Recipe(**{"batch": 32, "lr": 0.1, "bits_lr": 0.1, name: value})


def test_what_differs_from_the_defaults_is_shown(digits):
    assert repr(XGBoostPredictor(digits)) == "XGBoostPredictor('digits')"
    shown = repr(GBDTPredictor(digits, seed=2, max_iter=9))
    assert shown == "GBDTPredictor('digits', seed=2, max_iter=9)"


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["xgboost", "gbdt-stacked", "mlp"])
def test_parameters_are_stored(name, digits, digits_samples, tmp_path):
    X, y, fp = samples_of(digits_samples)
    parameters = {
        "xgboost": {"rounds": np.int64(7), "subsample": np.float32(0.5)},
        "gbdt-stacked": {"max_iter": 12, "learning_rate": 0.3},
        "mlp": dict.fromkeys(("pretraining", "transfer"), Recipe(16, 1e-3, 0, 1, min_steps=9)),
    }[name]
    saved = PREDICTORS.get(name)(digits, seed=np.int32(4), **parameters).fit(X, y, **fp)
    saved.save(tmp_path / "saved")
    loaded = load_predictor(tmp_path / "saved", digits)
    assert loaded.get_params(deep=False) == saved.get_params(deep=False)
    np.testing.assert_array_equal(loaded.predict(X), saved.predict(X))
    again = clone(loaded).fit(X, y, **fp)
    np.testing.assert_array_equal(again.predict(X), saved.predict(X))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("ensemble", "mlp-stacked")])
def test_files_of_before_parameters_were_stored(name, fitted, digits, digits_samples, tmp_path):
    """Their targets were accuracies."""
    path, predictor = tmp_path / "old", fitted[name]
    if predictor.get_params().get("target", "accuracy") != "accuracy":
        X, y, fp = samples_of(digits_samples)
        predictor = PREDICTORS.get(name)(digits, seed=1, target="accuracy").fit(X, y, **fp)
    predictor.save(path)
    arrays, header = read_state(path, digits)
    stored = header.pop("parameters")
    assert set(stored) == set(DEFAULTS[name])
    write_state(path, digits, arrays, header)
    old = load_predictor(path, digits)
    assert old.get_params(deep=False) == predictor.get_params(deep=False)
    X = digits_samples.held_out[0]
    np.testing.assert_array_equal(old.predict(X), predictor.predict(X))


@pytest.mark.parametrize(
    ("stored", "message"),
    [({"depth": 3}, "'depth'"), ({"rounds": 5, "seed": 1}, "multiple values")],
)
def test_files_with_other_parameters(stored, message, fitted, digits, tmp_path):
    path = tmp_path / "odd"
    fitted["xgboost"].save(path)
    arrays, header = read_state(path, digits)
    write_state(path, digits, arrays, header | {"parameters": stored})
    with pytest.raises(UserError, match=f"does not hold a predictor 'xgboost': .*{message}"):
        load_predictor(path, digits)


# -- a kind of one's own ---------------------------------------------------------------------------


class Bayesian(Predictor):
    """Bayesian ridge regression; the deviation is that of an accuracy, with its noise."""

    name = "bayesian"
    has_std = True

    def __init__(self, space, *, seed=0, prior=1e-6):
        super().__init__(space, seed=seed)
        self.prior = prior

    def _fit(self, X, y):
        with threadpool_limits(1):  # on two threads the last bits are others
            model = BayesianRidge(lambda_1=self.prior).fit(self.space.one_hot(X).astype(float), y)
        mean = np.asarray(model.X_offset_)
        self.arrays = {"weights": model.coef_, "covariance": model.sigma_, "mean": mean}
        self.settings = {"intercept": float(model.intercept_), "noise": 1 / float(model.alpha_)}

    def _predict(self, X):
        return self._predict_std(X)[0]

    def _predict_std(self, X):
        weights, covariance = self.arrays["weights"], self.arrays["covariance"]
        Z = self.space.one_hot(X).astype(float)
        mean = (Z * weights).sum(axis=1) + self.settings["intercept"]
        # Row by row: a product over the batch would round differently in another one.
        variance = [((z @ covariance) * z).sum() for z in Z - self.arrays["mean"]]
        return mean, np.sqrt(np.array(variance) + self.settings["noise"])

    def _state(self):
        return self.arrays, self.settings

    def _restore(self, arrays, settings):
        self.arrays, self.settings = arrays, settings


@pytest.fixture
def bayesian(monkeypatch):
    monkeypatch.setitem(PREDICTORS._items, "bayesian", Bayesian)
    return Bayesian


class TestBayesian(PredictorConformance):
    @pytest.fixture
    def make(self, bayesian, space, digits_samples):
        X, y, _ = samples_of(digits_samples)
        return lambda seed: bayesian(space, seed=seed).fit(X, y)


def test_deviations_are_those_of_the_model(digits, digits_samples):
    """Ridge regression is a Gaussian process, whose inputs scikit-learn 1.6 does not centre."""
    (X, y), (held_out, accuracies) = digits_samples.mp, digits_samples.held_out
    mean, std = Bayesian(digits).fit(X, y).predict(held_out, return_std=True)
    Z, Z_held_out = (digits.one_hot(rows).astype(float) for rows in (X, held_out))
    model = BayesianRidge().fit(Z, y)
    kernel = ConstantKernel(1 / model.lambda_) * DotProduct(0.0)
    process = GaussianProcessRegressor(kernel, alpha=1 / model.alpha_, optimizer=None)
    process.fit(Z - Z.mean(axis=0), y - y.mean())
    rest, spread = process.predict(Z_held_out - Z.mean(axis=0), return_std=True)
    np.testing.assert_allclose(mean, y.mean() + rest, rtol=1e-7)
    np.testing.assert_allclose(std, np.sqrt(spread**2 + 1 / model.alpha_), rtol=1e-7)
    assert np.mean(np.abs(accuracies - mean) < 2 * std) == pytest.approx(0.95, abs=0.03)


def test_deviations_through_a_pipeline(digits, digits_samples):
    X, y, _ = samples_of(digits_samples)
    pipeline = Pipeline([("predictor", Bayesian(digits))]).fit(X, y)
    found = pipeline.predict(X, return_std=True)
    np.testing.assert_array_equal(found, Bayesian(digits).fit(X, y).predict(X, return_std=True))


@pytest.mark.parametrize("name", [name for name in NAMES if not PREDICTORS.get(name).has_std])
def test_predictors_without_deviations_name_those_that_have(name, fitted, digits, request):
    X = digits.sample(2, np.random.default_rng(0))
    message = f"predictor '{name}' has no standard deviations; those that have: "
    with pytest.raises(UserError, match=f"^{message}ensemble, gp-scratch, gp$"):
        fitted[name].predict(X, return_std=True)
    request.getfixturevalue("bayesian")
    with pytest.raises(UserError, match=f"^{message}ensemble, gp-scratch, gp, bayesian$"):
        fitted[name].predict(X, return_std=True)


def test_parameters_that_are_not_plain_cannot_be_saved(digits, digits_samples, tmp_path):
    X, y, _ = samples_of(digits_samples)
    predictor = Bayesian(digits, prior=1e-6).fit(X, y)
    predictor.prior = object()
    with pytest.raises(UserError, match=r"the parameter prior cannot be saved: .* not <object"):
        predictor.save(tmp_path / "x")
    assert not list(tmp_path.iterdir())


# -- data frames and parts of spaces ---------------------------------------------------------------


def test_data_frames(brief, digits, digits_samples):
    pandas = pytest.importorskip("pandas")
    X, y, _ = samples_of(digits_samples)
    names = [gene.name for gene in digits.genes]
    frame = pandas.DataFrame(X, columns=names)[names[::-1]]
    predictor = brief("xgboost", digits)
    expected = clone(predictor).fit(X, y).predict(X)
    np.testing.assert_array_equal(predictor.fit(frame, pandas.Series(y)).predict(frame), expected)
    np.testing.assert_array_equal(
        cross_val_score(predictor, frame, y, cv=3), cross_val_score(predictor, X, y, cv=3)
    )
    with pytest.raises(UserError, match=r"the column 'block0\.kernel' is missing"):
        predictor.predict(frame.drop(columns="block0.kernel"))


def test_predictors_of_a_part_are_regressors_too(brief):
    part = load_space("tiny")
    whole = superspace(part)
    X = part.sample(60, np.random.default_rng(0))
    y = 60 + X @ np.random.default_rng(1).normal(0, 0.3, part.n_var)
    for name in ("additive", "xgboost-stacked"):
        of_whole = brief(name, whole)
        predictor = SubspacePredictor(part, of_whole)
        twin = clone(predictor)
        assert twin.of_whole is not of_whole
        assert twin.get_params()["of_whole__seed"] == 0
        twin.set_params(of_whole__seed=3).fit(X, y, X_fp=X, y_fp=y)
        assert of_whole.seed == 0
        rows, rows_fp = embed(part, X), embed(part, part.architecture(X))
        expected = brief(name, whole, 3).fit(rows, y, X_fp=rows_fp, y_fp=y)
        np.testing.assert_array_equal(twin.predict(X), expected.predict(rows))
        assert twin.score(X, y) == expected.score(rows, y)
        assert copy.deepcopy(twin).space is part
        with pytest.raises(UserError, match="not fitted"):
            predictor.predict(X)
        with pytest.raises(UserError, match="save that one"):
            twin.save("nowhere")
