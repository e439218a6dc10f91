"""Which back end computes where a supernet lies: torch's own operators, or the GPU's kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from apq_moo.errors import warn
from apq_moo.supernet.devices import device_of, why_not_on_gpu, why_not_on_this
from apq_moo.supernet.distributed import ALONE, Group
from apq_moo.supernet.evaluation import Evaluator, LogitsOf
from apq_moo.supernet.gradients import Gradients, TorchGradients
from apq_moo.supernet.network import Supernet, batch_norm
from apq_moo.supernet.shared_norm import norm_over


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


def gradients_on(
    supernet: Supernet,
    smoothing: float = 0.0,
    distillation: str = "kl",
    *,
    group: Group = ALONE,
    tried: bool = False,
    precision: str = "float32",
) -> Gradients:
    """The fastest way to get gradients where a supernet lies.

    Args:
        supernet: on any device.
        smoothing: see :class:`apq_moo.supernet.gradients.TorchGradients`.
        distillation: likewise.
        group: processes whose images share batch-norm statistics, which the GPU's kernels cannot.
        tried: whether it is only tried what fits: as for the group, but nobody is sent anything.
        precision: of torch's own operators, see the same; the kernels' is half precision.
    """
    alone = group.size == 1
    if _has_kernels(supernet) and (alone or _left_to_torch()):
        from apq_moo.supernet.gpu.training import GpuGradients

        return GpuGradients(supernet, smoothing, distillation)
    norm = batch_norm if alone else norm_over(ALONE if tried else group)
    return TorchGradients(supernet, smoothing, distillation, norm=norm, precision=precision)


def _left_to_torch() -> bool:
    warn(
        "the GPU's kernels do not share batch-norm statistics between processes; torch's own "
        "operators train instead"
    )
    return False


def _has_kernels(supernet: Supernet) -> bool:
    """Whether the kernels run a supernet where it lies; where a GPU does not, it says why."""
    device = device_of(supernet)
    if device.type != "cuda":
        return False
    reason = why_not_on_gpu(supernet.space) or why_not_on_this(
        torch.cuda.get_device_capability(device)
    )
    if reason is not None:
        warn(f"{reason}; torch's own operators run instead")
    return reason is None
