"""Work in other processes, none of which outlives this one."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from apq_moo.errors import UserError

R = TypeVar("R")

_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when the thread that began it ends."""

_EVERY_S = 1.0
"""Seconds between looks at the parent, where the system tells nobody of its end."""


class WorkerLostError(UserError):
    """A worker process was killed; what the others had handed over is not lost."""


def in_workers(
    function: Callable[..., R],
    calls: Iterable[tuple[Any, ...]],
    jobs: int,
    *,
    ordered: bool = False,
    threads: int | None = 1,
) -> Generator[R, None, None]:
    """Call a function in processes, each of which ends with this one, however that ends.

    Close the generator (:func:`contextlib.closing`) where it may be left before its end: that ends
    the workers.

    Args:
        function: of a module, since workers find it by its name.
        calls: the arguments of each call.
        jobs: processes; a single one is this process.
        ordered: whether results come in the order of the calls, not as they are done.
        threads: of each process; None shares the processors out.

    Yields:
        The results.

    Raises:
        WorkerLostError: a worker was killed.
    """
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with parallel_config(
        "loky", inner_max_num_threads=threads, initializer=end_with, initargs=(os.getpid(),)
    ):
        return_as = "generator" if ordered else "generator_unordered"
        parallel = Parallel(n_jobs=jobs, return_as=return_as, batch_size=1)
    with signals_blocked():
        # Workers are used again, and would stay where this process was when they began.
        folder = _here()
        results = parallel(delayed(_at)(folder, function, call) for call in calls)
    try:
        for result in results:  # noqa: UP028 (it would close them outside of what follows)
            yield result
    except TerminatedWorkerError as error:
        raise WorkerLostError(
            f"a worker process was killed, perhaps for want of memory: lower jobs={jobs}"
        ) from error
    finally:
        with warnings.catch_warnings(action="ignore"):  # joblib's, of what is cancelled
            results.close()


def _here() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:  # it was deleted
        return None


def _at(folder: Path | None, function: Callable[..., R], call: tuple[Any, ...]) -> R:
    """Call a function where relative paths mean what they mean to whoever asks for it."""
    if folder is not None and folder != _here():
        os.chdir(folder)
    return function(*call)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes begun within are deaf to Ctrl-C and SIGTERM, which this one heeds for them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing.resource_tracker import ensure_running

    ensure_running()  # loky does, and beginning it lets the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int) -> None:
    """Let this process, a worker, end when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before it was watched
            os._exit(1)
    else:
        Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_EVERY_S)
    os._exit(1)
