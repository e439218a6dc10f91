"""Layers of networks against hand-worked lists."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apq_moo.errors import UserError
from apq_moo.space import Block, Layer, Space, SpaceSpec, Subnet


@given(
    size=st.integers(1, 40),
    kernel=st.sampled_from([1, 3, 5, 7, 9]),
    stride=st.integers(1, 5),
)
@settings(deadline=None, max_examples=200)
def test_output_size_is_the_number_of_windows(size, kernel, stride):
    layer = Layer("block", 1, 1, size, kernel, stride, 1, 8, 8)
    windows = range(-layer.padding, size + layer.padding - kernel + 1, stride)
    assert layer.size_out == len(windows)


@pytest.mark.parametrize(
    ("layer", "macs", "weights"),
    [
        # 3*3*3 weights for each of 32 channels, at 112x112 positions
        (Layer("stem", 3, 32, 224, 3, 2, 1, 8, 8), 10_838_016, 864),
        # 7*7 weights a channel, at 14x14 positions
        (Layer("block", 96, 96, 28, 7, 2, 96, 4, 6), 921_984, 4_704),
        (Layer("block", 24, 96, 7, 1, 1, 1, 4, 6), 112_896, 2_304),
        (Layer("classifier", 1280, 1000, 1, 1, 1, 1, 8, 8, bias=True), 1_280_000, 1_280_000),
    ],
)
def test_work_and_weights(layer, macs, weights):
    assert (layer.macs, layer.weights) == (macs, weights)


# stage, kernel, channels, then bits w_pw, a_pw, w_dw, a_dw
SHALLOW = Subnet("tiny", (Block(0, 5, 12, 4, 6, 2, 8), Block(1, 3, 16, 8, 6, 8, 4)))
DEEP = Subnet("tiny", (SHALLOW.blocks[0], Block(0, 3, 8, 8, 6, 8, 4), SHALLOW.blocks[1]))

AHEAD = [
    ("stem", "(1, 4, 9, 3, 2, 1, 1)-W8A8"),
    ("first_block.depthwise", "(4, 4, 5, 5, 1, 2, 4)-W8A8"),
    ("first_block.project", "(4, 8, 5, 1, 1, 0, 1)-W8A8"),
    ("block0.expand", "(8, 12, 5, 1, 1, 0, 1)-W4A6"),
    ("block0.depthwise", "(12, 12, 5, 5, 2, 2, 12)-W2A8"),
    ("block0.project", "(12, 8, 3, 1, 1, 0, 1)-W4A6"),
]
BLOCK1 = [
    ("block1.expand", "(8, 8, 3, 1, 1, 0, 1)-W8A6"),
    ("block1.depthwise", "(8, 8, 3, 3, 1, 1, 8)-W8A4"),
    ("block1.project", "(8, 8, 3, 1, 1, 0, 1)-W8A6"),
]
BEHIND = [
    ("block2.expand", "(8, 16, 3, 1, 1, 0, 1)-W8A6"),
    ("block2.depthwise", "(16, 16, 3, 3, 1, 1, 16)-W8A4"),
    ("block2.project", "(16, 12, 3, 1, 1, 0, 1)-W8A6"),
    ("feature_mix", "(12, 24, 3, 1, 1, 0, 1)-W8A8"),
    ("classifier", "(24, 10, 1, 1, 1, 0, 1)-W8A8"),
]


@pytest.fixture
def tiny(description) -> Space:
    return Space(SpaceSpec.from_dict(description))


@pytest.mark.parametrize(
    ("subnet", "wanted"),
    [(SHALLOW, AHEAD + BEHIND), (DEEP, AHEAD + BLOCK1 + BEHIND)],
    ids=["shallow", "deep"],
)
def test_layers_worked_by_hand(tiny, subnet, wanted):
    layers = tiny.layers(subnet)
    assert [(layer.name, layer.key) for layer in layers] == wanted
    for layer in layers:
        component = layer.name.split(".")[0]
        assert layer.component == ("block" if component[:5] == "block" else component)
        assert layer.bias == (layer.name == "classifier")


def test_layers_without_optional_ones(description):
    for key in ("first_block", "feature_mix"):
        del description[key]
    description["stages"][0]["expand"] = [2, 4]
    space = Space(SpaceSpec.from_dict(description))
    subnet = Subnet("tiny", (Block(0, 3, 12, 4, 6, 2, 8), Block(1, 3, 12, 8, 6, 8, 4)))
    keys = [layer.key for layer in space.layers(subnet)]
    assert keys[:2] == ["(1, 4, 9, 3, 2, 1, 1)-W8A8", "(4, 12, 5, 1, 1, 0, 1)-W4A6"]
    assert keys[-2:] == ["(12, 12, 3, 1, 1, 0, 1)-W8A6", "(12, 10, 1, 1, 1, 0, 1)-W8A8"]
    assert len(keys) == 8


def test_layers_fit_together(imagenet):
    chain = [
        layer
        for layer in imagenet.layers(imagenet.decode(imagenet.largest())[0])
        if layer.component != "classifier"
    ]
    assert len(chain) == 3 + 3 * 21 + 1
    for before, after in pairwise(chain):
        assert (before.c_out, before.size_out) == (after.c_in, after.size)
    assert chain[-1].key == "(320, 1280, 7, 1, 1, 0, 1)-W8A8"


def test_published_key_of_a_block(imagenet):
    row = imagenet.encode([imagenet.decode(imagenet.smallest())[0]])
    block = next(i for i, plan in enumerate(imagenet.plans) if (plan.c_in, plan.c_out) == (96, 96))
    columns = imagenet.block_columns[block]
    row[0, imagenet.depth_columns[3]] = 2
    row[0, columns[1]] = imagenet.plans[block].options["channels"].index(456)
    layer = next(
        layer
        for layer in imagenet.layers(imagenet.decode(row)[0])
        if layer.name == f"block{block}.expand"
    )
    assert layer.key == "(96, 456, 14, 1, 1, 0, 1)-W4A4"


def test_layers_refuse_a_stranger(tiny):
    with pytest.raises(UserError, match="channels 20 is not offered; options: 8, 12, 16"):
        tiny.layers(Subnet("tiny", (Block(0, 5, 20, 4, 6, 2, 8), SHALLOW.blocks[1])))
