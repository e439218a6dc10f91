"""Trees evaluated as arrays: the values of the libraries that grew them; what is refused."""

import subprocess
import sys

import numpy as np
import pytest
import xgboost
from safetensors import safe_open
from sklearn.ensemble import HistGradientBoostingRegressor

from apq_moo.data.assets import find_assets
from apq_moo.errors import UserError
from apq_moo.predictors import load_predictor
from apq_moo.predictors.boosting import _scikit_learn_trees, _xgboost_trees
from apq_moo.predictors.storage import read_state, write_state
from apq_moo.space import load_space


@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_shipped_models_predict_as_xgboost_to_the_bit(name):
    space = load_space(name)
    path = find_assets(space).folder / "predictors" / "xgboost-stacked.safetensors"
    predictor = load_predictor(path, space)
    X = space.sample(10_000, np.random.default_rng(0))
    features = predictor._features(X)
    with safe_open(path, framework="np") as stored:
        for part, rows in (("fp", features[:, :-1].copy()), ("mp", features)):
            booster = xgboost.Booster({"nthread": 1})
            booster.load_model(bytearray(stored.get_tensor(part).tobytes()))
            expected = booster.inplace_predict(rows)
            trees = getattr(predictor, f"_{part}")
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


_DAMAGE = """
import sys
from pathlib import Path

import numpy as np

from apq_moo.data.assets import find_assets
from apq_moo.errors import UserError
from apq_moo.predictors import load_predictor
from apq_moo.predictors.storage import read_state, write_state
from apq_moo.space import load_space

digits, path = load_space("digits"), Path(sys.argv[1])
source = find_assets(digits).folder / "predictors" / "xgboost-stacked.safetensors"
X = digits.sample(5, np.random.default_rng(0))
refused = 0
for case in range(int(sys.argv[2])):
    rng = np.random.default_rng(case)
    arrays, header = read_state(source, digits)
    part = ["mp", "fp"][case % 2]
    model = bytearray(arrays[part].tobytes())
    # Half of the cases damage the links of a tree.
    at = model.find(b"_children", int(rng.integers(len(model)))) + 22 if case % 4 < 2 else None
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(len(model))) if at is None else at + int(rng.integers(60))
        model[place % len(model)] = int(rng.integers(256))
    if case % 10 == 9:
        del model[int(rng.integers(len(model))):]
    arrays[part] = np.frombuffer(bytes(model), dtype=np.uint8)
    write_state(path, digits, arrays, header)
    try:
        load_predictor(path, digits).predict(X)
    except UserError as error:
        assert "\\n" not in str(error), case
        assert len(str(error).replace(str(path), "")) < 300, case
        refused += 1
print(refused)
"""


@pytest.mark.parametrize("cases", [60, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_models_with_right_checksums_never_crash(cases, tmp_path):
    command = [sys.executable, "-c", _DAMAGE, str(tmp_path / "damaged.safetensors"), str(cases)]
    done = subprocess.run(  # noqa: S603 - runs this interpreter
        command, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > cases / 4
