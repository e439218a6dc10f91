import json
from pathlib import Path
from typing import Any

import pytest

from apq_moo.space import Space, load_space


@pytest.fixture(scope="session")
def imagenet() -> Space:
    return load_space("imagenet")


@pytest.fixture(scope="session")
def golden() -> list[dict[str, Any]]:
    """Networks of the ImageNet space as the released code writes them, with their one-hot."""
    path = Path(__file__).parents[1] / "data" / "golden_apq.json"
    items: list[dict[str, Any]] = json.loads(path.read_text())["items"]
    return items


@pytest.fixture
def description() -> dict[str, Any]:
    """A well-formed description with every optional table, free to be spoilt."""
    return {
        "name": "tiny",
        "images": "digits",
        "input_size": 9,
        "input_channels": 1,
        "classes": 10,
        "channel_step": 4,
        "kernels": [3, 5],
        "expand": [1, 2],
        "table_omits": ["classifier"],
        "bits": {"w_pw": [4, 8], "a_pw": [6], "w_dw": [2, 8], "a_dw": [4, 8], "fixed": 8},
        "stem": {"channels": 4, "kernel": 3, "stride": 2},
        "first_block": {"channels": 8, "kernel": 5, "stride": 1},
        "feature_mix": {"channels": 24},
        "stages": [
            {"width": 8, "stride": 2, "depths": [1, 2]},
            {"width": 12, "depths": [1], "kernels": [3], "expand": [1.5, 2.0]},
        ],
        "forbidden": [{"kernel": 5, "a_dw": 4}],
    }
