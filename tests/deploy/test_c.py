"""The C program gives the very logits of the integer network, and is as large as was promised."""

import platform
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from apq_moo.data import load_images
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.deploy import Grid, IntegerLayer, IntegerNetwork, cut_out, execute
from apq_moo.deploy.c import c_source, pack, write_c
from apq_moo.deploy.c_program import FLAGS, as_bytes, as_levels, compiler, run_c
from apq_moo.deploy.c_reading import read_c, unpacked
from apq_moo.deploy.storage import digest_of_network
from apq_moo.errors import UserError
from apq_moo.hardware import cost_table
from apq_moo.space import Layer, load_space
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.evaluation import Evaluator

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc, which compiles the programs, is not installed"
)

SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def rows(space, n, seed):
    sampled = space.sample(n, np.random.default_rng(seed))
    return np.array([space.smallest(), space.largest(), *sampled])


def run(command, folder, given=None):
    """What a command prints, in bytes."""
    done = subprocess.run(  # noqa: S603
        command, cwd=folder, input=given, capture_output=True, check=True
    )
    return done.stdout


def agree(network, images, folder, flags=()):
    """Logits of images as they are, by levels, and as bytes."""
    write_c(network, folder / "net.c")
    classes, logits = run_c(folder / "net.c", as_levels(network, images), levels=True, flags=flags)
    wanted = execute(network, images)
    np.testing.assert_array_equal(logits, wanted)
    np.testing.assert_array_equal(classes, wanted.argmax(1))
    pixels = as_bytes(images)
    wanted = execute(network, (pixels / np.float32(255)).transpose(0, 3, 1, 2))
    classes, logits = run_c(folder / "net.c", pixels, flags=flags)
    np.testing.assert_array_equal(logits, wanted)
    np.testing.assert_array_equal(classes, wanted.argmax(1))


@pytest.mark.parametrize("between", [8, 16, 32])
def test_all_layers_and_bits(nets, pictures, tmp_path, between):
    """Dense and depthwise layers of 2 to 8 bits, shortcuts, zero points, gains of 0."""
    space = nets[between].space
    X = space.sample(1, np.random.default_rng(between))
    (subnet,) = space.decode(X)
    agree(cut_out(nets[between], subnet, pictures), pictures.test.images[:24], tmp_path, ("-O0",))


def test_trained_networks(trained, image_set, tmp_path):
    space = trained.space
    (subnet,) = space.decode(space.sample(1, np.random.default_rng(3)))
    agree(cut_out(trained, subnet, image_set), image_set.test.images[::4], tmp_path)


@pytest.mark.slow
def test_many_networks_of_fashion(tmp_path):
    """20 random ones on 1,000 test images, which are bytes."""
    space = load_space("fashion")
    try:
        images = load_images(space.spec.images)
    except UserError as error:
        pytest.skip(str(error))
    trained, _ = load_supernet(find_assets(space).path(SUPERNET), space)
    pixels = as_bytes(images.test.images[:1000])
    calibrated = Evaluator(trained, torch.from_numpy(images.calibration.images), 100)
    for subnet in space.decode(space.sample(20, np.random.default_rng(0))):
        write_c(cut_out(trained, subnet, images), tmp_path / "net.c")
        _, logits = run_c(tmp_path / "net.c", pixels, flags=("-O3",))
        some = torch.from_numpy(images.test.images[:1000])
        wanted = calibrated.logits(subnet, some, quantised=True)
        np.testing.assert_array_equal(logits, wanted.numpy())


