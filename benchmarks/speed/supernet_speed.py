"""How fast subnets are evaluated and trained on a GPU, two ways, against the memory's floor.

Run as ``python -m apq_moo.benchmarks.speed.supernet_speed --space SPACE``. A subnet is calibrated
on 1,000 images (batch-norm statistics, activation ranges) and classifies 10,000:

* naive: its weights are sliced and torch's convolutions (cuDNN) run them, subnet by subnet;
* kernels: what the package uses.

They must agree before anything is timed: the same accuracy to 0.1 points, the kernels' quantised
logits to the last bit, others to the tolerance of half precision.

The kernels' random subnets are timed three ways: the ones that have just been run; others, each for
the first time, after as many as ``--before``, as in a search; and the first again with launches
that are found anew and started one by one.

The floor of a subnet is the traffic of its own active tensors in 16 bits, each convolution reading
its input and writing its output once for every image, over the bandwidth of a large copy in the
same run. The calibration images are not counted.

Training is compared at equal batch and subnets a step: autograd through sliced weights, and the
kernels; their gradients must agree first.

A space that has no images is measured on random ones of its size, layer by layer too, as
:mod:`apq_moo.benchmarks.speed.large_images` says; :mod:`apq_moo.benchmarks.speed.agreement` tells
beforehand whether the kernels are right there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apq_moo.data import images_of, load_images
from apq_moo.errors import reported
from apq_moo.files import write_json
from apq_moo.space import Space, Subnet, load_space
from apq_moo.supernet.backends import evaluator_for, gradients_on
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.devices import torch_device
from apq_moo.supernet.evaluation import Evaluator
from apq_moo.supernet.gradients import Gradients, Student, TorchGradients
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.range_fitting import fit_ranges
from apq_moo.versions import versions


@dataclass(frozen=True)
class Timing:
    """Milliseconds a subnet, and how they compare.

    Attributes:
        naive: of the sliced subnets.
        kernels: mean over the random subnets, which have been run before.
        others: likewise, of subnets that have not.
        one_by_one: of the former, every launch found anew.
        floor: the same mean of their floors.
        largest: of the largest subnet, and its floor.
        smallest: of the smallest, and its floor.
    """

    naive: float
    kernels: float
    others: float
    one_by_one: float
    floor: float
    largest: tuple[float, float]
    smallest: tuple[float, float]


def seconds(device: torch.device, work: Callable[[], object], repeats: int = 5) -> float:
    """Mean time of a call, after one that is not counted."""
    work()
    wait(device)
    begun = time.perf_counter()
    for _ in range(repeats):
        work()
    wait(device)
    return (time.perf_counter() - begun) / repeats


def wait(device: torch.device) -> None:
    """Until all that was launched is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def copied(device: torch.device, size: int = 2**30) -> float:
    """Bytes a second that a copy reads and writes."""
    a = torch.empty(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * size / seconds(device, lambda: b.copy_(a), 20)


@contextmanager
def launched_one_by_one(way: Any) -> Iterator[None]:
    """Whatever the kernels launch is found anew, as if nothing had been launched before."""
    work = getattr(way, "_work", None)  # torch's own operators have none
    if work is None:
        yield
        return
    work.repeats = False
    try:
        yield
    finally:
        work.repeats = True


class Speed:
    """Measurements on one device.

    Args:
        supernet: on the device.
        calibration: images, shape ``(n, c, h, w)``, on the device.
        images: images to classify, on the device.
        labels: of these.
    """

    def __init__(
        self, supernet: Supernet, calibration: Tensor, images: Tensor, labels: Tensor
    ) -> None:
        self.supernet = supernet
        self.space = supernet.space
        self.calibration = calibration
        self.images = images
        self.labels = labels
        self.device = images.device
        self.naive = Evaluator(supernet, calibration, batch_size=len(images))
        self.kernels = evaluator_for(supernet, calibration)

    def floor_bytes(self, subnet: Subnet) -> int:
        """Bytes that the subnet's tensors take to be read and written once, in 16 bits."""
        layers = [x for x in self.space.layers(subnet) if x.component != "classifier"]
        pixels = sum(x.c_in * x.size**2 + x.c_out * x.size_out**2 for x in layers)
        return 2 * pixels * len(self.images)

    def check(
        self, subnets: Sequence[Subnet], other: Callable[[Subnet], Tensor], *, quantised: bool
    ) -> tuple[float, float]:
        """Compare with the sliced subnets.

        Returns:
            Largest difference of accuracy in points, and of logits relative to their spread.
        """
        accuracy = logits = 0.0
        for subnet in subnets:
            wanted = self.naive.logits(subnet, self.images, quantised=quantised)
            found = other(subnet)
            both = [self._accuracy(z) for z in (wanted, found)]
            accuracy = max(accuracy, abs(both[0] - both[1]))
            logits = max(logits, float((found - wanted).abs().max() / wanted.std()))
        return accuracy, logits

    @staticmethod
    def _each(logits: Callable[[Subnet], Tensor], subnets: Sequence[Subnet]) -> None:
        for subnet in subnets:
            logits(subnet)

    def _accuracy(self, logits: Tensor) -> float:
        return 100.0 * float((logits.argmax(1) == self.labels).double().mean())

    def evaluation(
        self, subnets: Sequence[Subnet], *, quantised: bool, n_naive: int, n_before: int = 0
    ) -> Timing:
        """Time random subnets, each once, after others have been run.

        Raises:
            SystemExit: the kernels do not agree with the sliced subnets, or not with themselves.
        """
        prepared = self.kernels.prepare(self.images)

        def kernels(subnet: Subnet) -> Tensor:
            return self.kernels.logits(subnet, prepared, quantised=quantised)

        found = self.check(subnets[:n_naive], kernels, quantised=quantised)
        _say(f"  kernels: {found[0]:.3f} points, logits {found[1]:.1e} from the sliced subnets")
        if found[0] > 0.1 or found[1] > (0.0 if quantised else 0.05):
            raise SystemExit("no agreement")
        fresh = self.space.decode(self.space.sample(n_naive, np.random.default_rng(99)))
        wait(self.device)
        begun = time.perf_counter()
        for subnet in fresh:  # seen for the first time, as in a search
            self.naive.logits(subnet, self.images, quantised=quantised)
        wait(self.device)
        naive_s = (time.perf_counter() - begun) / n_naive
        others = self._others(kernels, n_before, len(subnets))
        fast = seconds(self.device, partial(self._each, kernels, subnets), 1) / len(subnets)
        self._agrees_again(subnets[:n_naive], kernels)
        with launched_one_by_one(self.kernels):
            slow = seconds(self.device, partial(self._each, kernels, subnets), 1) / len(subnets)
        bandwidth = copied(self.device)
        ends = [self.space.decode(row)[0] for row in (self.space.largest(), self.space.smallest())]
        times = [1e3 * seconds(self.device, partial(kernels, subnet)) for subnet in ends]
        floors = [1e3 * self.floor_bytes(subnet) / bandwidth for subnet in ends]
        largest, smallest = zip(times, floors, strict=True)
        floor = float(np.mean([self.floor_bytes(s) for s in subnets])) / bandwidth
        return Timing(
            1e3 * naive_s, 1e3 * fast, 1e3 * others, 1e3 * slow, 1e3 * floor, largest, smallest
        )

    def _agrees_again(self, subnets: Sequence[Subnet], kernels: Callable[[Subnet], Tensor]) -> None:
        for subnet in subnets:
            found = kernels(subnet)
            with launched_one_by_one(self.kernels):
                if not torch.equal(found, kernels(subnet)):
                    raise SystemExit("launches that are repeated do not agree with others")

    def _others(self, kernels: Callable[[Subnet], Tensor], n_before: int, n: int) -> float:
        """Seconds a subnet that has not been run before, after others."""
        rng = np.random.default_rng(17)
        self._each(kernels, self.space.decode(self.space.sample(n_before, rng)))
        subnets = self.space.decode(self.space.sample(n, rng))
        wait(self.device)
        begun = time.perf_counter()
        self._each(kernels, subnets)
        wait(self.device)
        return (time.perf_counter() - begun) / n

    def training(self, batch: int, n_random: int, steps: int) -> tuple[float, float, float]:
        """Images a second, each step with other random subnets.

        Of autograd, of the kernels, and of the kernels with launches found anew.

        Raises:
            SystemExit: their gradients differ by more than half of their norm, noise of half
                precision and of activations at the ends of their range included.
        """
        space = self.space
        x, y = self.images[:batch], self.labels[:batch]
        ends = space.decode(np.vstack([space.largest(), space.smallest()]))

        def students(step: int) -> list[Student]:
            drawn = space.decode(space.sample(n_random, np.random.default_rng([7, step])))
            return [Student(subnet) for subnet in (*ends, *drawn)]

        ways = (TorchGradients(self.supernet), gradients_on(self.supernet))
        found = []
        for way in ways:
            self.supernet.zero_grad()
            way.step(x, y, students(0))
            # What a way does not reach has no gradient with one and a zero one with the other.
            grads = [
                torch.zeros_like(p) if p.grad is None else p.grad
                for p in self.supernet.parameters()
            ]
            found.append(torch.cat([grad.flatten() for grad in grads]))
        error = float((found[0] - found[1]).norm() / found[0].norm())
        _say(f"  gradients differ by {error:.3f} of their norm")
        if error > 0.5:
            raise SystemExit("the gradients do not agree")

        def speed(way: Gradients, n: int) -> float:
            wait(self.device)
            begun = time.perf_counter()
            for step in range(n):
                way.step(x, y, students(step + 1))
            wait(self.device)
            return n * batch / (time.perf_counter() - begun)

        autograd, kernels = ways
        speeds = [speed(autograd, max(2, steps // 10))]
        speed(kernels, steps)  # compile what these need
        speeds.append(speed(kernels, steps))
        with launched_one_by_one(kernels):
            speeds.append(speed(kernels, steps))
        return speeds[0], speeds[1], speeds[2]


def _say(text: str) -> None:
    print(text, flush=True)


def _build(
    space: Space, checkpoint: Path | None, device: torch.device, calibration: Tensor
) -> Supernet:
    if checkpoint is not None:
        return load_supernet(checkpoint, space)[0].to(device)
    torch.manual_seed(0)
    supernet = Supernet(space).to(device)
    fit_ranges(supernet, calibration)
    return supernet


def _large(space: Space, device: torch.device, args: argparse.Namespace) -> None:
    from apq_moo.benchmarks.speed.large_images import Amounts, LargeImages

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    name = torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"
    _say(f"{space.name} on {name}, {args.images} random images, {json.dumps(versions())}")
    bandwidth = copied(device, 2**30 if device.type == "cuda" else 2**24)
    _say(f"a copy moves {bandwidth / 1e9:.0f} GB/s")
    amounts = Amounts(
        args.images, args.calibration, min(args.subnets, 8), args.sliced, args.batch, args.steps,
        args.seconds,
    )  # fmt: skip
    large = LargeImages(space, device, amounts, args.out)
    large.results |= {"device": name, "versions": versions(), "bytes_per_s": bandwidth}
    if "disagreement" in large.run(bandwidth):
        raise SystemExit("no agreement")


def _tell_layers(speed: Speed) -> None:
    """What takes the largest subnet longest, at random bits."""
    from apq_moo.benchmarks.speed.launches import timed

    (largest,) = speed.space.decode(speed.space.largest())
    images = speed.kernels.prepare(speed.images)
    run = partial(speed.kernels.logits, largest, images, quantised=True)
    run()
    with timed(speed.kernels._work) as launched:  # type: ignore[attr-defined]
        run()
        for one in launched()[:30]:
            _say(
                f"  {1e3 * one.ms:7.0f} us {one.rate:6.0f} GB/s {one.what} {one.layer} {one.shape}"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Print agreement, milliseconds, floors and ratios."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--space", default="digits")
    parser.add_argument("--supernet", type=Path, help="its weights; default: random ones")
    parser.add_argument("--subnets", type=int, default=64)
    parser.add_argument("--naive", type=int, default=6, help="subnets of the slower ways")
    parser.add_argument("--before", type=int, default=500, help="subnets run before new ones")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--random", type=int, default=3, help="random subnets of a training step")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--no-full-precision", action="store_true", help="random bits only")
    parser.add_argument("--layers", action="store_true", help="the largest's slowest launches")
    parser.add_argument("--on", default="cuda")
    parser.add_argument("--calibration", type=int, default=1000, help="random images only")
    parser.add_argument("--sliced", type=int, default=1000, help="likewise, for slicing")
    parser.add_argument("--seconds", type=float, default=360.0, help="likewise, to begin a part in")
    parser.add_argument("--out", type=Path, help="figures as JSON")
    args = parser.parse_args(argv)
    device = torch_device(args.on)
    space = load_space(args.space)
    if not space.spec.images:
        _large(space, device, args)
        return
    data = load_images(images_of(space))
    images = torch.from_numpy(data.validation[: args.images].images).to(device)
    labels = torch.from_numpy(data.validation.labels[: args.images]).to(device)
    calibration = torch.from_numpy(data.calibration.images).to(device)
    # Levels of up to 8 bits are exact in TF32, but sums and floats are not.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    supernet = _build(space, args.supernet, device, calibration)
    speed = Speed(supernet, calibration, images, labels)
    subnets = space.decode(space.sample(args.subnets, np.random.default_rng(0)))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"
    _say(f"{space.name} on {name}, {len(images)} images, {json.dumps(versions())}")
    results: dict[str, object] = {"space": space.name, "device": name, "versions": versions()}
    for quantised in (True,) if args.no_full_precision else (False, True):
        kind = "random bits" if quantised else "full precision"
        _say(kind)
        found = speed.evaluation(
            subnets, quantised=quantised, n_naive=args.naive, n_before=args.before
        )
        _say(
            f"  naive {found.naive:.1f} ms, kernels {found.kernels:.2f} ms a subnet; floor "
            f"{found.floor:.2f} ms, ratio {found.kernels / found.floor:.2f}; naive / kernels "
            f"{found.naive / found.kernels:.1f}"
        )
        _say(
            f"  subnets for the first time {found.others:.2f} ms, ratio "
            f"{found.others / found.floor:.2f}; every launch found anew {found.one_by_one:.2f} ms"
        )
        for end, (ms, floor) in (("largest", found.largest), ("smallest", found.smallest)):
            _say(f"  {end} {ms:.2f} ms, floor {floor:.2f} ms, ratio {ms / floor:.2f}")
        results[kind] = vars(found)
    autograd, kernels, anew = speed.training(min(args.batch, len(images)), args.random, args.steps)
    _say(
        f"training, batch {args.batch}, largest, smallest and {args.random} random subnets: "
        f"autograd {autograd:.0f}, kernels {kernels:.0f} images/s, ratio {kernels / autograd:.1f}; "
        f"every launch found anew {anew:.0f}"
    )
    results["training"] = {"autograd": autograd, "kernels": kernels, "one_by_one": anew}
    if args.layers:
        _tell_layers(speed)
    if args.out is not None:
        write_json(args.out, results)


if __name__ == "__main__":
    with reported():
        main()
