"""Which back end computes where a supernet lies: torch's own operators, or the GPU's kernels."""

from __future__ import annotations

from torch import Tensor

from apq_moo.supernet.devices import device_of, why_not_on_gpu
from apq_moo.supernet.evaluation import Evaluator, LogitsOf
from apq_moo.supernet.gradients import Gradients, TorchGradients
from apq_moo.supernet.network import Supernet


def evaluator_for(supernet: Supernet, calibration: Tensor) -> LogitsOf:
    """The fastest evaluator where a supernet lies.

    Args:
        supernet: on any device.
        calibration: calibration images, shape ``(n, c, h, w)``, anywhere.
    """
    if _has_kernels(supernet):
        from apq_moo.supernet.gpu.evaluator import GpuEvaluator

        return GpuEvaluator(supernet, calibration)
    return Evaluator(supernet, calibration.to(device_of(supernet)))


def gradients_on(supernet: Supernet, smoothing: float = 0.0, distillation: str = "kl") -> Gradients:
    """The fastest way to get gradients where a supernet lies."""
    if _has_kernels(supernet):
        from apq_moo.supernet.gpu.training import GpuGradients

        return GpuGradients(supernet, smoothing, distillation)
    return TorchGradients(supernet, smoothing, distillation)


def _has_kernels(supernet: Supernet) -> bool:
    return device_of(supernet).type == "cuda" and why_not_on_gpu(supernet.space) is None
