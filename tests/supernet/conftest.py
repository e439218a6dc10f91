"""A supernet with random weights, a space with every kind of layer, and what two processes do."""

import os
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from apq_moo.space import Space, SpaceSpec
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.range_fitting import fit_ranges


@pytest.fixture(autouse=True)
def on_one_thread(one_thread):
    """For all tests of this folder."""


@pytest.fixture(scope="session")
def full():
    """A small space with a fixed first block, a feature mix and all three kernels."""
    bits = {role: [2, 4, 8] for role in ("w_pw", "a_pw", "w_dw", "a_dw")}
    return Space(
        SpaceSpec.from_dict(
            {
                "name": "full",
                "input_size": 12,
                "input_channels": 3,
                "classes": 7,
                "kernels": [3, 5, 7],
                "expand": [1, 4],
                "bits": bits,
                "stem": {"channels": 8, "kernel": 3, "stride": 1},
                "first_block": {"channels": 8, "kernel": 3},
                "stages": [
                    {"width": 8, "stride": 1, "depths": [1, 2]},
                    {"width": 16, "stride": 2, "depths": [1, 2, 3]},
                ],
                "feature_mix": {"channels": 24},
            }
        )
    )


def with_random_norms(space, seed=0):
    """A supernet whose batch norms are not at their initial ones and zeros."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Supernet(space)
        for name, value in net.named_parameters():
            if "norm" in name or "transforms" in name:
                value.data += 0.2 * torch.randn_like(value)
    return net


@pytest.fixture(scope="session")
def nets(digits, full, pictures):
    """One with integers between blocks, one with floats; both in their ranges."""
    found = {"digits": with_random_norms(digits), "full": with_random_norms(full)}
    for name, net in found.items():
        fit_ranges(net, pictures[name], subnets=8)
    return found


@pytest.fixture(scope="session")
def pictures(digits, full):
    rng = np.random.default_rng(0)
    shapes = {space.name: space.spec for space in (digits, full)}
    return {
        name: torch.from_numpy(
            rng.random((96, spec.input_channels, spec.input_size, spec.input_size)).astype(
                "float32"
            )
        )
        for name, spec in shapes.items()
    }


PART = """
name = "part"
part_of = "digits"
images = "digits"
input_size = 8
input_channels = 1
classes = 10
channel_step = 8
[bits]
w_pw = [3, 8]
a_pw = [8]
w_dw = [4]
a_dw = [8]
fixed = 8
[stem]
channels = 8
kernel = 3
stride = 1
[[stages]]
width = 8
stride = 2
depths = [1]
kernels = [3, 7]
expand = [1, 1]
[[stages]]
width = 12
stride = 2
depths = [1]
kernels = [3]
expand = [1, 2]
[[stages]]
width = 16
stride = 1
depths = [1]
kernels = [3]
expand = [2, 2]
"""


@pytest.fixture(scope="session")
def part():
    """A space of 32 networks that is part of digits, as TOML."""
    return PART


def pictured_digits(folder, n=110):
    """A space whose images are digits in files, of which all but 20 are to train on."""
    preset = files("apq_moo.space") / "presets" / "digits.toml"
    text = preset.read_text().replace('images = "digits"', 'images = "folder:set@8-grey-stream"')
    (folder / "streamed.toml").write_text(text)
    data = load_digits()
    for i, (image, label) in enumerate(zip(data.images[:n], data.target, strict=False)):
        place = folder / "set" / ("test" if i < 20 else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((image * 255 / 16).astype(np.uint8))
        picture.resize((12, 16)).save(place / f"{i}.png")


SCRIPT = """
import os, sys, torch
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from torch import distributed
from apq_moo.cli import main
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.space import Space, load_space
from apq_moo.supernet.backends import gradients_on
from apq_moo.supernet.distributed import join
from apq_moo.supernet.gradients import Student, TorchGradients
from apq_moo.supernet.network import Supernet

group, device = join("cpu")
space = load_space("digits")
torch.manual_seed(0)
net = Supernet(space)
x, y = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
smallest = Student(space.decode(space.smallest())[0])
TorchGradients(net).step(group.share(x), group.share(y), [smallest])
group.average(net.parameters())
assert group.mean(torch.tensor([group.rank, 3.0])).tolist() == [0.5, 3.0]
torch.save([p.grad for p in net.parameters()], f"gradients/{group.rank}.pt")
group.wait()

torch.manual_seed(1)
whole = Supernet(Space(replace(space.spec, between_bits=32))).double()
x, y = torch.rand(16, 1, 8, 8, dtype=torch.float64), torch.arange(16) % 10
first, = space.decode(space.largest())
small, = space.decode(space.smallest())
kernels = {block.stage: block.kernel for block in first.blocks}
small = replace(small, blocks=tuple(replace(b, kernel=kernels[b.stage]) for b in small.blocks))
way = gradients_on(whole, group=group)
way.step(group.share(x), group.share(y), [Student(first), Student(small)])
group.average(whole.parameters())
torch.save([p.grad for p in whole.parameters()], f"norms/{group.rank}.pt")
group.wait()

shipped = str(find_assets(space).path(SUPERNET))
top = Path.cwd()
for name, command in {
    "images": "supernet train --space digits --steps 6 --warmup-steps 2 --batch-size 256"
    " -o two.safetensors",
    "synced": "supernet train --space digits --steps 3 --warmup-steps 1 --batch-size 64"
    " --sync-batch-norm -o two.safetensors",
    "collect": f"samples collect --space digits --supernet {shipped} --fp 12 --mp 25 --held-out 3"
    " --jobs 1 -o two.npz",
    "streamed": "supernet train --space streamed.toml --steps 3 --warmup-steps 2 --batch-size 64"
    " --sync-batch-norm -o two.safetensors",
    "exhaust": "samples exhaust --space part.toml -o two.npz",
}.items():
    os.chdir(top / name)
    with open(top / f"{name}.{group.rank}.txt", "w") as printed, redirect_stdout(printed):
        try:
            main(command.split())
        except SystemExit as stop:
            assert not stop.code, (name, stop.code)
    group.wait()
distributed.destroy_process_group()
"""


@pytest.fixture(scope="session")
def torchrun():
    """Has two processes run a script, or a module, in a folder."""

    def run(*arguments, folder):
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        done = subprocess.run(  # noqa: S603
            [sys.executable, *launcher, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=240,
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    return run


@pytest.fixture(scope="session")
def by_two(torchrun, tmp_path_factory):
    """Folders of what two processes made, all started once; and what both printed."""
    top = tmp_path_factory.mktemp("two")
    for name in ("gradients", "norms", "images", "synced", "streamed", "collect", "exhaust"):
        (top / name).mkdir()
    pictured_digits(top / "streamed")
    (top / "exhaust" / "part.toml").write_text(PART)
    (top / "script.py").write_text(SCRIPT)
    torchrun("script.py", folder=top)

    def made(name):
        return top / name

    made.printed = lambda name: "".join(path.read_text() for path in top.glob(f"{name}.?.txt"))
    return made
