"""The shipped supernet of digits, and random ones of a space with every kind of layer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from apq_moo.data import ImageSet, Split, load_images
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.space import Space, SpaceSpec, load_space
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.range_fitting import fit_ranges

BITS = [2, 3, 4, 5, 6, 7, 8]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits():
    return load_space("digits")


@pytest.fixture(scope="session")
def trained(digits):
    return load_supernet(find_assets(digits).path(SUPERNET), digits)[0]


@pytest.fixture(scope="session")
def image_set():
    return load_images("digits")


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
def pictures():
    """Random images of the space, fit to calibrate."""
    images = np.random.default_rng(0).random((96, 3, 9, 9)).astype(np.float32)
    split = Split(images, np.arange(96) % 7)
    augment = load_images("digits").augment
    return ImageSet("random", split, split, split, split, split, augment)


@pytest.fixture(scope="session")
def nets(pictures):
    """Random supernets by what is stored between blocks."""
    return {between: supernet_of(space_of(between), pictures) for between in (8, 16, 32)}


@pytest.fixture
def with_bits():
    """The space with other bits."""
    return lambda spec, **bits: Space(replace(spec, bits={**spec.bits, **bits}))
