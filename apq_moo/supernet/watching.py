"""Processes that train together end together, whichever of them ends before its time.

A process that waits for another one in a message notices at once if that one's connection breaks,
as gloo's does. NCCL's waits for minutes, and a host that is cut off breaks nothing. So each process
counts in the store that they met by, every other second, and looks whether the next one counts on;
the last one looks at the first. What one of them finds it writes there for all.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread

import torch
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from apq_moo.errors import one_line
from apq_moo.supernet.distributed import Group

BEAT_S = 2.0
"""Seconds between looks."""

SILENT = 8
"""Looks in a row at which another process has not counted on, and is taken for lost."""

_GRACE = 2
"""Looks that a process has to end by itself once another is lost."""

_STORE_S = 10.0


@contextmanager
def watched(group: Group, device: torch.device) -> Iterator[None]:
    """Within, this process ends, with code 2 and one line, when another of the group is lost.

    All processes of the group enter and leave together.

    Args:
        group: this process among others; alone it is not watched.
        device: by which they send each other messages.
    """
    if group.size == 1:
        yield
        return
    # The store outlives a training, and what earlier ones left there is not meant.
    drawn = torch.tensor([secrets.randbelow(2**53)], device=device)
    watch = _Watch(group, PrefixStore(f"watch{int(group.gather(drawn)[0])}", _store()))
    watch.start()
    try:
        yield
    except BaseException:
        watch.end(failed=True)
        raise
    watch.end()


def _store() -> Store:
    """A connection of its own, since a store's cannot be shared by threads."""
    return TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False,
        timeout=timedelta(seconds=_STORE_S), wait_for_workers=False,
    )  # fmt: skip


class _Watch(Thread):
    """Ends this process; its looks are a thread of their own, since a store may never answer."""

    def __init__(self, group: Group, store: Store) -> None:
        super().__init__(daemon=True)
        self._group, self._store = group, store
        self._next = (group.rank + 1) % group.size
        self._over = Event()
        self._failed = False
        self._lost = ""
        self._looks = 0
        self._looking = Thread(target=self._look_on, daemon=True)

    def start(self) -> None:
        """Begin to count and to look."""
        self._looking.start()
        super().start()

    def end(self, *, failed: bool = False) -> None:
        """Stop watching; the others are told if this process failed."""
        self._failed = failed
        self._over.set()
        self._looking.join(_STORE_S)

    def run(self) -> None:
        """Wait until this process ends, or until another is lost."""
        silence = _Silence()
        while not self._over.wait(BEAT_S) and not self._lost:
            if silence.after(self._looks):
                self._lost = "the process that keeps their store does not answer"
        if self._over.wait(_GRACE * BEAT_S):
            return
        mend = "repeat the command to go on from the last checkpoint"
        sys.stderr.write(f"{one_line(f'error: {self._lost}; {mend}')}\n")
        sys.stderr.flush()
        os._exit(2)  # the main thread may wait for the lost process

    def _look_on(self) -> None:
        try:
            self._lost = self._look()
        except RuntimeError:
            self._lost = "the process that keeps their store cannot be reached"

    def _look(self) -> str:
        """Count, and look, until this process ends or another is lost.

        Returns:
            What is said of that; nothing where all is well.
        """
        group, store, silence = self._group, self._store, _Silence()
        while not self._over.wait(BEAT_S):
            self._looks += 1
            store.add(f"{group.rank}", 1)
            if store.add("lost", 0):
                return store.get("why").decode()
            if silence.after(store.add(f"{self._next}", 0)):
                if store.add(f"{self._next} left", 0):
                    continue
                why = f"has not been heard of for {SILENT * BEAT_S:.0f} s"
                return self._tell(f"process {self._next} of {group.size} {why}")
        store.add(f"{group.rank} left", 1)
        if self._failed:
            self._tell(f"process {group.rank} of {group.size} ended; see what it said")
        return ""

    def _tell(self, why: str) -> str:
        self._store.set("why", why)
        self._store.add("lost", 1)
        return why


class _Silence:
    """Whether something that should grow has not for :data:`SILENT` looks in a row."""

    def __init__(self) -> None:
        self._seen, self._times = -1, 0

    def after(self, counted: int) -> bool:
        """What a look found; whether that was one too many without more than before."""
        self._times = 0 if counted != self._seen else self._times + 1
        self._seen = counted
        return self._times >= SILENT
