"""Trees evaluated as arrays: the values of the libraries that grew them; what is refused."""

import numpy as np
import pytest
import xgboost
from sklearn.ensemble import HistGradientBoostingRegressor

from apq_moo.data.assets import SAMPLES, find_assets
from apq_moo.data.samples import load_samples
from apq_moo.errors import UserError
from apq_moo.predictors import create_predictor, load_predictor
from apq_moo.predictors.boosting import _scikit_learn_trees, _xgboost_trees
from apq_moo.predictors.storage import read_state, write_state
from apq_moo.space import load_space


def test_models_in_files_of_before_predict_as_xgboost_to_the_bit(tmp_path):
    """Such files hold XGBoost's own models, here grown on samples of fashion."""
    space = load_space("fashion")
    table = load_samples(find_assets(space).path(SAMPLES), space)
    predictor = create_predictor("xgboost-stacked:rounds=40:target=accuracy", space)
    (X_fp, y_fp), (X_mp, y_mp) = (
        tuple(part[:2000] for part in table.rows(of)) for of in ("fp", "mp")
    )
    path = tmp_path / "p.safetensors"
    predictor.fit(X_mp, y_mp, X_fp=X_fp, y_fp=y_fp).save(path)
    _, header = read_state(path, space)
    X = space.sample(10_000, np.random.default_rng(0))
    given = {"max_depth": 5, "eta": 0.1, "nthread": 1}
    boosters, stored = {}, {}
    for part, of, y in (("fp", X_fp, y_fp), ("mp", X_mp, y_mp)):
        rows = predictor._features(of)[:, : space.n_var + (part == "mp")].copy()
        boosters[part] = xgboost.train(given, xgboost.DMatrix(rows, y), num_boost_round=300)
        stored[part] = np.frombuffer(bytes(boosters[part].save_raw("ubj")), np.uint8)
    write_state(path, space, stored, header)
    again = load_predictor(path, space)
    features = again._features(X)
    for part, rows in (("fp", features[:, :-1].copy()), ("mp", features)):
        expected = boosters[part].inplace_predict(rows)
        trees = getattr(again, f"_{part}")
        np.testing.assert_array_equal(trees.predict(rows), expected)
        np.testing.assert_array_equal(trees.predict(rows[:1]), expected[:1])


@pytest.mark.parametrize("depth", [2, 3, 7])
def test_grown_trees_predict_as_their_libraries_to_the_bit(depth):
    rng = np.random.default_rng(depth)
    features = rng.normal(size=(700, 5)).astype(np.float32)
    y = features[:, 0] * features[:, 1] + rng.normal(size=700)
    model = HistGradientBoostingRegressor(max_depth=depth, max_iter=40).fit(features, y)
    trees = _scikit_learn_trees(model, 5)
    np.testing.assert_array_equal(trees.predict(features), model.predict(features))
    samples = xgboost.DMatrix(features, y)
    booster = xgboost.train({"max_depth": depth, "nthread": 1}, samples, num_boost_round=40)
    trees = _xgboost_trees(bytes(booster.save_raw("ubj")), 5)
    np.testing.assert_array_equal(trees.predict(features), booster.inplace_predict(features))


@pytest.mark.parametrize("name", ["xgboost-stacked", "gbdt"])
@pytest.mark.parametrize(
    ("part", "place", "value", "match"),
    [
        ("children", (0, 0), 2**30, "neither a root nor the child"),
        ("children", (0, 1), 0, "does not come after its parent"),
        ("children", (0, 0), 2, "neither a root nor the child|not come after"),
        ("roots", (0,), -5, "neither a root"),
        ("features", (0,), 10_000, "features other than"),
        ("features", (0,), -1, "features other than"),
        ("thresholds", (0,), np.nan, "not a number"),
        ("base", (0,), np.inf, "finite"),
    ],
)
def test_edited_trees_are_refused(name, part, place, value, match, fitted, digits, tmp_path):
    path = tmp_path / "predictor.safetensors"
    fitted[name].save(path)
    arrays, header = read_state(path, digits)
    arrays[f"mp.{part}"] = arrays[f"mp.{part}"].copy()
    arrays[f"mp.{part}"][place] = value
    write_state(path, digits, arrays, header)
    with pytest.raises(UserError, match=match) as caught:
        load_predictor(path, digits)
    assert "\n" not in str(caught.value)
