"""Each check of the conformance suites fails for a plug-in that breaks just that promise."""

import subprocess
import sys
from collections import Counter, deque
from typing import ClassVar

import numpy as np
import pytest
import torch
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.population import Population

from apq_moo.algorithms import AlgorithmEntry, RandomSearch
from apq_moo.algorithms.baselines.evolution import LocalSearch
from apq_moo.hardware import ArrayDevice, Device, find_device
from apq_moo.predictors import PREDICTORS, Predictor
from apq_moo.space import load_space
from apq_moo.testing import (
    AlgorithmConformance,
    CostModelConformance,
    PredictorConformance,
)
from apq_moo.testing.algorithms import as_entry, problems_for
from apq_moo.testing.costs import shipped_devices

SPACE = load_space("digits")
RNG = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))


def checks(suite):
    """The names of a suite's checks."""
    return [name for name in dir(suite) if name.startswith("test_")]


def failing(suite, **fixtures):
    """The checks of a suite that assert what does not hold, when called with these fixtures.

    Checks that end in another exception fail too, but do not count: nothing is crashed by a plug-in
    that breaks no other check.
    """
    failed, crashed = set(), set()
    for name in checks(suite):
        check = getattr(suite, name)
        wanted = check.__code__.co_varnames[1 : check.__code__.co_argcount]
        try:
            check(**{fixture: fixtures[fixture] for fixture in wanted})
        except AssertionError:
            failed.add(name)
        except pytest.skip.Exception:
            continue
        except Exception:
            crashed.add(name)
    assert failed or not crashed
    return failed


# -- predictors ------------------------------------------------------------------------------------


class Mean(Predictor):
    """Keeps every promise: the mean of the samples, plus the kernel of the first block."""

    name = "mean"

    def _fit(self, X, y):
        self.value = float(y.mean()) + 1e-3 * self.seed

    def _predict(self, X):
        return self.value + X[:, self.space.block_columns[0, 0]].astype(float)

    def _state(self):
        return {}, {"value": self.value}

    def _restore(self, arrays, settings):
        self.value = settings["value"]


class OfTheBatch(Mean):
    def _predict(self, X):
        return super()._predict(X) - X.mean()


class OfInactiveGenes(Mean):
    def _predict(self, X):
        return self.value + X.sum(axis=1) / 100.0


class Fraction(Mean):
    def _predict(self, X):
        return super()._predict(X) / 100


class Column(Mean):
    def _predict(self, X):
        return super()._predict(X)[:, None]


class Infinite(Mean):
    def _predict(self, X):
        return np.where(np.arange(len(X)) == 0, np.inf, super()._predict(X))


class Single(Mean):
    def _predict(self, X):
        return super()._predict(X).astype(np.float32)


class Needy(Mean):
    """Does not go through the base class's care for empty batches."""

    def predict(self, X, return_std=False):
        return super().predict(X, return_std) + 0 * np.max(np.asarray(X))


class Noisy(Mean):
    def _predict(self, X):
        return super()._predict(X) + RNG.random()


class Writing(Mean):
    def _predict(self, X):
        X[:, 0] = 0
        return super()._predict(X)


class GloballyRandom(Mean):
    def _fit(self, X, y):
        self.value = float(y.mean()) + np.random.rand()  # noqa: NPY002


class Reseeding(Mean):
    def _fit(self, X, y):
        np.random.seed(self.seed)  # noqa: NPY002
        super()._fit(X, y)


class Homeless:
    """Does not say which space it belongs to."""

    def predict(self, X):
        return np.full(len(X), 50.0)


class Forgetful(Mean):
    def _state(self):
        return {}, {"value": round(self.value)}


class Unregistered(Mean):
    name = "nobody-knows"


class ByPosition(Mean):
    def predict(self, X, return_std=False):
        return super().predict(X.to_numpy() if hasattr(X, "columns") else X, return_std)


class Secretive(Mean):
    def __init__(self, space, *, seed=0, offset=0):
        super().__init__(space, seed=seed)
        self._offset = offset


