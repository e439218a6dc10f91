"""What runs layers and networks: inference engines by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from apq_moo.hardware.measuring.timing import Runner
from apq_moo.registry import Registry
from apq_moo.space import Layer, Space, Subnet


class Backend(Protocol):
    """An inference engine on one machine.

    Attributes:
        bits: what it runs, for weights and activations alike; 32 is floating point.
    """

    bits: tuple[int, ...]

    def describe(self) -> dict[str, Any]:
        """Everything that times depend on: name, versions, threads, processor."""

    def layer(self, layer: Layer) -> Runner:
        """A layer with its activation function, as it runs within a network of these bits."""

    def network(self, space: Space, subnet: Subnet) -> Runner:
        """A whole network, from its image in floating point to its logits."""

    def trivial(self, operators: int) -> Runner:
        """A chain of operators that do next to nothing, which shows what a run and a call cost."""


BACKENDS: Registry[Callable[[int, str], Backend]] = Registry("backend")
"""Makers of backends by name, from the number of threads and where to run (``cpu``, ``cuda``)."""


@BACKENDS.add("onnxruntime")
def _onnxruntime(threads: int, on: str) -> Backend:
    from apq_moo.hardware.measuring.onnx_backend import OnnxRuntime

    return OnnxRuntime(threads, on)


@BACKENDS.add("torch")
def _torch(threads: int, on: str) -> Backend:
    from apq_moo.hardware.measuring.torch_backend import Torch

    return Torch(threads, on)
