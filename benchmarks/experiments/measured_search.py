"""How many networks have to be measured? Searches of few evaluations beside each other.

Run as ``python -m apq_moo.benchmarks.experiments.measured_search --space tiny --budget 500 --seeds
31 --out measured.json``. Accuracies are those that the space's table or supernet gives, objectives
are accuracy and latency. What is scored is everything that a search has measured so far: by its
regret where the true front is known, else by its hypervolume, both on the problem's own scale.

* ``surrogate``: the package's search, from nothing.
* ``linas``: the rule of DyNAS-T as we understand it (Cummings et al., A Hardware-Aware Framework
  for Accelerating Neural Architecture Search Across Modalities, 2022): 50 random networks, then the
  best 50 of NSGA-II's last population on a ridge regression that is fitted to all, and again.
* ``msunas``: the rule of NSGANetV2 as we understand it (Lu et al., ECCV 2020): 100 random networks,
  then 8 of the front that NSGA-II finds, the most accurate one and those that close the largest
  gaps along the cost; the predictor is whichever of a radial basis network, a Gaussian process, a
  decision tree and a perceptron ranks best in cross-validation, chosen anew when a tenth more is
  known.
* ``once``: half of the budget at random, then one fit, and the other half of the front predicted.
  Each budget takes a search of its own.
* ``nsga2``: NSGA-II itself, in populations of 20; three times as long where networks are looked up.

All but the last search their predictions with the package's NSGA-II and as many predictions. An
interrupted run goes on where it stopped: finished searches are in the file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.strategy import Context
from apq_moo.algorithms.surrogate.inner import searched_by
from apq_moo.algorithms.surrogate.refit import Candidates, InnerSearch, Refit
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.benchmarks.compare.bounds import bounds_of
from apq_moo.benchmarks.compare.scores import hypervolume, regret
from apq_moo.changes import refuse_other_settings
from apq_moo.data.assets import SUPERNET, TABLE
from apq_moo.errors import UserError, reported
from apq_moo.files import growing, read_json, write_json
from apq_moo.predictors import AdditivePredictor, Predictor, ScratchGPPredictor
from apq_moo.predictors.features import option_values
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.predictors.storage import Arrays
from apq_moo.problems import APQProblem, exact_name
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import Space, load_space
from apq_moo.texts import by_commas
from apq_moo.versions import versions

STEP = 25
"""Measured networks between two scores that are kept."""

MEASURES = ("images", SUPERNET, TABLE)
"""What measured accuracies depend on, of all that lies among assets."""

_FOLDS = 3
_NSGA2 = "nsga2"


# -- rules of others -------------------------------------------------------------------------------


def best_of_population(candidates: Candidates, k: int, _rng: np.random.Generator) -> IntArray:
    """The first ``k`` by rank and, within the last rank that fits, by crowding."""
    from moocore import pareto_rank

    ranks = pareto_rank(candidates.F)
    chosen: list[int] = []
    for rank in range(int(ranks.max()) + 1):
        rows = np.flatnonzero(ranks == rank)
        room = k - len(chosen)
        if len(rows) > room:
            crowding = calc_crowding_distance(candidates.F[rows])
            rows = rows[np.argsort(-crowding, kind="stable")[:room]]
        chosen += rows.tolist()
    return np.array(chosen, dtype=np.int64)


def closing_gaps(candidates: Candidates, k: int, _rng: np.random.Generator) -> IntArray:
    """The most accurate on the predicted front, then those farthest from what is there in cost.

    What is there is the measured front and what was chosen before. Where the predicted front has
    fewer networks, those of the next ranks follow.
    """
    from moocore import is_nondominated, pareto_rank

    ranks = pareto_rank(candidates.F)
    costs = candidates.F[:, 1:]
    there = candidates.known[is_nondominated(candidates.known), 1:]
    chosen: list[int] = []
    for rank in range(int(ranks.max()) + 1):
        left = np.flatnonzero(ranks == rank)
        if not chosen:
            chosen.append(int(left[candidates.F[left, 0].argmin()]))
            there = np.vstack([there, costs[chosen]])
            left = left[left != chosen[0]]
        while len(left) and len(chosen) < k:
            gaps = np.abs(costs[left, None] - there).sum(axis=2).min(axis=1)
            place = int(gaps.argmax())
            chosen.append(int(left[place]))
            there = np.vstack([there, costs[chosen[-1:]]])
            left = np.delete(left, place)
    return np.array(chosen[:k], dtype=np.int64)


class SwitchingPredictor(Predictor):
    """Whichever of four regressions ranks best in cross-validation, on the genes' options."""

    name = "switching"

    def __init__(self, space: Space, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        self._kind, self._known = 0, 0

    def _makers(self) -> list[Callable[[], Any]]:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import Matern, WhiteKernel
        from sklearn.neural_network import MLPRegressor
        from sklearn.tree import DecisionTreeRegressor

        lengths = np.sqrt(self.space.n_var)
        kernel = Matern(lengths, nu=2.5) + WhiteKernel(1e-3)
        return [
            RadialBasis,
            lambda: GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True),
            lambda: DecisionTreeRegressor(min_samples_leaf=2, random_state=self.seed),
            lambda: MLPRegressor(
                hidden_layer_sizes=(64,), solver="lbfgs", max_iter=200, random_state=self.seed
            ),
        ]

    def _features(self, X: IntArray) -> FloatArray:
        values = option_values(self.space, X).astype(np.float64)
        scaled: FloatArray = (values - self._center) / self._scale
        return scaled

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        import warnings

        values = option_values(self.space, X).astype(np.float64)
        self._center, self._scale = values.mean(axis=0), values.std(axis=0)
        self._scale[self._scale < 1e-9] = 1.0
        Z = self._features(X)
        self._level, self._spread = float(y.mean()), max(float(y.std()), 1e-9)
        target = (y - self._level) / self._spread
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # perceptrons that were stopped early
            if len(X) > 1.1 * self._known:
                self._kind, self._known = self._best(Z, target), len(X)
            self._model = self._makers()[self._kind]().fit(Z, target)

    def _best(self, Z: FloatArray, target: FloatArray) -> int:
        fold = np.random.default_rng(self.seed).permutation(len(Z)) % _FOLDS
        scores = []
        for make in self._makers():
            predicted = np.empty(len(Z))
            for number in range(_FOLDS):
                inside = fold != number
                model = make().fit(Z[inside], target[inside])
                predicted[~inside] = model.predict(Z[~inside])
            tau = kendall_tau(target, predicted)
            scores.append(tau if np.isfinite(tau) else -1.0)
        return int(np.argmax(scores))

    def _predict(self, X: IntArray) -> FloatArray:
        found: FloatArray = self._model.predict(self._features(self.space.canonical(X)))
        return np.clip(self._level + self._spread * found, 0.0, 100.0)

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        raise UserError("predictor 'switching' is not stored")

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        raise NotImplementedError