class Wrapping(Mean):
    def __init__(self, space, *, seed=0, offset=0):
        super().__init__(space, seed=seed)
        self.offset = (offset,)


class Sharing(Mean):
    """Keeps what it learns where its clones keep it too."""

    learnt: ClassVar[dict[str, float]] = {}

    def _fit(self, X, y):
        super()._fit(X, y)
        self.learnt["value"] = self.value

    def _predict(self, X):
        return super()._predict(X) - self.value + self.learnt["value"]


class Uncertain(Mean):
    """Keeps every promise, and has standard deviations."""

    has_std = True

    def _predict_std(self, X):
        return self._predict(X), 0.5 + X[:, self.space.block_columns[0, 0]]


class OfAnotherMean(Uncertain):
    def _predict_std(self, X):
        return self._predict(X) + 1e-9, np.ones(len(X))


class NegativelyUncertain(Uncertain):
    def _predict_std(self, X):
        return self._predict(X), np.linspace(1, -1, len(X))


class ForgetfullyUncertain(Uncertain):
    known = 1.0

    def _fit(self, X, y):
        super()._fit(X, y)
        self.known = 2.0

    def _predict_std(self, X):
        return self._predict(X), np.full(len(X), self.known)


TOGETHER = "test_a_row_has_one_value_in_whatever_batch"
PERCENT = "test_accuracies_are_finite_percent"
EMPTY = "test_an_empty_batch_has_no_accuracies"
CANONICAL = "test_depends_on_the_canonical_form_only"
FITTING = "test_fitting_depends_on_the_seed_only"
FRAMES = "test_columns_of_a_data_frame_are_found_by_their_names"
STD = "test_standard_deviations_belong_to_the_predictions"
CLONES = "test_scikit_learn_clones_it"
SEARCHES = "test_scikit_learn_validates_and_searches_with_it"
CHANGES = "test_predicting_changes_nothing"
SPACES = "test_problems_of_another_space_refuse_it"
SAVED = "test_saved_and_loaded_predicts_the_same_bits"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Mean, set()),
        (OfTheBatch, {TOGETHER, CANONICAL}),
        (OfInactiveGenes, {CANONICAL}),
        (Fraction, {PERCENT}),
        (Column, {PERCENT}),
        (Infinite, {PERCENT, TOGETHER}),
        (Single, {PERCENT}),
        (Needy, {EMPTY}),
        (
            Noisy,
            {TOGETHER, CANONICAL, CHANGES, FITTING, SAVED, SPACES, FRAMES, CLONES, SEARCHES},
        ),
        (Writing, {CHANGES}),
        (GloballyRandom, {FITTING, SEARCHES}),
        (Reseeding, {FITTING}),
        (Homeless, {SPACES}),
        (Forgetful, {SAVED}),
        (Unregistered, {SAVED}),
        (ByPosition, {FRAMES}),
        (Secretive, {CLONES, SEARCHES}),
        (Wrapping, {SAVED, CLONES, SEARCHES}),
        (Sharing, {CLONES}),
        (Uncertain, set()),
        (OfAnotherMean, {STD}),
        (NegativelyUncertain, {STD}),
        (ForgetfullyUncertain, {SAVED}),
    ],
)
def test_predictors(kind, expected, tmp_path, monkeypatch):
    name = getattr(kind, "name", "")
    if name == "mean":
        monkeypatch.setitem(PREDICTORS._items, name, kind)
    X = SPACE.sample(20, np.random.default_rng(0))

    def make(seed):
        if not issubclass(kind, Predictor):
            return kind()
        return kind(SPACE, seed=seed).fit(X, np.linspace(60, 70, 20))

    failed = failing(
        PredictorConformance(), make=make, predictor=make(1), space=SPACE, tmp_path=tmp_path
    )
    assert failed == expected


# -- devices ---------------------------------------------------------------------------------------


