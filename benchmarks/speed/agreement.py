"""Whether the kernels give what torch's own operators give, at any size of images.

Run as ``python -m apq_moo.benchmarks.speed.agreement --space imagenet``. On random images:

* layers: every convolution of the largest subnet, with every size of its kernel: its output and the
  gradients of its input and its weight, against float32 by autograd;
* logits of the largest, the smallest and random subnets: at their bits to the last bit, in full
  precision to the tolerance of half precision;
* gradients of a training step against autograd in float32, parameter by parameter.

It prints what it finds as it goes, the worst first, and exits 1 if anything is further off.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from apq_moo.errors import reported
from apq_moo.space import Layer, Space, Subnet, load_space
from apq_moo.supernet.devices import torch_device
from apq_moo.supernet.evaluation import Evaluator
from apq_moo.supernet.gradients import Student, TorchGradients
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.range_fitting import fit_ranges

OFF = {"output": 2e-3, "input gradient": 2e-2, "weight gradient": 2e-2, "logits": 0.05, "step": 0.5}
"""What may differ, relative to the norm (logits: to their spread)."""


def spaced(x: Tensor, n: int, size: int) -> Tensor:
    """Images of shape ``(n, c, size, size)`` from activations as the kernels store them."""
    from apq_moo.supernet.gpu.sizes import plane_of

    planes = x[:, : n * plane_of(size)].view(len(x), n, -1)[:, :, : size * size]
    return planes.reshape(len(x), n, size, size).transpose(0, 1).float()


def distance(found: Tensor, wanted: Tensor) -> float:
    """The difference's norm, relative to what is wanted."""
    return float((found - wanted).double().norm() / wanted.double().norm().clamp_min(1e-12))


def convolutions(space: Space) -> list[Layer]:
    """Every shape of convolution of the largest subnet, with every size of its kernel."""
    shapes: dict[tuple[int, ...], Layer] = {}
    for layer in space.layers(space.decode(space.largest())[0]):
        if layer.component == "classifier":
            continue
        kernels: Sequence[int] = [layer.kernel]
        if layer.block is not None and layer.groups > 1:
            kernels = space.plans[layer.block].options["kernel"]
        for kernel in kernels:
            one = replace(layer, kernel=kernel)
            shape = (one.c_in, one.c_out, one.size, one.kernel, one.stride, one.groups)
            shapes.setdefault(shape, one)
    return list(shapes.values())


