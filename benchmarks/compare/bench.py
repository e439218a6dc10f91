"""Running a benchmark's cells, in parallel, as far as they are not done yet."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from apq_moo.algorithms import ALGORITHMS, AlgorithmEntry
from apq_moo.benchmarks.compare.analysis import Analysis
from apq_moo.benchmarks.compare.bounds import bounds_of
from apq_moo.benchmarks.compare.cells import carry_out
from apq_moo.benchmarks.compare.metering import Meter
from apq_moo.benchmarks.compare.plan import BenchPlan, Cell, data_key, keys
from apq_moo.benchmarks.compare.store import Outcome, Store
from apq_moo.changes import changed
from apq_moo.deadlines import Deadline
from apq_moo.errors import UserError
from apq_moo.study.config import RunConfig, parse_objectives
from apq_moo.study.folder import alone
from apq_moo.study.inputs import refuse_changes
from apq_moo.study.own_algorithms import usable
from apq_moo.study.search import Search, check, problem_of
from apq_moo.versions import processor, versions
from apq_moo.workers import in_workers, signals_blocked

BACKENDS = ("loky", "dask", "ray")

_AT_A_TIME = 4
"""Cells of a process that ray works through before it hands over what was found."""


_NEEDS = {
    "dask": ("distributed", "dask's distributed: pip install 'apq-moo[dask]'"),
    "ray": ("ray", "ray: pip install ray"),
}
"""What back ends import, and how it is installed."""


def check_backend(backend: str, scheduler: str | None = None) -> None:
    """Check that a back end is known and installed, and joins a cluster if there is to be one.

    Raises:
        UserError: it is not, or does not.
    """
    if backend not in BACKENDS:
        raise UserError(f"unknown back end {backend!r}; known: {', '.join(BACKENDS)}")
    module, how = _NEEDS.get(backend, ("joblib", ""))
    if find_spec(module) is None:
        raise UserError(f"backend={backend!r} needs {how}")
    if scheduler is not None and backend == "loky":
        raise UserError(
            f"scheduler={scheduler!r} needs backend='dask' or backend='ray'; or leave it out"
        )


def data_of(plan: BenchPlan) -> dict[str, dict[str, str]]:
    """Checksums of what the results of a plan come from, by space and predictor.

    Raises:
        UserError: a predictor cannot be had, or a file not be read.
    """
    predicted = "acc" in plan.limits or any("acc" in text.split(",") for text in plan.objectives)
    objectives = ("acc",) if predicted else parse_objectives(plan.objectives[0])
    found = {}
    for space, predictor in ((s, p) for s in plan.spaces for p in plan.predictors_on(s)):
        search = Search(
            RunConfig(
                algo="random", objectives=objectives, space=space, device=plan.device,
                predictor=predictor, assets=plan.assets,
            )
        )  # fmt: skip
        found[data_key(space, predictor)] = search.data
    return found


def begin(folder: str | Path, plan: BenchPlan) -> Store:
    """Begin a benchmark in a new folder.

    Every kind of cell is checked before there is one, and that its predictor can be had.

    Raises:
        UserError: an unknown name, too small a budget, a limit that cannot be met; or see
            :func:`data_of` and :meth:`Store.create`.
    """
    plan = plan.loaded()
    with usable(plan.files, "the plan"):
        for cell in plan.with_given(seeds=1).cells():
            check(cell.config)
    about = {"versions": versions(), "processor": processor(), "data": data_of(plan)}
    return Store.create(folder, plan, about)


def grow(folder: str | Path, **given: Any) -> Store:
    """Add searches to a benchmark, perhaps one that is finished; :func:`run` carries them out.

    Args:
        folder: of the benchmark.
        **given: what there is to be more of; see :meth:`BenchPlan.grown`.

    Raises:
        UserError: there is no benchmark, another process carries it out, or what is new is refused
            as :func:`begin` and :meth:`BenchPlan.grown` do.
    """
    store = Store.open(folder)
    if not given:
        return store
    if "algos" in given:
        asked = BenchPlan(algos=given["algos"]).loaded()
        given |= {"algos": asked.algos, "files": asked.files}
    with alone(store.folder):  # what it holds is read within, too, lest two processes grow it
        plan = store.plan.grown(**given)
        if plan != store.plan:
            with usable(plan.files, str(store.folder)):
                for cell in plan.with_given(seeds=1).cells():
                    check(cell.config)
            known = store.about().get("data", {})
            store.note(plan=plan.to_dict(), data={**data_of(plan), **known})
    return store


def bench(
    folder: str | Path,
    plan: BenchPlan | None = None,
    *,
    jobs: int = 1,
    callback: Callable[[int, int, Outcome | None], None] = lambda _done, _total, _outcome: None,
    **given: Any,
) -> Analysis:
    """Compare algorithms: begin a benchmark, or go on with the one in a folder, and carry it out.

    Args:
        folder: of the benchmark; one that holds it already is continued, and grows by what is
            given.
        plan: what is compared, where it begins; default: :class:`BenchPlan`'s defaults.
        jobs: searches at a time.
        callback: see :func:`run`.
        **given: entries of the plan, such as ``algos=("nsga2", "random")`` and ``seeds=31``. An
            algorithm is a name, ``FILE.py:ENTRY``, or an :class:`AlgorithmEntry`, which is not
            stored: to go on, give it again. Worker processes get it pickled.

    Returns:
        The results; :func:`apq_moo.benchmarks.load` gives them as tables.

    Raises:
        UserError: see :func:`begin`, :func:`grow` and :func:`run`; or a search failed.
    """
    own = {algo.name: algo for algo in given.get("algos", ()) if isinstance(algo, AlgorithmEntry)}
    if own:
        names = (algo.name if isinstance(algo, AlgorithmEntry) else algo for algo in given["algos"])
        given["algos"] = tuple(names)
    with ALGORITHMS.including(own):
        if Store(Path(folder)).begun:
            if plan is not None and plan != Store.open(folder).plan:
                raise UserError(f"{folder} holds a benchmark of another plan; name another folder")
            store = grow(folder, **given)
        else:
            store = begin(folder, (plan or BenchPlan()).with_given(**given))
        _, failed = run(store, jobs=jobs, callback=callback)
    if failed:
        why = next(outcome.error for outcome in store.outcomes() if not outcome.ok)
        raise UserError(f"{failed} searches of {store.folder} failed, one of them so: {why}")
    return Analysis.of_bench(store.folder)


def run(
    store: Store,
    *,
    jobs: int = 1,
    backend: str = "loky",
    scheduler: str | None = None,
    callback: Callable[[int, int, Outcome | None], None] = lambda _done, _total, _outcome: None,
) -> tuple[int, int]:
    """Carry out the cells that are not in the store yet; see :func:`run_all`."""
    return run_all([store], jobs=jobs, backend=backend, scheduler=scheduler, callback=callback)


def run_all(
    stores: Sequence[Store],
    *,
    jobs: int = 1,
    backend: str = "loky",
    scheduler: str | None = None,
    on: Sequence[str] = (),
    deadline: Deadline | None = None,
    callback: Callable[[int, int, Outcome | None], None] = lambda _done, _total, _outcome: None,
) -> tuple[int, int]:
    """Carry out the cells of benchmarks that are not in their stores yet, all by the same workers.

    Args:
        stores: of the benchmarks, no two of which have a cell in common.
        jobs: cells at a time.
        backend: of joblib, one of :data:`BACKENDS`.
        scheduler: of a dask or ray cluster; by default one is started here for ``jobs`` cells.
        on: where torch measures accuracies; cells take turns on these. By default on a GPU if
            there is one.
        deadline: after which searches that have not ended are left, and none is begun;
            the next call begins them anew. Of what they had measured nothing is measured again.
        callback: told ``(cells done, in all, the latest)``, at first with None.

    Returns:
        How many cells are done, and how many have failed.

    Raises:
        UserError: see :func:`check_backend`; an algorithm whose plug-in is gone; where cells are
            left, other versions of the package or its libraries, or other data, than those that a
            benchmark was begun with; another process carries one out; or a worker was killed.
    """
    check_backend(backend, scheduler)
    total = 0
    todo: list[Cell] = []
    homes: dict[str, Store] = {}
    for store in stores:
        cells = store.plan.cells()
        left = _left(store, cells)
        total += len(cells)
        todo += left.values()
        homes |= dict.fromkeys(left, store)
    finished, failed = total - len(todo), 0
    callback(finished, total, None)
    if not todo:
        return finished, 0
    todo.sort(key=lambda cell: (cell.config.seed, -cell.config.budget))  # what takes longest first
    if on:
        todo = [
            replace(cell, config=replace(cell.config, on=on[i % len(on)]))
            for i, cell in enumerate(todo)
        ]
    working = list({id(store): store for store in homes.values()}.values())
    seconds = dict.fromkeys((store.folder for store in working), 0.0)
    begun = time.perf_counter()
    with (
        _alone(working),
        Meter() as meter,
        _cluster(backend, jobs, scheduler),
        closing(_carried_out(todo, jobs, backend, deadline)) as outcomes,
    ):
        for outcome in outcomes:
            if outcome.status == "left":
                continue
            store = homes[outcome.cell.key]
            store.put(outcome)
            seconds[store.folder] += sum(outcome.seconds.values())
            finished += outcome.ok
            failed += not outcome.ok
            callback(finished + failed, total, outcome)
    spent = {"seconds": time.perf_counter() - begun, **meter.figures()}
    for store in working:
        # Of what was spent together each has its share of the searching.
        share = seconds[store.folder] / (sum(seconds.values()) or 1.0) if working[1:] else 1.0
        own = {k: v * share if isinstance(v, float) else v for k, v in spent.items()}
        known = store.about().get("cost", [])
        store.note(cost=[*known, {**own, "jobs": jobs, "backend": backend}])
        _note_bounds(store)
    return finished, failed


def _left(store: Store, cells: Sequence[Cell]) -> dict[str, Cell]:
    """The cells that are not in a store yet, by key, after whatever forbids to go on was checked.

    Raises:
        UserError: see :func:`run_all`.
    """
    done = store.finished()
    left = {key: cell for cell, key in zip(cells, keys(cells), strict=True) if key not in done}
    if not left:
        return {}
    then, now = store.about().get("versions"), versions()
    if then != now:
        raise UserError(
            f"{store.folder} was begun with other versions ({changed(then, now)}); begin a new "
            "benchmark, so that its cells can be compared"
        )
    needed = {cell.config.algo for cell in left.values()}
    files = {name: file for name, file in store.plan.files.items() if name in needed}
    with usable(files, str(store.folder)):
        for algo in needed:
            ALGORITHMS.get(algo)
    if done:
        known = store.about().get("data", {})  # which earlier versions did not note
        for part, found in data_of(store.plan).items():
            refuse_changes(found, known.get(part), str(store.folder))
    return left


@contextmanager
def _alone(stores: Sequence[Store]) -> Iterator[None]:
    """Keep other processes out of all of them."""
    with ExitStack() as locks:
        for store in stores:
            locks.enter_context(alone(store.folder))
        yield


def _note_bounds(store: Store) -> None:
    """Keep every problem's bounds beside the results."""
    bounds = {}
    for cell in store.plan.with_given(seeds=1).cells():
        if cell.problem not in bounds:
            bounds[cell.problem] = bounds_of(problem_of(cell.config)).to_dict()
    store.note(bounds=bounds)