class Abacus(Device):
    """Keeps every promise: 8 bits at most, a bead for each multiply-accumulate."""

    name = "abacus"
    units = {"latency": "ms", "beads": "1"}  # noqa: RUF012
    price = 1.0

    def layer_costs(self, layers):
        macs = np.array([float(layer.macs) for layer in layers])
        wide = np.array([max(layer.w_bits, layer.a_bits) > 8 for layer in layers], dtype=bool)
        beads = np.where(wide, np.inf, macs * self.price)
        return {"latency": beads / 1e6, "beads": beads}

    @property
    def digest(self):
        return f"{int(self.price * 1000):064x}"


class Expensive(Abacus):
    price = 2.0


class Negative(Abacus):
    price = -1.0


class NotANumber(Abacus):
    price = float("nan")
    digest = None


class Seconds(Abacus):
    units = {"latency": "s", "beads": "1"}  # noqa: RUF012


class Nameless(Abacus):
    name = ""


class Unable(Abacus):
    price = float("inf")
    digest = None


class Scalar(Abacus):
    def layer_costs(self, layers):
        return {name: values.sum() for name, values in super().layer_costs(layers).items()}


class Incomplete(Abacus):
    def layer_costs(self, layers):
        return {"latency": super().layer_costs(layers)["latency"]}


class Choosy(Abacus):
    """Fails where it should say that a layer cannot run."""

    def layer_costs(self, layers):
        if any(layer.w_bits > 8 for layer in layers):
            raise KeyError("w_bits")
        return super().layer_costs(layers)


class Ordered(Abacus):
    """The first layer pays for starting the device."""

    def layer_costs(self, layers):
        costs = super().layer_costs(layers)
        return {name: values + (np.arange(len(values)) == 0) for name, values in costs.items()}


class Named(Abacus):
    def layer_costs(self, layers):
        more = np.array([float(len(layer.name)) for layer in layers])
        return {name: values + more for name, values in super().layer_costs(layers).items()}


class Careless(Abacus):
    """One digest, whatever the price."""

    def __init__(self, price=1.0):
        self.price = price

    @property
    def digest(self):
        return "0" * 64


class Used(Abacus):
    def __init__(self):
        self.calls = 0

    def layer_costs(self, layers):
        self.calls += 1
        return super().layer_costs(layers)

    @property
    def digest(self):
        return f"{self.calls:064x}"


class Cooled(Abacus):
    """Networks cost more than what the device says of its layers and its fixed parts."""

    def fixed_parts(self, space):
        self.calls = getattr(self, "calls", 0) + 1
        return {"fan": {"latency": 1.0 * self.calls, "beads": 0.0}}


NAMES = "test_names_and_units"
COST = "test_layers_have_costs"
NONE = "test_no_layers_have_no_costs"
EQUAL = "test_equal_layers_cost_the_same"
ORDER = "test_the_order_of_layers_does_not_matter"
DIGEST = "test_a_digest_tells_devices_apart"
SUMS = "test_compiled_tables_are_sums_of_layers"
BITS = "test_bits_that_it_does_not_run_are_infeasible"
WHATEVER_ASKS = {COST, EQUAL, ORDER, SUMS, BITS}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Abacus, set()),
        (lambda: ArrayDevice(find_device("bitfusion-large").machine), set()),
        (Negative, {*WHATEVER_ASKS, DIGEST}),
        (NotANumber, WHATEVER_ASKS),
        (Seconds, {NAMES}),
        (Nameless, {NAMES}),
        (Unable, {COST, SUMS}),
        (Scalar, {*WHATEVER_ASKS, NONE, DIGEST}),
        (Incomplete, {*WHATEVER_ASKS, NONE, DIGEST}),
        (Choosy, {BITS}),
        (Ordered, {EQUAL, ORDER, SUMS}),
        (Named, {EQUAL, SUMS}),
        (Careless, {DIGEST}),
        (Used, {DIGEST}),
        (Cooled, {SUMS}),
    ],
)
def test_devices(make, expected):
    failed = failing(
        CostModelConformance(),
        make=make,
        device=make(),
        others=[*shipped_devices(), Expensive(), Careless(3.0)],
        space=SPACE,
    )
    assert failed == expected


# -- algorithms ------------------------------------------------------------------------------------


