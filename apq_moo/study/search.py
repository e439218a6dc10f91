"""Running one search, from a configuration to everything it evaluated."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from apq_moo import __version__
from apq_moo.algorithms import ALGORITHMS, ApqGA
from apq_moo.arrays import IntArray
from apq_moo.data import load_images
from apq_moo.data.assets import SUPERNET, TABLE, find_assets
from apq_moo.data.evaluations import Evaluations
from apq_moo.defaults import DEFAULT_PREDICTOR
from apq_moo.errors import UserError
from apq_moo.files import digest_of, sha256
from apq_moo.hardware import find_device
from apq_moo.hardware.finding import is_device_file
from apq_moo.predictors import PREDICTORS, Predictor, find_predictor
from apq_moo.predictors.additive import AdditivePredictor
from apq_moo.problems import APQProblem
from apq_moo.problems.measured import NAME as SUPERNET_ACCURACY
from apq_moo.problems.measured import SupernetAccuracy
from apq_moo.problems.tabulated import NAME as TABLE_ACCURACY
from apq_moo.problems.tabulated import TabulatedAccuracy
from apq_moo.space import Space, all_networks, load_space, superspace
from apq_moo.study.archive import Archive
from apq_moo.study.checkpoint import EVERY_S, Recorder, Trace, discard, finished, row_type
from apq_moo.study.config import RunConfig
from apq_moo.study.drivers import Driver, Point, PymooDriver, TopKDriver
from apq_moo.study.epsilon_constraint import epsilon_limits, main_objective
from apq_moo.study.warm_start import (
    EXACT,
    exact_networks,
    read_networks,
    source_file,
)

MIN_ROUNDS = 5
"""Rounds of evolution that each point of a sweep gets at least."""

_SWEPT = "single-objective-sweep"

Callback = Callable[[int, int], None]


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
        trace: evaluations and seconds after each round of :meth:`run`.
        population: canonical genotypes that the algorithm held in the end; None before, and where
            :meth:`run` found the search finished already.

    Raises:
        UserError: an unknown name, an unreachable limit, or too small a budget.
    """

    def __init__(self, config: RunConfig) -> None:
        begun = time.perf_counter()
        self.config = config
        check(config)
        self._entry = ALGORITHMS.get(config.algo)
        space = load_space(config.space)
        predictor: Predictor | SupernetAccuracy | TabulatedAccuracy | None = None
        self.data: dict[str, str] = {}
        if "acc" in (*config.objectives, *config.limits):
            predictor = self._find_predictor(space)
            if config.predictor in (*PREDICTORS, SUPERNET_ACCURACY, TABLE_ACCURACY):
                self.data = _checksums(space, config.assets)
            else:
                self.data = {config.predictor: sha256(config.predictor)}
        self.predictor = predictor
        self.surrogate = self._find_surrogate(space)
        self.trace = Trace([], [])
        self.population: IntArray | None = None
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
            predictor=self.predictor or DEFAULT_PREDICTOR,
            device=self._device,
        )

    def _find_predictor(self, space: Space) -> Predictor | SupernetAccuracy | TabulatedAccuracy:
        name = self.config.predictor
        if name == SUPERNET_ACCURACY:
            return SupernetAccuracy(find_assets(space, self.config.assets))
        if name == TABLE_ACCURACY:
            return TabulatedAccuracy(find_assets(space, self.config.assets))
        if name not in PREDICTORS and not Path(name).is_file():
            known = ", ".join([*PREDICTORS, SUPERNET_ACCURACY, TABLE_ACCURACY])
            raise UserError(f"unknown predictor {name!r}; known: {known}, or the path of a file")
        return find_predictor(space, name, self.config.assets)

    def _find_surrogate(self, space: Space) -> AdditivePredictor | None:
        """The predictor itself if it is additive, else one fitted to the same samples."""
        if "surrogate" not in self._entry.needs and self.config.warm_start != EXACT:
            return None
        if isinstance(self.predictor, AdditivePredictor):
            return self.predictor
        if isinstance(self.predictor, TabulatedAccuracy):
            X = all_networks(space)
            return AdditivePredictor(space).fit(X, self.predictor.predict(X))
        found = find_predictor(space, "additive", self.config.assets)
        assert isinstance(found, AdditivePredictor)
        self.data |= _checksums(space, self.config.assets)
        return found

    def require_supernet(self) -> None:
        """Check that networks of the space can be measured, if they have not all been.

        Raises:
            UserError: there is no supernet, or its images are not here.
        """
        try:
            assets = find_assets(self.problem.space, self.config.assets)
            if assets.has(TABLE):
                return
            assets.path(SUPERNET)
            load_images(assets.images)
            Evaluations(self.problem.space, "", "")
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
        sweep = epsilon_limits(self.problem, others, config.sweep, config.seed)
        shares = np.diff(np.linspace(0, config.budget, len(sweep) + 1).astype(int))
        seeds = np.random.SeedSequence([config.seed, 6]).generate_state(len(sweep)) >> 1
        return [
            Point(self._problem((main,), {**config.limits, **limits}), int(share), int(seed))
            for limits, share, seed in zip(sweep, shares, seeds, strict=True)
        ]

    def run(
        self,
        *,
        folder: Path | None = None,
        callback: Callback | None = None,
        every_s: float = EVERY_S,
    ) -> Archive:
        """Search to the end.

        Args:
            folder: where checkpoints go, and the archive in the end; what is there already is
                continued.
            callback: told ``(evaluations done, evaluations in all)`` after each round, and after
                each network that is measured.
            every_s: seconds between checkpoints.

        Returns:
            Everything that was evaluated.

        Raises:
            UserError: the checkpoint there is damaged or of another search, the predictor fails,
                or a file cannot be written; the last checkpoint stays as it was.
        """
        known = finished(folder, self.key) if folder is not None else None
        if folder is not None and known is not None:
            discard(folder)
            archive, self.trace = known
            return archive
        row = row_type(self.problem.space, self.problem.n_obj)
        recorder = Recorder(row, folder, self.key, every_s)
        self.trace = recorder.trace
        driver = self._driver()
        if recorder.state is not None:
            driver.restore(recorder.state)
        if callback is not None and isinstance(self.predictor, SupernetAccuracy):
            tell = callback
            self.predictor.callback = lambda n: tell(len(recorder) + n, self.config.budget)
        with _rare_collections():
            while (part := driver.step()) is not None:
                recorder.add(part)
                if recorder.due:
                    recorder.checkpoint(*driver.state())
                if callback is not None:
                    callback(len(recorder), self.config.budget)
        self.population = driver.population()
        return recorder.finish()

    def _driver(self) -> Driver:
        if self.config.algo == ApqGA.title:
            return TopKDriver(self.problem, self._warm, self.points, self.config.pop_size)
        return PymooDriver(
            self.problem,
            self._warm,
            self.points,
            self._entry,
            self.config.pop_size,
            self.surrogate,
        )

    @property
    def key(self) -> str:
        """Changes with the configuration, the data and the version of the package."""
        parts = {
            "config": self.config.to_dict(),
            "space": self.problem.space.digest,
            "data": self.data,
            "version": __version__,
        }
        return digest_of(parts)


def _checksums(space: Space, folder: str | None) -> dict[str, str]:
    """Of all that accuracies of a space may come from."""
    found = find_assets(space, folder).checksums()
    larger = superspace(space)
    return found if larger is space else {**find_assets(larger).checksums(), **found}


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage in cycles more rarely: populations are many objects, and have no cycles.

    With 10,000 individuals it takes a fifth of the time otherwise.
    """
    before = gc.get_threshold()
    gc.set_threshold(200_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