def random_network(rng):
    """Any numbers of channels, bits, strides and zero points; steps and gains that make ties."""
    between = int(rng.choice([8, 16, 32]))

    def grid(bits, low=None):
        low = -int(rng.integers(0, 2**bits)) if low is None else low
        return Grid(float(2.0 ** rng.integers(-6, -2)), low, bits)

    def layer(stage, stored, *shape, **there):
        shape = Layer(*shape, **there, between_bits=between if stored else None)
        top = 2 ** (shape.w_bits - 1) - 1
        kernel = (shape.c_out, shape.c_in // shape.groups, shape.kernel, shape.kernel)
        weight = rng.integers(-top, top + 1, kernel).astype(np.int8)
        gain = (2.0 ** rng.integers(-12, -5, shape.c_out)).astype(np.float32)
        gain[rng.random(shape.c_out) < 0.1] = 0
        bias = rng.choice([0.0, 0.5, -0.75, 1.3], shape.c_out).astype(np.float32)
        integers = stored and between == 8
        return IntegerLayer(
            *(shape, stage, weight, gain, bias, grid(shape.a_bits)),
            grid(8) if integers else None,
            grid(8) if integers and shape.closes_shortcut else None,
        )

    def bits():
        return (int(rng.integers(2, 9)), int(rng.integers(2, 9)))

    c_in, width, size = (int(rng.integers(low, high)) for low, high in [(1, 4), (1, 7), (2, 9)])
    stride = int(rng.integers(1, 4))
    kernel = int(rng.choice([1, 3, 5]))
    layers = [layer(None, True, "stem", c_in, width, size, kernel, stride, 1, *bits())]
    size = layers[0].shape.size_out
    for block in range(3):
        mid, stride = int(rng.integers(1, 8)), int(rng.integers(1, 4))
        c_out = width if rng.random() < 0.5 else int(rng.integers(1, 7))
        closes = stride == 1 and c_out == width
        shape = ("block", width, mid, size, 1, 1, 1, *bits())
        layers.append(
            layer(block, False, *shape, block=block, place="expand", opens_shortcut=closes)
        )
        shape = ("block", mid, mid, size, int(rng.choice([3, 5, 7])), stride, mid, *bits())
        layers.append(layer(block, False, *shape, block=block, place="depthwise"))
        size = layers[-1].shape.size_out
        shape = (
            "block",
            mid,
            c_out,
            size,
            1,
            1,
            1,
            layers[-2].shape.w_bits,
            layers[-2].shape.a_bits,
        )
        there = {"block": block, "place": "project", "activation": None}
        layers.append(layer(block, True, *shape, **there, closes_shortcut=closes))
        width = c_out
    shape = ("classifier", width, 3, 1, 1, 1, 1, *bits())
    layers.append(layer(None, False, *shape, bias=True, activation=None))
    return IntegerNetwork(tuple(layers), ("a", "b", "c"), "random")


OPTIONS = (
    ("-O0", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wstrict-prototypes"),
    ("-O3",),
    ("-O1", "-funsigned-char"),
    ("-O3", "-std=gnu11", "-march=native", "-ffp-contract=fast"),
    ("-Os",),
)


@pytest.mark.parametrize("seed", range(5))
def test_any_network(seed, tmp_path):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    images = (rng.integers(0, 2, (40, *network.image_shape)) * rng.random(1)).astype(np.float32)
    images[:20] = rng.random(images[:20].shape)
    flags = OPTIONS[seed % len(OPTIONS)]
    agree(network, images, tmp_path, flags)
    assert digest_of_network(read_c(tmp_path / "net.c")) == digest_of_network(network)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5, 24))
def test_sanitizers_find_nothing_in_any_network(seed, tmp_path):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    agree(network, rng.random((40, *network.image_shape), np.float32), tmp_path, SANITIZERS)


@pytest.mark.slow
@pytest.mark.parametrize("between", [8, 16, 32])
def test_sanitizers_find_nothing(nets, pictures, tmp_path, between):
    space = nets[between].space
    for subnet in space.decode(rows(space, 6, 1)):
        network = cut_out(nets[between], subnet, pictures)
        agree(network, pictures.test.images, tmp_path, SANITIZERS)


@pytest.mark.slow
def test_many_trained_networks_on_all_images(trained, image_set, tmp_path):
    for subnet in trained.space.decode(rows(trained.space, 20, 0)):
        agree(cut_out(trained, subnet, image_set), image_set.test.images, tmp_path)


