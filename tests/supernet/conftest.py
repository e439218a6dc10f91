"""A supernet with random weights, and a space with every kind of layer."""

import numpy as np
import pytest
import torch

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
    """One with integers between blocks, in its ranges; one with floats and without ranges."""
    found = {"digits": with_random_norms(digits), "full": with_random_norms(full)}
    fit_ranges(found["digits"], pictures["digits"], subnets=8)
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
