"""Kernels as compiled for GPUs: what they take of shared memory, in networks of any size.

Nothing is run: networks are gone through on tensors without contents, and what they would launch is
compiled.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from apq_moo.space import Space, SpaceSpec, load_space
from apq_moo.supernet.gpu import launching
from apq_moo.supernet.gpu.evaluator import GpuEvaluator
from apq_moo.supernet.gpu.training import GpuGradients
from apq_moo.supernet.gradients import Student
from apq_moo.supernet.network import Supernet

KIB = 1024
TYPES = {
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.int8: "i8",
}
WIDE = {
    "name": "wide",
    "input_size": 96,
    "input_channels": 3,
    "classes": 10,
    "channel_step": 32,
    "bits": {**{role: [4, 8] for role in ("w_pw", "a_pw", "w_dw", "a_dw")}, "between": 16},
    "stem": {"channels": 64, "kernel": 5, "stride": 2},
    "stages": [
        {"width": 128, "stride": 2, "depths": [1], "kernels": [3, 9], "expand": [1, 6]},
        {"width": 256, "stride": 2, "depths": [2], "kernels": [3, 7], "expand": [1, 6]},
    ],
}


def space_of(name):
    return Space(SpaceSpec.from_dict(WIDE)) if name == "wide" else load_space(name)


def kind_of(value):
    if isinstance(value, torch.Tensor):
        return "*" + TYPES[value.dtype]
    return "i32" if isinstance(value, int) else "fp32"


@pytest.fixture
def launches(monkeypatch):
    """What a space's networks launch on a GPU with so much shared memory, each kind once."""

    def found(space, shared, *, sampled=2, n=64):
        seen = {}

        def launch(_self, kernel, _programs, args, constants, warps=4, stages=3):
            name = getattr(kernel, "fn", kernel).__name__
            kinds = [kind_of(value) for value in args]
            plain = [c if isinstance(c, bool | int) else str(c) for c in constants]
            seen.setdefault(json.dumps([name, kinds, plain, warps, stages]))

        monkeypatch.setattr(launching, "shared_memory", lambda _: shared)
        monkeypatch.setattr(launching.Launcher, "launch", launch)
        with torch.device("meta"):
            net = Supernet(space)
        net.ranges.load(torch.ones_like(net.ranges.tensor()))
        spec = space.spec
        x = torch.empty(n, spec.input_channels, spec.input_size, spec.input_size, device="meta")
        y = torch.zeros(n, dtype=torch.long, device="meta")
        evaluator, gradients = GpuEvaluator(net, x), GpuGradients(net)
        rows = [space.largest(), space.smallest(), space.sample(sampled, np.random.default_rng(0))]
        for subnet in space.decode(np.vstack(rows)[: 2 + sampled if sampled else 1]):
            for quantised in (False, True):
                evaluator.logits(subnet, x, quantised=quantised)
                gradients.step(x, y, [Student(subnet, quantised)])
        return [json.loads(one) for one in seen]

    return found


def shared_bytes(launches, capability):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, Path(__file__).with_name("compiled.py")],
        input=json.dumps([[*launch, capability] for launch in launches]),
        capture_output=True,
        text=True,
        timeout=1800,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def weight_of(launch):
    """About how much a launch keeps at once."""
    _, kinds, constants, _, stages = launch
    size = {"fp32": 4, "u8": 1}.get(kinds[0][1:], 2)
    return stages * size * constants[-1] * constants[-2]


TILED = ("pointwise", "dense", "planes", "patches")
TILED += tuple(f"{name}_weights" for name in TILED)


@pytest.mark.parametrize(
    ("shared", "capability", "names"),
    [
        (227, 90, ("pointwise", "planes", "patches", "pointwise_weights", "patches_weights")),
        (48, 80, ("pointwise", "patches", "dense_weights")),
    ],
)
def test_the_heaviest_kernels_of_large_images_fit(launches, shared, capability, names):
    found = launches(load_space("imagenet"), shared * KIB, sampled=0)
    heaviest = [max((one for one in found if one[0] == name), key=weight_of) for name in names]
    taken = shared_bytes(heaviest, capability)
    assert max(taken) <= shared * KIB, dict(zip(names, taken, strict=True))
    assert min(taken) > 2 * KIB


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagenet", "fashion", "wide"])
@pytest.mark.parametrize(("shared", "capability"), [(227, 90), (163, 80), (99, 89), (48, 80)])
def test_kernels_fit(launches, name, shared, capability):
    found = launches(space_of(name), shared * KIB)
    drawn = random.Random(0).sample([one for one in found if one[0] in TILED], 60)  # noqa: S311
    taken = shared_bytes(drawn, capability)
    for launch, size in zip(drawn, taken, strict=True):
        assert size <= shared * KIB, launch