class Batches(RandomSearch):
    """Counts on every batch that it asked for."""

    def _advance(self, infills, **kwargs):
        assert len(infills) == self.pop_size
        super()._advance(infills, **kwargs)


class OwnGenerator(RandomSearch):
    """Draws its networks from numpy's global state."""

    def _infill(self):
        seed = np.random.randint(2**31)  # noqa: NPY002
        rng = np.random.default_rng(seed)
        return Population.new(X=self.problem.region.sample(self.pop_size, rng))


class Deaf(RandomSearch):
    """Draws the same whatever the seed."""

    def _setup(self, problem, **kwargs):
        super()._setup(problem, **kwargs)
        self.random_state = np.random.default_rng(0)


class Real(RandomSearch):
    def _infill(self):
        infills = super()._infill()
        infills.set("X", infills.get("X") + 0.25)
        return infills


class Disguised(RandomSearch):
    """Leaves rubbish in the genes of inactive blocks."""

    def _infill(self):
        X = super()._infill().get("X")
        top = self.problem.space.n_options - 1
        return Population.new(X=np.where(self.problem.space.active_genes(X), X, top))


class Lawless(RandomSearch):
    """Looks for the largest networks."""

    def _infill(self):
        rng = self.random_state
        space = self.problem.space
        X = np.tile(space.largest(), (self.pop_size, 1))
        X[:, space.bit_columns[0]] = rng.integers(0, 2, len(X))
        return Population.new(X=X)


class Dreaming(RandomSearch):
    """Calls the last batch its optimum, good or not."""

    def _set_optimum(self):
        self.opt = self.pop


class Tired(RandomSearch):
    """Asks for nothing any more, and does not say that it has ended."""

    def _infill(self):
        return super()._infill() if self.n_iter is None or self.n_iter < 2 else Population()


class Reading(RandomSearch):
    """Reads its seeds from something that nobody can store; it is run again from its record."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = iter(range(1000))

    def _infill(self):
        rng = np.random.default_rng([next(self.seeds), *self.random_state.integers(0, 9, 9)])
        return Population.new(X=self.problem.region.sample(self.pop_size, rng))


class Hiding(RandomSearch):
    """Keeps what it depends on where nobody can look."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        calls = []

        def draw(rng):
            calls.append(rng.integers(0, 9))
            return np.random.default_rng(calls)

        self.draw = draw

    def _infill(self):
        rng = self.draw(self.random_state)
        return Population.new(X=self.problem.region.sample(self.pop_size, rng))


class Learning(LocalSearch):
    """Lets a network of torch choose among mutants: its state is that of a library."""

    def _setup(self, problem, **kwargs):
        super()._setup(problem, **kwargs)
        seed = int(self.random_state.integers(2**31))
        self.noise = torch.Generator().manual_seed(seed)
        self.net = torch.nn.utils.skip_init(torch.nn.Linear, problem.n_var, 1)
        with torch.no_grad():
            self.net.weight.copy_(torch.randn(1, problem.n_var, generator=self.noise))
            self.net.bias.zero_()
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=0.01)
        self.seen = deque(maxlen=3)

    def _infill(self):
        made = [super(Learning, self)._infill() for _ in range(2)]
        X = torch.tensor(np.stack([some.get("X") for some in made]), dtype=torch.float32)
        with torch.no_grad():
            better = self.net(X)[..., 0].argmin(0)
        chosen = np.stack([some.get("X") for some in made])[better.numpy(), np.arange(X.shape[1])]
        made[0].set("X", chosen)
        return made[0]

    def _advance(self, infills, **kwargs):
        super()._advance(infills, **kwargs)
        self.seen.append(infills)
        for some in self.seen:
            X, F = (torch.tensor(some.get(name).astype(np.float32)) for name in ("X", "F"))
            loss = (self.net(X) - F).square().mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()


class Unseeded(LocalSearch):
    """Draws from a generator that nobody seeds."""

    def _mutants(self, X):
        rng = np.random.default_rng()
        return self.problem.region.sample(len(X), rng)


