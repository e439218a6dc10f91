"""A network that is cut out is the one that searches measured, to the last bit of its logits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from apq_moo.deploy import Grid, IntegerNetwork, cut_out, execute, load_network, save_network
from apq_moo.deploy.executing import convolve
from apq_moo.errors import UserError
from apq_moo.files import MAX_JSON
from apq_moo.space import Space
from apq_moo.supernet.evaluation import Evaluator
from apq_moo.supernet.network import Supernet


def agrees(net, subnets, images):
    evaluator = Evaluator(net, torch.from_numpy(images.calibration.images))
    for subnet in subnets:
        found = cut_out(net, subnet, images)
        wanted = evaluator.logits(subnet, torch.from_numpy(images.test.images), quantised=True)
        np.testing.assert_array_equal(execute(found, images.test.images), wanted.numpy())
        assert np.ptp(wanted.numpy(), axis=0).min() > 0
        assert found.subnet == subnet


def test_trained_networks_on_all_images(trained, image_set, networks):
    agrees(trained, networks(trained.space, 1, 0)[2:], image_set)


@pytest.mark.slow
def test_many_trained_networks_on_all_images(trained, image_set, networks):
    agrees(trained, networks(trained.space, 50, 1), image_set)


@pytest.mark.parametrize("between", [8, 16, 32])
def test_all_layers_and_bits(nets, pictures, between, networks):
    net = nets[between]
    subnets = networks(net.space, 4, 2)
    agrees(net, subnets, pictures)
    found = cut_out(net, subnets[1], pictures)
    assert found.between_bits == between
    assert all((layer.gain >= 0).all() for layer in found.layers)
    assert any((layer.gain == 0).any() for layer in found.layers)
    assert {layer.input.low for layer in found.layers} == {0, -128, -64}


def test_a_layer_by_hand(nets, pictures, networks):
    """Sums over what is inside the image, in steps of two."""
    net = nets[8]
    (layer,) = (
        layer
        for layer in cut_out(net, networks(net.space, 0, 0)[1], pictures).layers
        if layer.name == "block2.depthwise"
    )
    assert (layer.shape.stride, layer.shape.size, layer.shape.kernel) == (2, 9, 7)
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (2, 9, 9, layer.shape.c_in)).astype(np.float32)
    found = convolve(layer, levels)
    for y, x, c in [(0, 0, 0), (2, 3, 5), (4, 4, 31)]:
        wanted = sum(
            int(layer.weight[c, 0, i, j]) * int(levels[1, 2 * y + i - 3, 2 * x + j - 3, c])
            for i in range(7)
            for j in range(7)
            if 0 <= 2 * y + i - 3 < 9 and 0 <= 2 * x + j - 3 < 9
        )
        assert found[1, y, x, c] == wanted


def test_levels_by_hand():
    grid = Grid(0.5, -3, 3)
    assert grid.high == 4
    x = np.array([-9.0, -1.25, -0.75, 0.25, 0.26, 0.75, 9.0], dtype=np.float32)
    assert grid.levels(x).tolist() == [-3, -2, -2, 0, 1, 2, 4]
    assert grid.rounded(x).tolist() == [-1.5, -1, -1, 0, 0.5, 1, 2]


def test_files(nets, pictures, tmp_path, networks):
    net = nets[8]
    found = cut_out(net, networks(net.space, 0, 0)[1], pictures, {"supernet_sha256": "ab"})
    save_network(tmp_path / "n.safetensors", found)
    again = load_network(tmp_path / "n.safetensors")
    assert again.subnet == found.subnet
    assert again.origin["supernet_sha256"] == "ab"
    assert again.origin["digest"] == net.space.digest
    assert again.classes == tuple("0123456")
    for a, b in zip(again.layers, found.layers, strict=True):
        assert (a.shape, a.stage, a.input, a.output, a.total) == (
            *(b.shape, b.stage, b.input, b.output, b.total),
        )
        for part in ("weight", "gain", "bias"):
            np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
    images = pictures.test.images
    np.testing.assert_array_equal(execute(again, images), execute(found, images))
    content = bytearray((tmp_path / "n.safetensors").read_bytes())
    assert len(content) < MAX_JSON
    content[-9] ^= 1
    (tmp_path / "n.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        load_network(tmp_path / "n.safetensors")


def with_layer(network, number, **changes):
    layers = list(network.layers)
    layers[number] = replace(layers[number], **changes)
    return IntegerNetwork(tuple(layers), network.classes, network.space)


def test_layers_that_do_not_fit(nets, pictures, networks):
    net = nets[8]
    good = cut_out(net, networks(net.space, 0, 0)[1], pictures)
    stem = good.layers[0]
    for changes, message in [
        ({"weight": stem.weight.astype(np.int16)}, "stem: its weight has shape"),
        ({"weight": stem.weight[:3]}, "stem: its weight has shape"),
        ({"weight": np.full_like(stem.weight, 64)}, "within -63 ... 63"),
        ({"gain": -stem.gain}, "negative or not finite"),
        ({"bias": stem.bias * np.float32(np.nan)}, "negative or not finite"),
        ({"input": Grid(1.0, 0, 8)}, "levels of 8 bits, not 7"),
        ({"input": Grid(1.0, -200, 7)}, "lack 0"),
        ({"output": None}, "its output has no levels"),
        ({"shape": replace(stem.shape, c_out=7)}, "does not read what stem gives"),
        ({"shape": replace(stem.shape, closes_shortcut=True)}, "its shortcut does not fit"),
        ({"shape": replace(stem.shape, between_bits=16)}, "different forms"),
        ({"shape": replace(stem.shape, w_bits=16)}, "have 2 to 8"),
    ]:
        with pytest.raises(UserError, match=message):
            with_layer(good, 0, **changes)
    with pytest.raises(UserError, match="6 classes are named, not 7"):
        IntegerNetwork(good.layers, good.classes[1:], "full")
    with pytest.raises(UserError, match="images have shape"):
        execute(good, np.zeros((1, 3, 8, 9), np.float32))


def test_what_cannot_be_cut_out(nets, pictures, with_bits):
    spec = nets[8].space.spec
    (subnet,) = nets[8].space.decode(nets[8].space.largest()[None])
    with pytest.raises(UserError, match="has no ranges"):
        cut_out(Supernet(Space(spec)), subnet, pictures)
    for bits in (16, 32):
        space = with_bits(spec, w_dw=(8, bits))
        net = Supernet(space)
        net.ranges.high += 1
        with pytest.raises(UserError, match=f"weights of {bits} bits"):
            cut_out(net, space.decode(space.largest()[None])[0], pictures)