def layer_errors(space: Space, layer: Layer, n: int, device: torch.device) -> dict[str, float]:
    """Relative errors of one convolution's output and gradients on random numbers."""
    from apq_moo.supernet.gpu import primitives
    from apq_moo.supernet.gpu.operands import Source, Target, Weight
    from apq_moo.supernet.gpu.sizes import to_planes
    from apq_moo.supernet.gpu.workspace import Workspace

    forward, backward = torch.float16, torch.bfloat16
    if device.type == "cpu":  # what is interpreted knows no bfloat16
        forward = backward = torch.float32
    work = Workspace(space, device, forward_type=forward, backward_type=backward)
    work.vectors.p[0].fill_(1.0)
    x = torch.randn(n, layer.c_in, layer.size, layer.size, device=device)
    x = x.half().float().requires_grad_()
    shape = (layer.c_out, layer.c_in // layer.groups, layer.kernel, layer.kernel)
    w = (torch.randn(shape, device=device) / shape[1] ** 0.5 / layer.kernel).half().float()
    w.requires_grad_()
    y = F.conv2d(x, w, None, layer.stride, layer.padding, groups=layer.groups)
    du = torch.randn_like(y).to(backward).float()
    y.backward(du)
    assert x.grad is not None
    assert w.grad is not None
    with torch.no_grad():
        weight = Weight(w.detach().flatten(1).contiguous(), shape[1] * layer.kernel**2)
        source = Source(to_planes(x.detach()).to(forward), primitives.IN_PLAIN.value)
        raw = work.activations("raw", layer, n, torch.float32)
        bands = work.bands("bands", layer, weight)
        work.convolve(layer, bands, source, Target(raw, primitives.OUT_RAW.value), n)
        found = {"output": distance(spaced(raw, n, layer.size_out), y)}
        gradient = to_planes(du).to(backward)
        raw = raw.to(forward)
        grad = torch.zeros_like(weight.data)
        work.weight_gradient(0, layer, gradient, raw, source, n, grad)
        found["weight gradient"] = distance(grad, w.grad.flatten(1))
        if layer.component == "stem":
            return found
        before = work.activations("before", layer, n, backward, back=True)
        back = Source(gradient, primitives.IN_GRADIENT.value, raw=raw)
        target = Target(before, primitives.OUT_GRADIENT.value, raw=torch.zeros_like(before))
        bands = work.bands("bands", layer, weight, back=True)
        work.convolve(layer, bands, back, target, n)
        found["input gradient"] = distance(spaced(before, n, layer.size), x.grad)
    return found


def errors(
    supernet: Supernet, subnets: Sequence[Subnet], calibration: Tensor, images: Tensor
) -> Iterator[tuple[str, str, float]]:
    """Of each subnet: the kind of error, where, and how large it is."""
    from apq_moo.supernet.gpu.evaluator import GpuEvaluator
    from apq_moo.supernet.gpu.training import GpuGradients

    types = torch.float16, torch.bfloat16
    if images.device.type == "cpu":
        types = torch.float32, torch.float32
    reference = Evaluator(supernet, calibration, batch_size=32)
    kernels = GpuEvaluator(supernet, calibration)
    by_kernels = GpuGradients(supernet, forward_type=types[0], backward_type=types[1])
    ways = TorchGradients(supernet), by_kernels
    y = torch.arange(len(images), device=images.device) % supernet.space.spec.classes
    for number, subnet in enumerate(subnets):
        for quantised in (True, False):
            wanted = reference.logits(subnet, images, quantised=quantised)
            off = (kernels.logits(subnet, images, quantised=quantised) - wanted).abs().max()
            kind = "bits" if quantised else "logits"
            yield kind, f"subnet {number}", float(off / wanted.std())
        for quantised in (False, True):
            found = []
            for way in ways:
                supernet.zero_grad(set_to_none=True)
                way.step(images, y, [Student(subnet, quantised)])
                found.append(
                    {
                        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                        for name, p in supernet.named_parameters()
                    }
                )
            wanted_norm = [float(g.norm()) for g in found[0].values()]
            least = 0.1 * float(np.median([norm for norm in wanted_norm if norm > 0]))
            for name, wanted in found[0].items():
                off = (found[1][name] - wanted).norm() / wanted.norm().clamp_min(least)
                at = "at bits" if quantised else "full precision"
                yield "step", f"subnet {number}, {at}, {name}", float(off)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the errors of layers, logits and gradients.

    Raises:
        SystemExit: some are larger than they may be.
    """
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--space", default="imagenet")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--subnets", type=int, default=2, help="random ones, beside both ends")
    parser.add_argument("--on", default="cuda")
    args = parser.parse_args(argv)
    device, space = torch_device(args.on), load_space(args.space)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    wrong = 0
    for layer in convolutions(space):
        found = layer_errors(space, layer, args.images, device)
        worse = [kind for kind, error in found.items() if not error <= OFF[kind]]
        wrong += len(worse)
        shape = f"{layer.c_in}->{layer.c_out} k{layer.kernel} s{layer.stride} {layer.size}px"
        texts = [f"{kind} {error:.1e}" for kind, error in found.items()]
        _say(f"{'WRONG ' if worse else ''}{layer.name} {shape}: {', '.join(texts)}")
    supernet = Supernet(space).to(device)
    spec = space.spec
    size = (2 * args.images, spec.input_channels, spec.input_size, spec.input_size)
    x = torch.rand(size, device=device).half().float()
    calibration, images = x.chunk(2)
    fit_ranges(supernet, calibration, subnets=4)
    rows = [space.largest(), space.smallest(), space.sample(args.subnets, np.random.default_rng(0))]
    kinds: dict[str, list[tuple[float, str]]] = {}
    for kind, where, error in errors(supernet, space.decode(np.vstack(rows)), calibration, images):
        kinds.setdefault(kind, []).append((error, where))
        if kind != "step":
            _say(f"{where}: {kind} {error:.1e}")
    for kind, all_of_it in kinds.items():
        limit = OFF.get(kind, 0.0)
        worst = sorted(all_of_it, key=lambda one: -one[0] if one[0] == one[0] else -np.inf)
        wrong += sum(not error <= limit for error, _ in worst)
        for error, where in worst[:3]:
            _say(f"{'WRONG ' if not error <= limit else ''}{kind}: {where}: {error:.1e}")
    _say(f"{wrong} are further off than they may be")
    if wrong:
        raise SystemExit(1)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    with reported():
        main()