SAYS = "test_says_what_it_is"
CUT = "test_ask_and_tell_with_a_cut_last_batch"
SEED = "test_runs_depend_on_the_seed_only"
PYMOO = "test_randomness_comes_from_pymoo_only"
AGREE = "test_asking_and_minimising_agree"
TIGHT = "test_tight_limits"
STORED = "test_goes_on_where_it_was_stopped"


def plain(maker):
    return lambda _problem, pop_size, **needs: maker(pop_size=pop_size, **needs)


def with_state(maker):
    return AlgorithmEntry(
        "plug-in", plain(maker), "multi-objective", "none", "says that it has no state", state=()
    )


def swept(maker):
    return AlgorithmEntry("plug-in", plain(maker), "single-objective-sweep", "none", "swept")


def wrong_entry():
    return AlgorithmEntry(
        "two\nlines", plain(RandomSearch), "multi-objective", "", "x", needs=("luck",)
    )


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (plain(RandomSearch), set()),
        (lambda problem, pop_size: NSGA2(pop_size, **problem.operators()), set()),
        (wrong_entry(), {SAYS}),
        (plain(Batches), {CUT, SEED, PYMOO, STORED}),
        (plain(OwnGenerator), {SEED, PYMOO, AGREE, STORED}),
        (plain(Deaf), {SEED}),
        (plain(Real), {CUT}),
        (plain(Disguised), {CUT}),
        (plain(Lawless), {TIGHT}),
        (plain(Dreaming), {CUT, TIGHT}),
        (plain(Tired), {CUT, AGREE}),
        (plain(Reading), set()),
        (plain(Hiding), set()),
        (with_state(Hiding), {STORED}),
        (swept(LocalSearch), set()),
        (swept(Learning), set()),
        (swept(Unseeded), {SEED, PYMOO, AGREE, STORED}),
    ],
)
def test_algorithms(algorithm, expected):
    entry = as_entry(algorithm)
    failed = failing(
        AlgorithmConformance(), entry=entry, make_problem=problems_for(entry, SPACE), budget=100
    )
    assert failed == expected


# -- the suites themselves -------------------------------------------------------------------------


def test_every_check_has_failed_for_someone():
    known = {
        PredictorConformance: {
            TOGETHER,
            PERCENT,
            EMPTY,
            CANONICAL,
            FITTING,
            CHANGES,
            SPACES,
            SAVED,
            FRAMES,
            STD,
            CLONES,
            SEARCHES,
        },
        CostModelConformance: {NAMES, COST, NONE, EQUAL, ORDER, DIGEST, SUMS, BITS},
        AlgorithmConformance: {SAYS, CUT, SEED, PYMOO, AGREE, TIGHT, STORED},
    }
    for suite, names in known.items():
        assert set(checks(suite)) == names


def test_pytest_is_needed_for_the_suites_only(tmp_path):
    (tmp_path / "pytest.py").write_text("raise ImportError('no pytest here')\n")
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import apq_moo.algorithms, apq_moo.hardware, apq_moo.predictors, apq_moo.problems
assert "pytest" not in sys.modules
try:
    import apq_moo.testing
except ImportError as error:
    print(error)
"""
    result = subprocess.run(  # noqa: S603 - runs this interpreter
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stdout == (
        "apq_moo.testing needs pytest: pip install pytest, or pip install 'apq-moo[test]'\n"
    )


def test_what_has_to_be_overridden_says_so(tmp_path):
    (tmp_path / "test_plugin.py").write_text(
        "from apq_moo.testing import *\n"
        "class TestPredictor(PredictorConformance): pass\n"
        "class TestDevice(CostModelConformance): pass\n"
        "class TestAlgorithm(AlgorithmConformance): pass\n"
    )
    result = subprocess.run(  # noqa: S603 - runs this interpreter
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    errors = [line for line in result.stdout.splitlines() if line.startswith("E   ")]
    found = Counter(line.partition("needs the fixture ")[2] for line in errors)
    assert found == {
        "'make': override it": 20,
        "'algorithm': override it": 9,
    }
