"""Times of what a workspace launches, layer by layer, on a GPU or interpreted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from apq_moo.space import Layer
from apq_moo.supernet.gpu.operands import Source, Target
from apq_moo.supernet.gpu.workspace import Workspace

_TIMED = (
    "bands", "close", "convolve", "pooled_gradient", "settle", "settle_gradient", "weight_gradient",
)  # fmt: skip


@dataclass
class Launched:
    """Launches of one kind for one layer.

    Attributes:
        what: the workspace's method; ``convolve_raw`` where it writes raw outputs, and
            ``input_gradient`` where it convolves backwards.
        layer: its name.
        shape: its shape.
        ms: milliseconds, added up.
        moved: bytes of activations that it read or wrote, added up.
        count: how many there were.
    """

    what: str
    layer: str
    shape: str
    ms: float = 0.0
    moved: int = 0
    count: int = 0

    @property
    def rate(self) -> float:
        """Gigabytes a second."""
        return self.moved / max(self.ms, 1e-9) / 1e6


class _Moment:
    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        self._s = time.perf_counter()
        if self._event is not None:
            self._event.record()

    def until(self, other: _Moment) -> float:
        """Milliseconds."""
        if self._event is None or other._event is None:
            return 1e3 * (other._s - self._s)
        return float(self._event.elapsed_time(other._event))


@contextmanager
def timed(work: Workspace) -> Iterator[Callable[[], list[Launched]]]:
    """Time what a workspace launches within the context.

    Yields:
        A function that gives the launches of each layer, the longest first, once they are done.
    """
    noted: list[tuple[Launched, _Moment, _Moment]] = []

    def wrapped(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            begun = _Moment(work.device)
            result = method(*args, **options)
            noted.append((_described(name, args), begun, _Moment(work.device)))
            return result

        return call

    def found() -> list[Launched]:
        if work.device.type == "cuda":
            torch.cuda.synchronize()
        total: dict[tuple[str, str, str], Launched] = {}
        for one, begun, ended in noted:
            kept = total.setdefault((one.what, one.layer, one.shape), one)
            kept.ms += begun.until(ended)
            kept.count += 1
            if kept is not one:
                kept.moved += one.moved
        return sorted(total.values(), key=lambda one: -one.ms)

    repeats, work.repeats = work.repeats, False
    for name in _TIMED:
        setattr(work, name, wrapped(name, getattr(work, name)))
    try:
        yield found
    finally:
        work.repeats = repeats
        for name in _TIMED:
            delattr(work, name)


def _described(name: str, args: tuple[Any, ...]) -> Launched:
    layer = next(x for x in args if isinstance(x, Layer))
    tensors: list[Tensor | None] = []
    for x in args:
        if isinstance(x, Source):
            tensors += [x.data, x.raw]
            name = "input_gradient" if x.how == 4 and name == "convolve" else name
        elif isinstance(x, Target):
            tensors += [x.data, x.other, x.raw, x.entered]
            name = "convolve_raw" if x.how == 0 else name
        elif isinstance(x, Tensor) and name in ("close", "pooled_gradient", "weight_gradient"):
            tensors.append(x)
    moved = sum(x.numel() * x.element_size() for x in tensors if x is not None)
    shape = (
        f"{layer.c_in}->{layer.c_out} k{layer.kernel} s{layer.stride} "
        f"{layer.size}->{layer.size_out}px"
    )
    return Launched(name, layer.name, shape, moved=moved)