class RadialBasis:
    """Cubic radial basis functions with a linear tail."""

    def fit(self, Z: FloatArray, target: FloatArray) -> RadialBasis:
        """To features of shape ``(n, d)``."""
        from scipy.interpolate import RBFInterpolator

        # Networks that differ in constant features only would make the system singular.
        self._of = RBFInterpolator(Z, target, kernel="cubic", smoothing=1e-6, degree=0)
        return self

    def predict(self, Z: FloatArray) -> FloatArray:
        """Shape ``(n,)``."""
        found: FloatArray = self._of(Z)
        return found


# -- searching -------------------------------------------------------------------------------------


def refit_of(method: str, space: Space, budget: int, inner: InnerSearch, seed: int) -> Refit | None:
    """What a method predicts by; None for one that does not.

    Raises:
        UserError: there is no such method.
    """
    if method == _NSGA2:
        return None
    if method == "surrogate":
        return Refit(ScratchGPPredictor(space, seed=seed), inner)
    if method == "linas":
        return Refit(
            AdditivePredictor(space), inner, first=50, batch=50, growth=0.0,
            rule=best_of_population, needs_std=False,
        )  # fmt: skip
    if method == "msunas":
        return Refit(
            SwitchingPredictor(space, seed=seed), inner, first=min(100, budget), batch=8,
            growth=0.0, rule=closing_gaps, needs_std=False,
        )  # fmt: skip
    if method == "once":
        half = budget // 2
        return Refit(
            ScratchGPPredictor(space, seed=seed), inner, first=half, batch=budget - half,
            growth=0.0, rule=best_of_population, needs_std=False,
        )  # fmt: skip
    raise UserError(f"unknown method {method!r}; known: {', '.join(METHODS)}")


METHODS = ("surrogate", "linas", "msunas", "once", _NSGA2)


def search(problem: APQProblem, method: str, budget: int, seed: int, predictions: int) -> Evaluated:
    """Everything that a method measures, in order."""
    inner = searched_by(ALGORITHMS.get(_NSGA2).strategy, budget=predictions)
    refit = refit_of(method, problem.space, budget, inner, seed)
    entry = ALGORITHMS.get(_NSGA2 if refit is None else "surrogate")
    context = Context(problem, budget, seed, 20, refit=refit)
    return Evaluated.join(list(entry.strategy().rounds(context)))