def _carried_out(
    cells: Sequence[Cell], jobs: int, backend: str, deadline: Deadline | None
) -> Generator[Outcome, None, None]:
    """Outcomes as they come; some at a time with ray, whose joblib back end gives only lists."""
    from joblib import Parallel, delayed

    own = ALGORITHMS.included  # which workers do not know by name
    if backend == "loky":
        yield from in_workers(carry_out, ((cell, own, deadline) for cell in cells), jobs)
    elif backend == "ray":
        size = _AT_A_TIME * jobs
        for start in range(0, len(cells), size):
            part = cells[start : start + size]
            calls = (delayed(carry_out)(cell, own, deadline) for cell in part)
            yield from Parallel(n_jobs=jobs, batch_size=1)(calls)
    else:
        work = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
        yield from work(delayed(carry_out)(cell, own, deadline) for cell in cells)


@contextmanager
def _cluster(backend: str, jobs: int, scheduler: str | None) -> Iterator[None]:
    """Within it, joblib works where it was asked to."""
    from joblib import parallel_config

    if backend == "loky":
        yield
    elif backend == "dask":
        with _dask(jobs, scheduler), parallel_config("dask"):
            yield
    else:
        _ray(jobs, scheduler)
        with parallel_config("ray"):
            yield


def _dask(jobs: int, scheduler: str | None) -> AbstractContextManager[Any]:
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client: AbstractContextManager[Any] = Client(scheduler, timeout=10)
        except (OSError, ValueError) as error:
            raise UserError(f"no dask scheduler answers at {scheduler}: {error}") from error
        return client
    return _local_dask(Client, LocalCluster, jobs)


@contextmanager
def _local_dask(client: Any, cluster: Any, jobs: int) -> Iterator[Any]:
    with ExitStack() as begun:
        with signals_blocked():  # also so that there is no client half begun
            workers = cluster(
                n_workers=jobs, threads_per_worker=1, dashboard_address=None,
                silence_logs=logging.CRITICAL,  # what goes wrong is raised here
            )  # fmt: skip
            found = begun.enter_context(client(begun.enter_context(workers)))
        found.run(_quiet)
        yield found


def _quiet() -> None:
    """Let a worker of dask say nothing of what its end leaves open."""
    sys.unraisablehook = lambda _: None


def _ray(jobs: int, scheduler: str | None) -> None:
    import ray
    from ray.util.joblib import register_ray

    if not ray.is_initialized():
        given = {"address": scheduler} if scheduler else {"num_cpus": jobs}
        ray.init(include_dashboard=False, log_to_driver=False, **given)
    register_ray()