@pytest.mark.parametrize("between", [8, 16, 32])
def test_weights_and_arena_are_size_and_memory(nets, pictures, between):
    """To the byte, but for layers whose last byte is not full and logits that are aligned."""
    space = nets[between].space
    X = rows(space, 6, 2)
    size, memory = (1024 * cost_table(space, name)(X) for name in ("size", "memory"))
    for row, subnet in enumerate(space.decode(X)):
        network = cut_out(nets[between], subnet, pictures)
        made = c_source(network)
        assert 0 <= made.weight_bytes - size[row] < len(network.layers)
        assert 0 <= made.arena_bytes - memory[row] < 4


def test_what_the_compiler_stores(nets, pictures, tmp_path):
    """The arrays of the object file are as large as its text says, and there is no other memory."""
    net = nets[8]
    network = cut_out(net, net.space.decode(net.space.largest()[None])[0], pictures)
    made = write_c(network, tmp_path / "net.c")
    build = [*compiler(), *FLAGS, "-c", "net.c", "-o", "net.o"]
    run(build, tmp_path)
    listed = run(["nm", "-S", "-t", "d", "net.o"], tmp_path).decode()
    symbols = {
        name: (kind, int(size))
        for size, kind, name in re.findall(r"^\d+ (\d+) (\w) (\w+)$", listed, re.MULTILINE)
    }
    assert symbols["weights"][1] + symbols["affine"][1] == made.weight_bytes
    assert 0 <= symbols["arena"][1] - made.arena_bytes < 4
    assert [name for name, (kind, _) in symbols.items() if kind in "bBdDcC"] == ["arena"]
    assert set(re.findall(r" U (\w+)", listed)) <= {"memset", "memcpy", "__stack_chk_fail"}


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_the_header_is_read_by_cpp(trained, image_set, tmp_path):
    (subnet,) = trained.space.decode(trained.space.smallest()[None])
    write_c(cut_out(trained, subnet, image_set), tmp_path / "net.c")
    text = """
        #include "net.h"
        int main() { return net_classify(net_image()) == 3 && net_logits()[9] > 0; }
    """
    (tmp_path / "main.cpp").write_text(text)
    run([*compiler(), *FLAGS, "-c", "net.c", "-o", "net.o"], tmp_path)
    run(["g++", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "main.cpp", "net.o"], tmp_path)


def test_packing_by_hand():
    shape = Layer("stem", 1, 3, 4, 1, 1, 1, 3, 8, between_bits=8)
    weight = np.array([-3, 0, 3], dtype=np.int8).reshape(3, 1, 1, 1)
    ones = np.ones(3, dtype=np.float32)
    layer = IntegerLayer(shape, None, weight, ones, ones, Grid(1.0, 0, 8), Grid(1.0, 0, 8))
    # -3 is 000, 0 is 011, 3 is 110; the first in the lowest bits: 10 011 000, then 1.
    assert pack(layer).tolist() == [0b10011000, 0b1]
    np.testing.assert_array_equal(unpacked(shape, pack(layer)), weight)


def test_halves(tmp_path, nets, pictures):
    """All half-precision numbers, and floats of all sizes rounded to them."""
    net = nets[16]
    network = cut_out(net, net.space.decode(net.space.smallest()[None])[0], pictures)
    write_c(network, tmp_path / "net.c")
    (tmp_path / "main.c").write_text(
        """
        #include "net.c"
        #include <stdio.h>
        int main(void)
        {
            const Grid none = {1.0f, 0, 8};
            float value;
            uint32_t i;
            for (i = 0; i < 65536; i++) {
                const uint8_t bytes[2] = {(uint8_t)i, (uint8_t)(i >> 8)};
                value = load(bytes, 0, &none);
                fwrite(&value, 4, 1, stdout);
            }
            while (fread(&value, 4, 1, stdin) == 1) {
                i = half_of(value);
                fwrite(&i, 4, 1, stdout);
            }
            return 0;
        }
        """
    )
    run([*compiler(), "-O2", "main.c", "-o", "main"], tmp_path)
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = np.sort(halves[np.isfinite(halves)].astype(np.float32))
    middle = (finite[1:] + finite[:-1]) / 2
    beyond = np.nextafter(middle, np.float32(np.inf))
    floats = np.concatenate([bits.view(np.float32), halves.astype(np.float32), middle, beyond])
    floats = floats[~np.isnan(floats)]
    found = run([tmp_path / "main"], tmp_path, floats.tobytes())
    loaded = np.frombuffer(found[: 4 * 2**16], dtype=np.float32)
    np.testing.assert_array_equal(loaded[~np.isnan(halves)], halves[~np.isnan(halves)])
    with np.errstate(over="ignore"):
        wanted = floats.astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(np.frombuffer(found[4 * 2**16 :], dtype=np.uint32), wanted)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="an option for x86 is used")
