"""Running one search, from a configuration to everything it evaluated."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from apq_moo import __version__
from apq_moo.algorithms import ALGORITHMS, AlgorithmEntry
from apq_moo.algorithms.strategy import Context, Replay, Strategy
from apq_moo.algorithms.surrogate.refit import Refit
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.files import digest_of, sha256
from apq_moo.hardware import ACC, find_device
from apq_moo.predictors import is_specification
from apq_moo.problems import AccuracySource, AdditiveSource, APQProblem, additive_surrogate, resolve
from apq_moo.problems.accuracy import checksums
from apq_moo.problems.evaluated import Evaluated
from apq_moo.problems.tabulated import NAME as TABLE
from apq_moo.space import Space, load_space
from apq_moo.study.config import MIN_ROUNDS, RunConfig
from apq_moo.study.epsilon_constraint import strategy_of, with_parts
from apq_moo.study.inputs import DEVICE, SPACE, input_digests
from apq_moo.study.known import known_networks
from apq_moo.study.record import EVERY_S, Recorder, Trace, discard, finished, row_type
from apq_moo.study.refit import check_refit, refit_of
from apq_moo.study.warm_start import EXACT, exact_networks, read_networks, source_file

Callback = Callable[[int, int], None]


class _Unread(AccuracySource):
    """Stands for a source that is not read, since nobody will ask it for accuracies."""

    def __init__(self, config: RunConfig) -> None:
        space, digest = load_space(config.space), {}
        if is_specification(config.predictor):
            with suppress(UserError):  # said when accuracies are wanted
                digest = checksums(space, config.assets)
        super().__init__(config.predictor, space, digest)
        self.assets, self.on = config.assets, config.on

    def predict_blocks(self, index: IntArray) -> FloatArray:
        raise AssertionError(f"{self.name} was not read, so that {len(index)} networks cannot be")


def problem_of(config: RunConfig) -> APQProblem:
    """The problem of a search, for whoever does not evaluate networks.

    Accuracies are read only where all networks are in a table.

    Raises:
        UserError: an unknown name, or an unreachable limit.
    """
    if config.predictor != TABLE:
        return _problem(config, _Unread(config))
    return _problem(config, resolve(TABLE, load_space(config.space), config.assets))


def _problem(config: RunConfig, accuracy: AccuracySource) -> APQProblem:
    return APQProblem(
        accuracy.space,
        config.objectives,
        config.limits,
        predictor=accuracy,
        device=find_device(config.device, missing=config.missing),
        start=config.start,
    )


def points_of(entry: AlgorithmEntry, config: RunConfig) -> int:
    """Limits over which an algorithm is swept."""
    return config.points(entry.swept, 1 if entry.system is not None else None)


def check(config: RunConfig) -> APQProblem:
    """Check names, limits of costs and the budget, before anything is loaded, fitted or trained.

    Returns:
        The problem, without accuracies.

    Raises:
        UserError: an unknown name, an unreachable limit, or too small a budget.
    """
    entry = ALGORITHMS.get(config.algo)
    problem = _problem(config, _Unread(config))
    entry.check(len(config.objectives))
    smallest = config.smallest(entry.swept)
    if "surrogate" in entry.needs:
        smallest = 1
    points = points_of(entry, config)
    own = entry.strategy().smallest(problem, points)
    if entry.refits:
        smallest = check_refit(config).smallest
    elif config.refit is not None:
        raise UserError(f"refit is for algorithms that measure, which {config.algo} does not")
    smallest = smallest if own is None else own
    if config.budget < smallest:
        what = f"one population of {config.pop_size}"
        if own is not None:
            what = f"{config.algo} at {points} limits"
        elif entry.swept:
            at = f"each of {points} limits" if points > 1 else "one limit"
            what = f"{MIN_ROUNDS} rounds of {config.pop_size} at {at}"
        if entry.refits:
            what = f"the first batch of {smallest}"
        raise UserError(
            f"budget={config.budget} is too small for {what}; the smallest that works is {smallest}"
        )
    return problem


class Search:
    """One search.

    Args:
        config: what to search.

    Attributes:
        config: what to search.
        entry: its algorithm.
        problem: the problem with all objectives.
        source: where ``acc`` comes from, or None where nobody asks for it.
        surrogate: the additive accuracy that the algorithm optimises instead, or None.
        refit: what an algorithm that measures predicts by, or None.
        total: evaluations in all: the budget, and what is known before and counts as measured.
        data: digests of the space, the device and what accuracies come from, by name.
        seconds: wall time of loading.
        trace: evaluations and seconds after each round of :meth:`run`.
        measured: distinct networks that :meth:`run` had run on images.
        gradient_steps: that the algorithm took in :meth:`run`, those of a part that was run again
            counted once; None before, and where it found the search finished already.
        gradient_evaluations: that it paid for them.
        population: canonical genotypes that the algorithm held in the end; None before, where it
            holds none, and where :meth:`run` found the search finished already.

    Raises:
        UserError: an unknown name, an unreachable limit, or too small a budget.
    """

    def __init__(self, config: RunConfig) -> None:
        begun = time.perf_counter()
        self.config = config
        self.problem = check(config)
        self.entry = ALGORITHMS.get(config.algo)
        space = self.problem.space
        self.source: AccuracySource | None = None
        self.data = input_digests(config, space, self.problem.device)
        if ACC in self.problem.names:
            self.source = resolve(config.predictor, space, config.assets, config.on)
            self.problem = self.problem.with_accuracy(self.source)
            self.data |= self.source.digest
        self.surrogate: AdditiveSource | None = None
        if "surrogate" in self.entry.needs or config.warm_start == EXACT:
            self.surrogate = additive_surrogate(self.source, space, config.assets)
            self.data |= self.surrogate.digest
        self.refit: Refit | None = None
        self.total = config.budget
        if self.entry.refits and self.source is not None:
            self._begin_refitting(self.source)
        self.trace = Trace([], [])
        self.measured = 0
        self.gradient_steps: int | None = None
        self.gradient_evaluations: int | None = None
        self.population: IntArray | None = None
        self._warm = self._warm_start(space)
        self.seconds = time.perf_counter() - begun

    def _begin_refitting(self, source: AccuracySource) -> None:
        known = known_networks(self.config, self.problem, source)
        self.refit = refit_of(self.config, self.problem, source, known)
        if known is not None:
            self.data |= known.digest
        if self.refit.adopted is not None:
            self.total += len(self.refit.adopted)

    def _warm_start(self, space: Space) -> IntArray | None:
        source = self.config.warm_start
        if source == EXACT and self.surrogate is not None:
            return exact_networks(self.problem, self.surrogate)
        if source is None:
            return None
        networks = read_networks(source, space)
        self.data |= {source: sha256(str(source_file(source)))}
        return networks

    def context(self, replay: Replay | None = None) -> Context:
        """What the strategy is given."""
        config = self.config
        context = Context(
            self.problem,
            self.total,
            config.seed,
            config.pop_size,
            self._warm,
            self.surrogate,
            self.refit,
            replay=replay or Replay(),
        )
        return with_parts(context, points_of(self.entry, config)) if self.entry.swept else context

    def run(
        self,
        *,
        folder: Path | None = None,
        callback: Callback | None = None,
        every_s: float = EVERY_S,
    ) -> Evaluated:
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
        row = row_type(self.problem.space, self.problem.n_obj)
        known = finished(folder, self.key, row) if folder is not None else None
        if folder is not None and known is not None:
            discard(folder)
            archive, self.trace = known
            return archive
        recorder = Recorder(row, folder, self.key, every_s)
        self.trace = recorder.trace
        total = self.total
        if callback is not None and self.source is not None:
            tell = callback
            self.source.callback = lambda n: tell(len(recorder) + n, total)
        strategy = strategy_of(self.entry)
        with _rare_collections():
            for _ in _recorded(strategy, self.context, recorder):
                if callback is not None:
                    callback(len(recorder), total)
        self.population = strategy.population()
        archive = recorder.finish()
        if self.source is not None:
            self.gradient_steps = self.source.gradient_steps
            self.gradient_evaluations = self.source.gradient_evaluations
        if self.source is not None and self.source.measures:
            known_before = self.total - self.config.budget
            self.measured = len(np.unique(archive.X, axis=0)) - known_before
        return archive

    @property
    def key(self) -> str:
        """Changes with the configuration, the data and the version of the package."""
        config = self.config.identity()
        for name in ("assets", SPACE, DEVICE):  # whose digests are data
            del config[name]
        return digest_of({"config": config, "data": self.data, "version": __version__})


def _recorded(
    strategy: Strategy, context: Callable[[Replay], Context], recorder: Recorder
) -> Iterator[None]:
    """The rounds of a search, or what is left of it, each recorded.

    Raises:
        UserError: see :meth:`Search.run`.
    """
    replay = Replay()
    if recorder.state is not None:
        strategy.load(recorder.state)
        rounds = _restored(strategy.rounds(context(replay)))
    else:
        replay = Replay(recorder.archive())
        rounds = strategy.rounds(context(replay))
    seen = 0
    for part in rounds:
        seen += len(part)
        if seen <= replay.rows:  # recorded before
            if seen == replay.rows:
                recorder.trace.resume()
            continue
        recorder.add(part)
        if recorder.due:
            recorder.checkpoint(strategy.dump())
        yield


def _restored(rounds: Iterator[Evaluated]) -> Iterator[Evaluated]:
    """The rounds after a stored state; what goes wrong before the first ends is the state's fault.

    Raises:
        UserError: it does not fit the strategy.
    """
    try:
        first = next(rounds, None)
    except UserError:
        raise
    except Exception as error:
        raise UserError("the stored state of this search does not fit its algorithm") from error
    if first is not None:
        yield first
    yield from rounds


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
