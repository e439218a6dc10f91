"""The shipped supernet of digits, and random ones of a space with every kind of layer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from apq_moo.data import ImageSet, Split
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.deploy import Grid, IntegerLayer, IntegerNetwork, cut_out
from apq_moo.space import Layer, Space, SpaceSpec
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.range_fitting import fit_ranges

BITS = [2, 3, 4, 5, 6, 7, 8]


@pytest.fixture(autouse=True)
def on_one_thread(one_thread):
    """For all tests of this folder."""


@pytest.fixture(scope="session")
def trained(digits):
    return load_supernet(find_assets(digits).path(SUPERNET), digits)[0]


def space_of(between, bits=BITS):
    """A fixed first block, a feature mix, all kernels and bits, with and without shortcuts."""
    return Space(
        SpaceSpec.from_dict(
            {
                "name": "full",
                "input_size": 9,
                "input_channels": 3,
                "classes": 7,
                "kernels": [3, 5, 7],
                "expand": [1, 4],
                "bits": dict.fromkeys(("w_pw", "a_pw", "w_dw", "a_dw"), bits)
                | {"fixed": 7, "between": between},
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


def supernet_of(space, images, seed=0):
    """Random, with batch norms of either sign and some that are 0."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Supernet(space)
        for name, value in net.named_parameters():
            if "norm" in name or "transforms" in name:
                value.data += 0.2 * torch.randn_like(value)
            if name.endswith("norm.weight"):
                value.data[1::4] *= -1
                value.data[2] = 0
                value.data[3] = 1e-6
    fit_ranges(net, torch.from_numpy(images.calibration.images), subnets=4)
    return net.eval()


@pytest.fixture(scope="session")
def pictures(image_set):
    """Random images of the space, fit to calibrate."""
    images = np.random.default_rng(0).random((96, 3, 9, 9)).astype(np.float32)
    split = Split(images, np.arange(96) % 7)
    augment = image_set.augment
    return ImageSet("random", split, split, split, split, split, augment)


@pytest.fixture(scope="session")
def nets(pictures):
    """Random supernets by what is stored between blocks."""
    return {between: supernet_of(space_of(between), pictures) for between in (8, 16, 32)}


@pytest.fixture
def with_bits():
    """The space with other bits."""
    return lambda spec, **bits: Space(replace(spec, bits={**spec.bits, **bits}))


@pytest.fixture
def wide():
    """A network whose sums, of 1,280 channels at the ends of 8 bits, pass 2^24; and images."""
    layer = Layer("stem", 1280, 4, 2, 1, 1, 1, 8, 8, between_bits=32, activation=None)
    last = Layer("classifier", 4, 4, 1, 1, 1, 1, 8, 8, True, activation=None)
    rng = np.random.default_rng(0)
    weight = rng.choice([-127, 127, 126], (4, 1280, 1, 1)).astype(np.int8)
    weight[0] = 127
    gain, bias = np.full(4, 2.0**-24, np.float32), np.zeros(4, np.float32)
    step = float(np.float32(1 / 255))
    eye = np.eye(4, dtype=np.int8)[:, :, None, None] * np.int8(127)
    layers = (
        IntegerLayer(layer, None, weight, gain, bias, Grid(step, 0, 8)),
        IntegerLayer(last, None, eye, gain, bias, Grid(2.0**-6, 0, 8)),
    )
    assert layers[0].largest_sum == 1280 * 127 * 255 > 2**24
    images = rng.choice([0.0, 1.0], (20, 1280, 2, 2), p=[0.1, 0.9]).astype(np.float32)
    return IntegerNetwork(layers, tuple("abcd"), "any", {"space_content": {"stages": []}}), images


@pytest.fixture(scope="session")
def networks():
    """Gives the smallest, the largest and some random networks of a space, by a seed."""

    def drawn(space, n, seed):
        X = [space.smallest(), space.largest(), *space.sample(n, np.random.default_rng(seed))]
        return space.decode(np.array(X))

    return drawn


@pytest.fixture(scope="session")
def with_shortcuts(networks):
    """Gives the largest network of a random supernet, which has shortcuts; no gain is 0."""

    def cut(net, pictures):
        network = cut_out(net, networks(net.space, 0, 0)[1], pictures)
        layers = [
            replace(layer, gain=np.maximum(layer.gain, np.float32(1e-6)))
            for layer in network.layers
        ]
        return replace(network, layers=tuple(layers))

    return cut