def scores_of(problem: APQProblem, found: Evaluated, at: Sequence[int]) -> list[float]:
    """The score of what was measured first, for each number of networks."""
    bounds, known = bounds_of(problem), problem.pareto_front()
    source = problem.accuracy
    front = known if source is not None and source.samples() is not None else None
    scores = []
    for n in at:
        F = found.F[:n][found.feasible[:n]]
        score = hypervolume(F, bounds) if front is None else regret(F, bounds, front)
        scores.append(round(score, 6))
    return scores


def measured(
    problem: APQProblem, method: str, budgets: Sequence[int], seed: int, predictions: int
) -> dict[str, Any]:
    """A method's scores by networks measured, and its processor seconds.

    Args:
        problem: whose accuracies are measured.
        method: of :data:`METHODS`.
        budgets: at which methods are compared; the largest is spent.
        seed: of the search.
        predictions: of each search of a predictor.
    """
    begun = time.process_time()
    if method == "once":
        at, scores = list(budgets), []
        for budget in budgets:
            found = search(problem, method, budget, seed, predictions)
            scores += scores_of(problem, found, [budget])
    else:
        looked_up = problem.accuracy is not None and not problem.accuracy.measures
        spent = max(budgets) * (3 if method == _NSGA2 and looked_up else 1)
        found = search(problem, method, spent, seed, predictions)
        at = sorted({*range(STEP, len(found) + 1, STEP), *budgets})
        scores = scores_of(problem, found, at)
    return {"networks": at, "scores": scores, "cpu_s": round(time.process_time() - begun, 1)}


# -- the table -------------------------------------------------------------------------------------


def medians(runs: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Median scores of a method by networks measured."""
    return {
        n: float(np.median([run["scores"][run["networks"].index(n)] for run in runs]))
        for n in runs[0]["networks"]
    }


def first_below(median: dict[int, float], limit: float) -> int | None:
    """After how many networks the median regret stays at most at a limit."""
    fine = [n for n, value in median.items() if value <= limit]
    return min(fine) if fine else None


def table(state: dict[str, Any]) -> list[str]:
    """Lines of a table of medians."""
    settings = state["settings"]
    budgets = settings["budgets"]
    lines = [f"{settings['space']}, median {state['score']} at networks measured"]
    lines.append(
        f"{'':12}" + "".join(f"{n:>10,}" for n in budgets) + "   CPU s  seeds  until 0.001"
    )
    for method, runs in state["runs"].items():
        median = medians(list(runs.values()))
        cells = "".join(f"{median[n]:10.5f}" if n in median else f"{'':10}" for n in budgets)
        until = first_below(median, 0.001) if state["score"] == "regret" else None
        seconds = np.median([run["cpu_s"] for run in runs.values()])
        lines.append(f"{method:12}{cells}{seconds:8.1f}{len(runs):7}  {until or ''}")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Search, and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--space", default="tiny")
    parser.add_argument("--methods", default=",".join(METHODS), help="names, by commas")
    parser.add_argument("--budgets", default="100,250,500", help="networks, by commas")
    parser.add_argument("--seeds", type=int, default=31)
    parser.add_argument("--predictions", type=int, default=3000, help="of each inner search")
    parser.add_argument("--predictor", help="what measures; default: the table, or the supernet")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--on", help="where torch measures: cpu or cuda")
    args = parser.parse_args(argv)
    methods = by_commas(args.methods)
    for method in methods:
        if method not in METHODS:
            raise UserError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    budgets = sorted(int(text) for text in by_commas(args.budgets))
    space = load_space(args.space)
    problem = APQProblem(space, predictor=args.predictor or exact_name(space), on=args.on)
    with growing(args.out):
        state = _begin(args, problem, budgets)
        for seed in range(args.seeds):
            for method in methods:
                runs = state["runs"].setdefault(method, {})
                if str(seed) not in runs:
                    runs[str(seed)] = measured(problem, method, budgets, seed, args.predictions)
                    write_json(args.out, state)
            print(f"seed {seed} is done", flush=True)
    print("\n".join(table(state)), flush=True)


def _begin(args: argparse.Namespace, problem: APQProblem, budgets: list[int]) -> dict[str, Any]:
    source = problem.accuracy
    assert source is not None
    settings = {
        "space": problem.space.name,
        "digest": problem.space.digest,
        "predictor": source.name,
        "data": {name: value for name, value in source.digest.items() if name in MEASURES},
        "budgets": budgets,
        "predictions": args.predictions,
    }
    if args.out.is_file():
        state: dict[str, Any] = read_json(args.out)
        refuse_other_settings(args.out, state.get("settings"), settings, "name another file")
        return state
    return {
        "settings": settings,
        "score": "hypervolume" if source.samples() is None else "regret",
        "where": source.where,
        "versions": versions(),
        "runs": {},
    }


if __name__ == "__main__":
    with reported():
        main()
