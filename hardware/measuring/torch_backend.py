"""Torch: fp32 on a processor; fp16 and fp32 on a GPU, as CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apq_moo.errors import UserError
from apq_moo.hardware.measuring.timing import Runner, timed
from apq_moo.space import Layer, Space, Subnet
from apq_moo.space.spec import FLOAT_BITS
from apq_moo.versions import processor

_WARM_UP = 3


class _Conv(nn.Conv2d):
    """A convolution that casts what it reads to its own precision."""

    def __init__(self, layer: Layer, *, activation: bool) -> None:
        super().__init__(
            *(layer.c_in, layer.c_out, layer.kernel, layer.stride, layer.padding),
            groups=layer.groups,
        )
        self.activation = activation
        self.to(torch.float32 if layer.a_bits == FLOAT_BITS else torch.float16)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(n, c, h, w)``."""
        y = super().forward(x.to(self.weight.dtype))
        return F.relu6(y, inplace=True) if self.activation else y


class _Network(nn.Module):
    """A subnet of random weights, with batch norms folded."""

    def __init__(self, space: Space, subnet: Subnet) -> None:
        super().__init__()
        self.layers: Sequence[Layer] = space.layers(subnet)
        self.convs = nn.ModuleList(
            _Conv(layer, activation=layer.activation is not None) for layer in self.layers
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ``(n, c, h, w)``."""
        held = x
        for layer, conv in zip(self.layers, self.convs, strict=True):
            if layer.opens_shortcut:
                held = x
            if layer.component == "classifier":
                x = x.mean((2, 3), keepdim=True)
            x = conv(x)
            if layer.closes_shortcut:
                x = x + held
        return x


class Torch:
    """Eager torch on a processor; CUDA graphs on a GPU.

    Args:
        threads: of each operator on a processor.
        on: ``cpu``, ``cuda`` or ``cuda:<i>``.

    Raises:
        UserError: there is no such device.
    """

    def __init__(self, threads: int, on: str) -> None:
        try:
            self._device = torch.device(on)
        except RuntimeError as error:
            raise UserError(f"on={on!r}: use cpu, cuda or cuda:0") from error
        if self._device.type not in {"cpu", "cuda"}:
            raise UserError(f"on={on!r}: use cpu, cuda or cuda:0")
        if self._device.type == "cuda" and (self._device.index or 0) >= torch.cuda.device_count():
            raise UserError(f"on={on!r}: torch sees {torch.cuda.device_count()} GPUs here")
        self.bits: tuple[int, ...] = (16, 32) if self._device.type == "cuda" else (32,)
        self._threads = threads
        torch.set_num_threads(threads)

    def describe(self) -> dict[str, Any]:
        """See :meth:`Backend.describe`."""
        cuda = self._device.type == "cuda"
        return {
            "backend": "torch",
            "on": str(self._device),
            "threads": self._threads,
            "processor": torch.cuda.get_device_name(self._device) if cuda else processor(),
            "torch": torch.__version__,
            "tf32": bool(cuda and torch.backends.cudnn.allow_tf32),
        }

    def layer(self, layer: Layer) -> Runner:
        """See :meth:`Backend.layer`."""
        dtype = torch.float32 if layer.a_bits == FLOAT_BITS else torch.float16
        return self._runner(_Conv(layer, activation=True), layer, dtype)

    def network(self, space: Space, subnet: Subnet) -> Runner:
        """See :meth:`Backend.network`."""
        return self._runner(_Network(space, subnet), space.layers(subnet)[0], torch.float32)

    def trivial(self, operators: int) -> Runner:
        """See :meth:`Backend.trivial`; negates one number."""
        number = torch.zeros(1, device=self._device)

        def negate() -> None:
            for _ in range(operators):
                number.neg_()

        return self._timed(negate)

    def _runner(self, module: nn.Module, first: Layer, dtype: torch.dtype) -> Runner:
        module.eval().to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = torch.rand(1, first.c_in, first.size, first.size, device=self._device, dtype=dtype)
        image = image.to(memory_format=torch.channels_last)
        return self._timed(lambda: module(image))

    def _timed(self, call: Any) -> Runner:
        if self._device.type == "cpu":
            return torch.inference_mode()(timed(call))
        stream = torch.cuda.Stream(self._device)
        with torch.inference_mode(), torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                call()
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                call()

        def run(times: int) -> float:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            with torch.cuda.stream(stream):
                begin.record()
                for _ in range(times):
                    graph.replay()
                end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / times

        return run
