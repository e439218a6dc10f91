"""Running one search, from a configuration to everything it evaluated."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pymoo.core.termination import NoTermination

from apq_moo.algorithms import ALGORITHMS
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.errors import UserError
from apq_moo.files import sha256
from apq_moo.hardware import find_device
from apq_moo.hardware.finding import is_device_file
from apq_moo.predictors import PREDICTORS, find_predictor
from apq_moo.predictors.additive import AdditivePredictor
from apq_moo.problems import APQProblem
from apq_moo.space import IntArray, Space, load_space
from apq_moo.study.archive import Archive
from apq_moo.study.config import RunConfig
from apq_moo.study.sweep import main_objective, sweep_limits
from apq_moo.study.warm_start import (
    EXACT,
    begin_with,
    exact_networks,
    read_networks,
    source_file,
)

MIN_ROUNDS = 5
"""Rounds of evolution that each point of a sweep gets at least."""

_SWEPT = "single-objective-sweep"

Callback = Callable[[int, int], None]


@dataclass(frozen=True)
class Point:
    """One point of a sweep (or the whole of a multi-objective search).

    Attributes:
        problem: what is optimised there.
        budget: its evaluations.
        seed: of the algorithm.
    """

    problem: APQProblem
    budget: int
    seed: int


def check(config: RunConfig) -> None:
    """Check names, limits of costs and the budget, before anything is loaded, fitted or trained.

    Raises:
        UserError: an unknown name, an unreachable limit, or too small a budget.
    """
    entry = ALGORITHMS.get(config.algo)
    swept = entry.kind == _SWEPT
    APQProblem(
        load_space(config.space),
        config.objectives,
        {name: limit for name, limit in config.limits.items() if name != "acc"},
        predictor=lambda X: np.zeros(len(X)),
        device=find_device(config.device, missing=config.missing),
    )
    entry.check(len(config.objectives))
    points = config.sweep if swept and len(config.objectives) > 1 else 1
    smallest = points * config.pop_size * (MIN_ROUNDS + 1) if swept else config.pop_size
    if "surrogate" in entry.needs:
        smallest = 1
    if config.budget < smallest:
        what = (
            f"{MIN_ROUNDS} rounds of {config.pop_size} at each of {points} limits"
            if swept
            else f"one population of {config.pop_size}"
        )
        raise UserError(
            f"--budget {config.budget} is too small for {what}; the smallest that works is "
            f"{smallest}"
        )


class Search:
    """One search.

    Args:
        config: what to search.

    Attributes:
        config: what to search.
        problem: the problem with all objectives.
        points: the runs of the algorithm that make up the search.
        predictor: estimates ``acc``, or None where nobody asks for it.
        surrogate: the additive accuracy that the algorithm optimises instead of the predictor, or
            None.
        data: checksums of what the predictor was made from, and of the device's file.
        seconds: wall time of loading.

    Raises:
        UserError: an unknown name, an unreachable limit, or too small a budget.
    """

    def __init__(self, config: RunConfig) -> None:
        begun = time.perf_counter()
        self.config = config
        check(config)
        self._entry = ALGORITHMS.get(config.algo)
        space = load_space(config.space)
        predictor = None
        self.data: dict[str, str] = {}
        if "acc" in (*config.objectives, *config.limits):
            predictor = find_predictor(space, config.predictor, config.assets)
            if config.predictor in PREDICTORS:
                self.data = find_assets(space, config.assets).checksums()
            else:
                self.data = {config.predictor: sha256(config.predictor)}
        self.predictor = predictor
        self.surrogate = self._find_surrogate(space)
        self._warm: IntArray | None = None
        self._device = find_device(config.device, missing=config.missing)
        if is_device_file(config.device):
            self.data |= {config.device: sha256(config.device)}
        self.problem = self._problem(config.objectives, config.limits)
        self.points = self._points()
        if config.warm_start == EXACT and self.surrogate is not None:
            self._warm = exact_networks(self.problem, self.surrogate)
        elif config.warm_start is not None:
            self._warm = read_networks(config.warm_start, space)
            self.data |= {config.warm_start: sha256(str(source_file(config.warm_start)))}
        self.seconds = time.perf_counter() - begun

    def _problem(self, objectives: tuple[str, ...], limits: dict[str, float]) -> APQProblem:
        return APQProblem(
            load_space(self.config.space),
            objectives,
            limits,
            predictor=self.predictor or "mlp",
            device=self._device,
        )

    def _find_surrogate(self, space: Space) -> AdditivePredictor | None:
        """The predictor itself if it is additive, else one fitted to the same samples."""
        if "surrogate" not in self._entry.needs and self.config.warm_start != EXACT:
            return None
        if isinstance(self.predictor, AdditivePredictor):
            return self.predictor
        found = find_predictor(space, "additive", self.config.assets)
        assert isinstance(found, AdditivePredictor)
        self.data |= find_assets(space, self.config.assets).checksums()
        return found

    def require_supernet(self) -> None:
        """Check that networks of the space can be measured.

        Raises:
            UserError: there is no supernet.
        """
        try:
            find_assets(self.problem.space, self.config.assets).path(SUPERNET)
        except UserError as error:
            raise UserError(f"--verify measures networks on a supernet, but {error}") from error

    @property
    def _swept(self) -> bool:
        return self._entry.kind == _SWEPT

    def _points(self) -> list[Point]:
        config = self.config
        if not self._swept:
            return [Point(self.problem, config.budget, config.seed)]
        main = main_objective(config.objectives)
        others = tuple(name for name in config.objectives if name != main)
        sweep = sweep_limits(self.problem, others, config.sweep, config.seed)
        shares = np.diff(np.linspace(0, config.budget, len(sweep) + 1).astype(int))
        seeds = np.random.SeedSequence([config.seed, 6]).generate_state(len(sweep)) >> 1
        return [
            Point(self._problem((main,), {**config.limits, **limits}), int(share), int(seed))
            for limits, share, seed in zip(sweep, shares, seeds, strict=True)
        ]

    def run(self, *, folder: Path | None = None, callback: Callback | None = None) -> Archive:
        """Search to the end.

        Args:
            folder: where each finished point is stored, and read from if it is there.
            callback: told ``(evaluations done, evaluations in all)``.

        Returns:
            Everything that was evaluated.
        """
        parts: list[Archive] = []
        done = 0
        for number, point in enumerate(self.points):
            stored = folder / f"point-{number:03d}.npz" if folder is not None else None
            if stored is not None and stored.is_file():
                part = Archive.load(stored)
            else:
                part = self._run_point(point, done, callback)
                if stored is not None:
                    part.save(stored)
            parts.append(part)
            done += len(part)
            if callback is not None:
                callback(done, self.config.budget)
        return Archive.join(parts)

    def _run_point(self, point: Point, before: int, callback: Callback | None) -> Archive:
        available = {"budget": point.budget, "surrogate": self.surrogate}
        needed = {name: available[name] for name in self._entry.needs}
        algorithm = self._entry.factory(point.problem, pop_size=self.config.pop_size, **needed)
        algorithm.setup(point.problem, termination=NoTermination(), seed=point.seed)
        parts: list[Archive] = []
        done = 0
        while done < point.budget and algorithm.has_next():
            infills = algorithm.ask()
            if infills is None or len(infills) == 0:
                break
            if self._warm is not None and not parts:
                begin_with(infills, self._warm, point.problem)
            rest = point.budget - done
            if len(infills) > rest:
                # Evenly spread, since crossover's and mutation's children come one after the other.
                infills = infills[np.linspace(0, len(infills) - 1, rest).astype(int)]
            algorithm.evaluator.eval(point.problem, infills, algorithm=algorithm)
            algorithm.tell(infills=infills)
            parts.append(self._record(point, infills.get("X"), infills.get("F"), infills.get("CV")))
            done += len(infills)
            if callback is not None:
                callback(before + done, self.config.budget)
        return Archive.join(parts)

    def _record(self, point: Point, X: np.ndarray, F: np.ndarray, violation: np.ndarray) -> Archive:
        X = point.problem.genotypes(X)
        feasible = violation[:, 0] <= 0
        if self._swept and len(self.config.objectives) > 1:
            F = self._all_objectives(point.problem.objectives[0], X, F[:, 0])
        return Archive(X, F, feasible)

    def _all_objectives(self, main: str, X: np.ndarray, values: np.ndarray) -> np.ndarray:
        """``F`` of the whole problem, where the algorithm saw only the main objective."""
        others = tuple(name for name in self.config.objectives if name != main)
        costs = APQProblem(self.problem.space, objectives=others, device=self._device).evaluate_raw(
            X
        )
        return np.column_stack(
            [values if name == main else costs[name] for name in self.config.objectives]
        )
