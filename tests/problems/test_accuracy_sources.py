"""Every source keeps the promises of its kind, and each name has one way to it."""

import pickle

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.predictors import find_predictor
from apq_moo.problems import (
    SOURCES,
    AccuracySource,
    additive_surrogate,
    exact_source,
    is_measured,
    resolve,
)
from apq_moo.space import load_space
from apq_moo.testing import SourceConformance

DIGITS = load_space("digits")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))


def squares(X):
    return 50 + (X**2).sum(axis=1) % 40


class TestPredicted(SourceConformance):
    @pytest.fixture(params=["mlp", "xgboost-stacked", "additive"])
    def source(self, request):
        return resolve(request.param, DIGITS)


class TestTabulated(SourceConformance):
    @pytest.fixture
    def source(self):
        return resolve("table", load_space("tiny"))


class TestFunction(SourceConformance):
    @pytest.fixture
    def source(self):
        return resolve(squares, DIGITS)


class TestSupernet(SourceConformance):
    @pytest.fixture
    def source(self):
        return resolve("supernet", DIGITS, on="cpu")

    @pytest.fixture
    def networks(self):
        return DIGITS.sample(2, np.random.default_rng(0))


class TestPartOfASpace(SourceConformance):
    @pytest.fixture
    def source(self):
        return resolve("mlp", load_space("tiny"))


def test_a_file_an_object_and_a_name_give_the_same(tmp_path):
    predictor = find_predictor(DIGITS, "mlp")
    predictor.save(tmp_path / "mine.safetensors")
    X = DIGITS.sample(20, np.random.default_rng(1))
    named = resolve("mlp", DIGITS)
    for other in (str(tmp_path / "mine.safetensors"), predictor, named):
        np.testing.assert_array_equal(resolve(other, DIGITS).predict(X), named.predict(X))
    assert resolve(named, DIGITS) is named
    assert "predictors/mlp.safetensors" in named.digest
    assert list(resolve(tmp_path / "mine.safetensors", DIGITS).digest) == [
        str(tmp_path / "mine.safetensors")
    ]


def test_what_is_no_source_is_refused():
    with pytest.raises(
        UserError, match=r"unknown predictor 'mlq'; known: .*mlp.*, table, supernet"
    ):
        resolve("mlq", DIGITS)
    with pytest.raises(UserError, match="neither a name, a path"):
        resolve(7, DIGITS)
    with pytest.raises(
        UserError,
        match=r"another space .'digits'., not to this 'tiny': images was 'digits', is",
    ):
        resolve(resolve("mlp", DIGITS), load_space("tiny"))


def test_plug_in_sources_are_found_by_name(monkeypatch):
    class Constant(AccuracySource):
        def predict_blocks(self, index):
            return np.full(len(index), 42.0)

    monkeypatch.setitem(
        SOURCES._items, "constant", lambda space, _assets, _on: Constant("constant", space)
    )
    assert resolve("constant", DIGITS).predict(DIGITS.smallest()[None]).tolist() == [42.0]
    assert is_measured("constant")
    assert not is_measured("mlp")


def test_surrogates_add_up():
    own = resolve("additive", DIGITS)
    X = DIGITS.sample(30, np.random.default_rng(2))
    for source in (own, None, resolve("mlp", DIGITS)):
        found = additive_surrogate(source, DIGITS)
        np.testing.assert_array_equal(found.predict(X), own.predict(X))
    tiny = load_space("tiny")
    table = resolve("table", tiny)
    networks, accuracies = table.samples()
    for source in (table, resolve("mlp", tiny), None):
        found = additive_surrogate(source, tiny)
        error = found.predict(networks) - accuracies
        assert np.sqrt((error**2).mean()) < 0.5 * accuracies.std()


def test_exact_sources():
    assert exact_source(load_space("tiny")).exact
    assert not exact_source(load_space("tiny")).measures
    supernet = exact_source(DIGITS, on="cpu")
    assert supernet.measures
    assert supernet.where == "on cpu"
    assert supernet.estimate_s(DIGITS.largest()[None]) > 0
    assert resolve("mlp", DIGITS).estimate_s(DIGITS.largest()[None]) == 0


def test_a_measuring_source_can_be_pickled():
    source = resolve("supernet", DIGITS, on="cpu")
    source.callback = lambda _done: None
    X = DIGITS.sample(2, np.random.default_rng(0))
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301 - of this process
    np.testing.assert_array_equal(copy.measure(X), source.measure(X))
    assert copy.digest == source.digest
