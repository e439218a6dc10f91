"""Spaces that are made for given images and budgets."""

import math
import tomllib
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from apq_moo.data.counting import Facts
from apq_moo.errors import UserError
from apq_moo.hardware import Device, cost_table, feasible_options, maximum, minimum
from apq_moo.pipeline import designing, space_file
from apq_moo.pipeline.designing import design
from apq_moo.pipeline.family import WIDTHS, halvings, member
from apq_moo.pipeline.space_file import default_name, read_text, space_text, training_steps
from apq_moo.space import load_space


@pytest.fixture
def pictures(monkeypatch):
    """Takes the facts of an image set for given."""

    def give(size, channels=3, classes=10, train=50_000):
        facts = Facts(channels, size, classes, train, 5_000)
        monkeypatch.setattr(designing, "facts_of", lambda _name: facts)
        return facts

    return give


@pytest.mark.parametrize(
    ("size", "n", "last"),
    [(3, 0, 3), (8, 1, 4), (28, 3, 4), (32, 3, 4), (64, 4, 4), (96, 4, 6), (224, 5, 7)],
)
def test_images_are_halved_to_a_few_pixels(size, n, last):
    assert halvings(size) == n
    space = member(Facts(3, size, 10, 50_000, 5_000), 1.0).space()
    assert space.plans[-1].size_out == last == math.ceil(size / 2**n)


def test_small_images_keep_their_pixels_and_large_ones_do_not():
    small, large = (member(Facts(3, size, 10, 50_000, 5_000), 1.0) for size in (32, 224))
    assert [stride for _, stride, _ in small.stages] == [2, 2, 1, 2]
    assert (small.stem_stride, small.first_block, small.feature_mix) == (1, 0, 0)
    assert [stride for _, stride, _ in large.stages] == [2, 2, 2, 1, 2]
    assert (large.stem_stride, large.first_block, large.feature_mix) == (2, 16, 768)
    assert member(Facts(3, 224, 10, 500, 50), 1.0).feature_mix == 0  # few images
    assert small.stages[-1][2] == (3, 5)  # no 7x7 on 4x4 pixels


def test_every_member_is_a_space():
    for size in (1, 7, 32, 64, 224):
        for width in (WIDTHS[0], WIDTHS[-1]):
            space = member(Facts(1, size, 2, 100, 10), width).space()
            options = [len(plan.options["channels"]) for plan in space.plans]
            assert min(options) >= 3, (size, width)
            assert max(options) <= 112


@pytest.mark.parametrize(
    ("size", "device", "limits"),
    [
        (8, "bitfusion", {"latency": 0.02}),
        (8, "bitfusion-edge", {"latency": 0.1, "size": 15}),
    ],
)
def test_the_range_covers_the_wish(pictures, size, device, limits):
    facts = pictures(size)
    found = design("x", limits, device)
    assert found.facts == facts
    space = found.member.space()
    tables = {name: cost_table(space, name, device) for name in limits}
    feasible = feasible_options(space, list(tables.values()))
    for name, table in tables.items():
        low, high = minimum(table, feasible)[0], maximum(table, feasible)[0]
        assert 2 * low <= limits[name]
        assert low <= found.ranges[name][0] <= 1.02 * low
        assert 0.98 * high <= found.ranges[name][1] <= high
    assert any(found.ranges[name][1] >= 2 * limit for name, limit in limits.items())
    assert design("x", limits, device) == found


def test_more_latency_makes_wider_spaces(pictures):
    pictures(8)
    widths = [design("x", {"latency": ms}).member.width for ms in (0.005, 0.02, 0.05, 100)]
    assert widths == sorted(set(widths))
    assert widths[-1] == WIDTHS[-1]


def test_bits_that_a_device_cannot_run_are_not_offered(pictures):
    class Eight(Device):
        name = "eight"
        units = MappingProxyType({"latency": "ms"})

        def layer_costs(self, layers):
            runs = [layer.a_bits == 8 or layer.name.endswith("depthwise") for layer in layers]
            macs = np.array([float(layer.macs) for layer in layers])
            return {"latency": np.where(runs, macs, np.inf)}

    pictures(8)
    found = design("x", {"latency": 1e6}, Eight())
    assert found.member.bits["a_pw"] == (8,)
    assert found.member.bits["a_dw"] == found.member.bits["w_pw"] == (4, 6, 8)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, "made for a limit"),
        (
            {"latency": 1e-6},
            "no network for 8x8 images has latency <= 1e-06 ms on 'bitfusion': the",
        ),
        ({"latency": 0.0}, "the limit of latency must be a positive number, not 0.0"),
        ({"latency": math.nan}, "must be a positive number, not nan"),
        ({"speed": 1.0}, "unknown cost 'speed'"),
    ],
)
def test_budgets_that_cannot_be(pictures, limits, words):
    pictures(8)
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        design("x", limits)


def test_one_class_is_nothing_to_tell(pictures):
    pictures(8, classes=1)
    with pytest.raises(UserError, match="single class"):
        design("x", {"latency": 1.0})


def test_the_file_says_what_the_space_is(pictures, tmp_path):
    pictures(224, train=30_000)
    found = design("x", {"size": 800.0})
    odd = 'folder:/data/a "b"\\c\x7f@224'
    text = space_text(found, odd, "flowers", tmp_path)
    space = read_text(text, tmp_path / "flowers.toml")
    assert (space.name, space.spec.images) == ("flowers", odd)
    assert space.digest != load_space("imagenet").digest
    own = found.member.space()
    assert {**space.spec.content, "images": ""} == own.spec.content
    assert max(map(len, text.splitlines())) <= 100
    assert "# Wished: size of at most 800 KiB. Networks here take from about " in text
    (tmp_path / "flowers.toml").write_text(text)
    assert load_space(tmp_path / "flowers.toml").digest == space.digest
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert len(comments) > 15
    assert set(tomllib.loads(text)) >= {"stem", "first_block", "feature_mix", "stages", "bits"}


def test_relative_paths_begin_at_the_file(pictures, tmp_path, monkeypatch):
    pictures(8)
    monkeypatch.chdir(tmp_path)
    found = design("x", {"latency": 0.02})
    for name, expected in (
        ("folder:pics@8", "folder:../pics@8"),
        ("folder:/pics@8-grey", "folder:/pics@8-grey"),
        ("folder:~/pics@8", "folder:~/pics@8"),
        ("digits", "digits"),
    ):
        text = space_text(found, name, "a", Path("spaces"))
        assert tomllib.loads(text)["images"] == expected


def test_names(tmp_path):
    assert default_name("folder:/data/my flowers!@64") == "my-flowers-"
    assert default_name("folder:/data/set.csv@64") == "set"
    assert default_name("digits") == "my-digits"
    assert default_name("folder:/data/___@64") == "mine"


@pytest.mark.parametrize("name", ["fashion", "a b", ""])
def test_names_that_no_space_may_have(pictures, name, tmp_path):
    pictures(8)
    found = design("x", {"latency": 0.02})
    with pytest.raises(UserError):
        read_text(space_text(found, "digits", name, tmp_path), tmp_path / "x.toml")


def test_steps_grow_with_the_images():
    assert [training_steps(n) for n in (100, 50_000, 10**7)] == [3600, 11_800, 60_000]
    train = pytest.importorskip("apq_moo.supernet.recipe", exc_type=ImportError).TrainConfig
    assert train.batch_size == space_file.BATCH
    assert training_steps(50_000) * 128 / 50_000 == pytest.approx(space_file.EPOCHS, rel=0.01)
