"""Ctrl-C and SIGTERM: one line and an exit code, whenever they come."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

from apq_moo.workers import WorkerLostError

_REPEATED_S = 1.0
"""Seconds within which a signal is the same one again, sent to the group and to the process."""


class Stopped(BaseException):
    """A signal asked the command to stop.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__("interrupted")
        self.number = number


@contextmanager
def going_on(kept: Callable[[], str]) -> Iterator[None]:
    """What is said if the work within is stopped, or loses a worker.

    Args:
        kept: says what is kept, and how to go on.
    """
    try:
        yield
    except (Stopped, WorkerLostError) as stop:
        with _deaf():  # torch takes a signal in a file that it reads for damage
            stop.add_note(kept())
        raise


@contextmanager
def _deaf() -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM do nothing: what stops has been stopped already."""
    if current_thread() is not main_thread():  # where Python sets no handlers
        yield
        return
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM raise :class:`Stopped`; not where they were to be ignored."""
    latest = -1.0

    def stop(number: int, _frame: object) -> None:
        nonlocal latest
        now = time.monotonic()
        if now - latest > _REPEATED_S:
            latest = now
            raise Stopped(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    if current_thread() is not main_thread():  # where Python sets no handlers
        heard = []
    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