def test_no_multiplication_is_fused(trained, image_set, tmp_path):
    """Neither by a compiler that may, on a processor that can."""
    (subnet,) = trained.space.decode(trained.space.smallest()[None])
    network = cut_out(trained, subnet, image_set)
    write_c(network, tmp_path / "net.c")
    fused = ("-std=gnu99", "-march=haswell", "-ffp-contract=fast", "-S", "-o", "-", "net.c")
    build = [*compiler(), "-O3", *fused]
    text = run(build, tmp_path).decode()
    assert "vmulss" in text
    assert "fmadd" not in text


def test_round_trip(nets, pictures, tmp_path):
    for between, net in nets.items():
        for subnet in net.space.decode(rows(net.space, 2, between)):
            network = cut_out(net, subnet, pictures, {"note": "a */ in it"})
            network = IntegerNetwork(network.layers, tuple('a"\\?é\n*'), "full", network.origin)
            write_c(network, tmp_path / "a_net2.c")
            again = read_c(tmp_path / "a_net2.c")
            assert digest_of_network(again) == digest_of_network(network)
            assert again.subnet == subnet


def test_damage_is_found(trained, image_set, tmp_path):
    (subnet,) = trained.space.decode(trained.space.smallest()[None])
    path = tmp_path / "net.c"
    network = cut_out(trained, subnet, image_set)
    made = write_c(network, path)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(made.source), 12):
        text = made.source
        digit = "7" if text[place] != "7" else "3"
        path.write_text(text[:place] + digit + text[place + 1 :])
        with pytest.raises(UserError, match=r"net\.c"):
            read_c(path)
    path.write_text(made.source[:5000])
    with pytest.raises(UserError, match="is no C program of apq-moo, or is damaged"):
        read_c(path)
    path.write_text(made.source)
    path.rename(tmp_path / "my net.c")
    assert digest_of_network(read_c(tmp_path / "my net.c")) == digest_of_network(network)
    (tmp_path / "my net.c").rename(path)
    (tmp_path / "net.h").write_text(made.header.replace("CLASSES 10", "CLASSES 9"))
    with pytest.raises(UserError, match=r"net\.h is not what this version writes"):
        read_c(path)


def test_programs_that_do_not_run(trained, image_set, tmp_path, monkeypatch):
    (subnet,) = trained.space.decode(trained.space.smallest()[None])
    path = tmp_path / "net.c"
    write_c(cut_out(trained, subnet, image_set), path)
    pictures = as_bytes(image_set.test.images[:2])
    with pytest.raises(UserError, match=r"net\.c does not compile: .*fast mathematics"):
        run_c(path, pictures, flags=("-ffast-math",))
    with pytest.raises(UserError, match="did not classify 2 pictures"):
        run_c(path, pictures[:, :4])
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(UserError, match=r"no C compiler is here \(no-such-compiler\)"):
        run_c(path, pictures)


def test_networks_that_cannot_be_written(nets, pictures, tmp_path):
    net = nets[8]
    network = cut_out(net, net.space.decode(net.space.smallest()[None])[0], pictures)
    for name in ("9net.c", "a-b.c", "int é.c", "_net.c"):
        with pytest.raises(UserError, match="cannot begin a C function's name"):
            write_c(network, tmp_path / name)
    with pytest.raises(UserError, match=r"ends in \.c"):
        write_c(network, tmp_path / "net.cpp")
