"""A space that is measured in a moment."""

import pytest

from apq_moo.space import Space, SpaceSpec
from apq_moo.space.spec import ROLES


@pytest.fixture(scope="session")
def small():
    """Makes the space, with bits of choice, within blocks and between them."""
    return _small


def _small(bits=(8, 32), between=8):
    return Space(
        SpaceSpec.from_dict(
            {
                "name": "small",
                "input_size": 10,
                "input_channels": 3,
                "classes": 5,
                "kernels": [3, 5],
                "expand": [1, 2],
                "bits": {role: list(bits) for role in ROLES}
                | {"fixed": bits[0], "between": between},
                "stem": {"channels": 8, "kernel": 3, "stride": 1},
                "first_block": {"channels": 8, "kernel": 3},
                "stages": [
                    {"width": 8, "stride": 1, "depths": [1, 2]},
                    {"width": 16, "stride": 2, "depths": [1, 2]},
                ],
                "feature_mix": {"channels": 24},
            }
        )
    )
