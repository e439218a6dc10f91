"""A program of torch gives the package's own logits, and loads where the package is not."""

import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from apq_moo.deploy import cut_out, execute
from apq_moo.deploy.exporting import FORMATS, export, format_of
from apq_moo.deploy.storage import digest_of_network
from apq_moo.deploy.torch_program import (
    TorchNetwork,
    load_torch,
    read_program,
    save_torch,
    torch_logits,
    torch_policy,
)
from apq_moo.errors import UserError

LOADING = """
import sys
import numpy as np
import torch

program = torch.export.load(sys.argv[1])
images = torch.from_numpy(np.load(sys.argv[2]))
np.save(sys.argv[3], program.module()(images).numpy())
assert not any(name.startswith("apq_moo") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def network(nets, pictures):
    """The smallest one, at several bits."""
    space = nets[8].space
    (subnet,) = space.decode(space.smallest()[None])
    blocks = [
        replace(block, w_pw=3, a_pw=2 + i, w_dw=5, a_dw=7) for i, block in enumerate(subnet.blocks)
    ]
    return cut_out(nets[8], replace(subnet, blocks=tuple(blocks)), pictures)


@pytest.fixture(scope="module")
def program(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("torch") / "n.pt2"
    save_torch(path, network)
    return path


@pytest.mark.parametrize("between", [8, 16, 32])
def test_exact_logits(nets, pictures, between):
    space = nets[between].space
    for subnet in space.decode(space.sample(3, np.random.default_rng(8))):
        network = cut_out(nets[between], subnet, pictures)
        images = pictures.test.images
        with torch.no_grad():
            found = TorchNetwork(network)(torch.from_numpy(images)).numpy()
        np.testing.assert_array_equal(found, execute(network, images))


def test_sums_that_single_precision_does_not_hold(wide):
    network, images = wide
    found = TorchNetwork(network)(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(found, execute(network, images))


def test_programs_are_the_network(program, network, pictures):
    found = load_torch(program)
    assert digest_of_network(found.network) == digest_of_network(network)
    for images in (pictures.test.images, pictures.test.images[:1]):
        np.testing.assert_array_equal(torch_logits(found, images), execute(network, images))
    assert torch_policy(found) == network.subnet


def test_programs_need_nothing_of_the_package(program, network, pictures, tmp_path):
    np.save(tmp_path / "x.npy", pictures.test.images[:5])
    paths = [str(tmp_path / name) for name in ("x.npy", "y.npy")]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", LOADING, str(program), *paths],
        capture_output=True, text=True, cwd=tmp_path, check=False, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1000:]
    wanted = execute(network, pictures.test.images[:5])
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), wanted)


def test_programs_name_no_folder_of_this_machine(program):
    with zipfile.ZipFile(program) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b".py" not in content


def test_files_that_are_not_what_they_should_be(program, tmp_path):
    path, good = tmp_path / "n.pt2", program.read_bytes()

    def refused(data):
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            read_program(path)
        return str(caught.value)

    assert "damaged, or no program of torch" in refused(good[:-30])
    assert "damaged, or no program of torch" in refused(b"x" * 100)
    place = good.index(b'"graph_module"')
    assert "damaged" in refused(good[:place] + b"x" + good[place + 1 :])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/version", "3")
    assert "was not exported by apq-moo" in refused(path.read_bytes())
    with zipfile.ZipFile(program) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("weight_0"))
    members[name] = bytes(len(members[name]))
    with zipfile.ZipFile(path, "w") as archive:
        for key, content in members.items():
            archive.writestr(key, content)
    assert "its checksums do not match" in refused(path.read_bytes())


def test_formats_by_suffix(network, tmp_path):
    assert {format_of(f"x{of.suffix}") for of in FORMATS.values()} == set(FORMATS.values())
    for name in ("network", "onnx", "c"):
        path = tmp_path / f"net{FORMATS[name].suffix}"
        export(network, path)
        assert FORMATS[name].policy(path) == network.subnet
    for path, options, message in [
        ("x.txt", {}, "no format is known by this suffix"),
        ("x.onnx", {"format": "torch"}, r"files of format 'torch' end in \.pt2"),
        ("x.onnx", {"format": "other"}, "known are network, onnx, torch, c"),
        ("x.c", {"arithmetic": "fused"}, "only ONNX has"),
        ("x.pt2", {"native_int4": True}, "only ONNX has"),
    ]:
        with pytest.raises(UserError, match=message):
            export(network, tmp_path / path, **options)
