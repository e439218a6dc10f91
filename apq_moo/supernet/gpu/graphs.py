"""Work that comes again, recorded as CUDA graphs: a replay costs the host next to nothing.

The host launches some two hundred kernels for a subnet's gradients, which takes it longer than a
small batch takes the GPU. The largest and the smallest subnet are trained in every step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SEEN_BEFORE = 20
"""Times that something is done without a graph first: kernels are compiled by then, and what does
not come much oftener, such as ten steps of fine-tuning, is not worth the recording."""

_MOST_WORK = 2**23
"""Pixels of a step's images that take a GPU about as long as the host takes to launch kernels."""

_REMEMBERED = 64
_KEPT = 16
"""Graphs at most: each keeps memory of its own."""


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    result: Tensor
    uses: tuple[Tensor, ...]


class Replays:
    """Does things, and records those that are done again and again.

    Whatever is recorded reads and writes the same memory whenever it is replayed: what it is given
    has to lie in tensors that stay, as :meth:`hold` provides them.

    Args:
        device: where everything lies; only work on a GPU is recorded.
    """

    def __init__(self, device: torch.device) -> None:
        self._enabled = self._possible = device.type == "cuda"
        self._recorded: OrderedDict[Hashable, _Recorded] = OrderedDict()
        self._seen: OrderedDict[Hashable, int] = OrderedDict()
        self._held: dict[str, Tensor] = {}
        self._pool: Any = None
        self._recording = False

    def allow(self, work: int) -> None:
        """Record from now on what is done, or only do it: large work waits for no launches.

        Each record of large work would also keep much memory.

        Args:
            work: pixels of all images of a step.
        """
        self._enabled = self._possible and work <= _MOST_WORK

    def forget(self) -> None:
        """Forget all records, because what they use has moved."""
        self._recorded.clear()
        self._seen.clear()
        self._pool = None  # it is gone with the last record

    def hold(self, name: str, x: Tensor) -> Tensor:
        """A copy of a tensor, in the same memory each time while its shape and type stay."""
        if not self._enabled:
            return x
        held = self._held.get(name)
        if held is None or held.shape != x.shape or held.dtype != x.dtype:
            self.forget()
            self._held[name] = held = torch.empty_like(x)
        return held.copy_(x)

    def do(
        self, key: Hashable, work: Callable[[], Tensor], uses: Callable[[], tuple[Tensor, ...]]
    ) -> Tensor:
        """Do some work, or replay it; work within work that is recorded is part of its record.

        Args:
            key: the same for the same work on the same memory.
            work: what to do; it must not wait for the device.
            uses: tensors that it uses beyond those that live as long as this object; they are kept.

        Returns:
            What the work returned, in memory of its own.
        """
        if not self._enabled or self._recording:
            return work()
        recorded = self._recorded.get(key)
        if recorded is None:
            if not self._often(key):
                return work()
            recorded = self._recorded[key] = self._record(work, uses)
            if len(self._recorded) > _KEPT:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(key)
        recorded.graph.replay()
        return recorded.result.clone()

    def _often(self, key: Hashable) -> bool:
        """Whether something has been done often; else this time is remembered."""
        times = self._seen.pop(key, 0)
        if times >= _SEEN_BEFORE:
            return True
        self._seen[key] = times + 1
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return False

    def _record(
        self, work: Callable[[], Tensor], uses: Callable[[], tuple[Tensor, ...]]
    ) -> _Recorded:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        self._recording = True
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                result = work()
        finally:
            self._recording = False
        return _Recorded(graph, result, uses())
