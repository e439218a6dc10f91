"""Networks from JSON and from the released code's dictionaries: what is refused, and how."""

import copy
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apq_moo.errors import UserError
from apq_moo.space import Block, Subnet, load_space

BLOCK = {"stage": 0, "kernel": 3, "channels": 64, "w_pw": 4, "a_pw": 6, "w_dw": 8, "a_dw": 4}


@pytest.fixture
def network(imagenet):
    """The JSON form of the smallest network of the ImageNet space."""
    return imagenet.decode(imagenet.smallest())[0].to_dict()


@pytest.fixture
def released(golden):
    return copy.deepcopy(golden[0]["spec"])


def refused(call, *args):
    with pytest.raises(UserError) as caught:
        call(*args)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 400
    return message


def test_json_form():
    subnet = Subnet("tiny", (Block(0, 3, 64, 4, 6, 8, 4),))
    assert subnet.to_dict() == {"space": "tiny", "blocks": [BLOCK]}
    assert Subnet.from_dict(subnet.to_dict()) == subnet


def test_mean_bits():
    assert Subnet("x", (Block(0, 3, 8, 4, 4, 8, 8), Block(0, 3, 8, 2, 3, 8, 3))).mean_bits == 5


def attempt(call, *args):
    """The result, or the user error."""
    try:
        return call(*args)
    except UserError as error:
        return error


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "not None"),
        ([], "not []"),
        ("imagenet", "not 'imagenet'"),
        ({}, "a subnet: space must be a text, but is missing"),
        ({"space": "x"}, "a subnet: blocks must be a list, but is missing"),
        ({"space": "x", "blocks": [], "name": "y"}, "'name' in its JSON; known: space, blocks"),
        ({"space": 3, "blocks": []}, "a subnet: space must be a text, not 3"),
        ({"space": "x", "blocks": {}}, "a subnet: blocks must be a list, not {}"),
        ({"space": "x", "blocks": "abc"}, "must be a list, not 'abc'"),
        ({"space": "x", "blocks": [BLOCK, 4]}, "blocks[1] must be a table, not 4"),
        (
            {"space": "x", "blocks": [BLOCK | {"pad": 1}]},
            "'pad' in blocks[0]; known: stage, kernel",
        ),
        (
            {"space": "x", "blocks": [{k: v for k, v in BLOCK.items() if k != "a_dw"}]},
            "blocks[0].a_dw must be an integer, but is missing",
        ),
        ({"space": "x", "blocks": [BLOCK | {"w_pw": 4.0}]}, "blocks[0].w_pw must be an integer"),
        ({"space": "x", "blocks": [BLOCK | {"kernel": True}]}, "blocks[0].kernel must be"),
        ({"space": "x", "blocks": [BLOCK | {"stage": None}]}, "blocks[0].stage must be"),
        ({"space": "x", "blocks": [BLOCK | {"a_pw": "6"}]}, "a_pw must be an integer, not '6'"),
    ],
)
def test_malformed_json_forms(data, words):
    assert words in refused(Subnet.from_dict, data)


def change(block=0, **fields):
    def apply(network):
        network["blocks"][block] |= fields

    return apply


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (lambda n: n.update(space="digits"), "of space 'digits', not 'imagenet'"),
        (lambda n: n["blocks"].clear(), "stage 0 has 0 blocks; space 'imagenet' allows 2, 3, 4"),
        (lambda n: n["blocks"].pop(), "stage 5 has 0 blocks; space 'imagenet' allows 1"),
        (lambda n: n["blocks"].append(n["blocks"][-1]), "stage 5 has 2 blocks"),
        (lambda n: n["blocks"].reverse(), "stages must ascend from 0 to 5"),
        (change(stage=-1), "stages must ascend from 0 to 5"),
        (change(-1, stage=6), "stages must ascend from 0 to 5"),
        (change(kernel=4), "block 0: kernel 4 is not offered; options: 3, 5, 7"),
        (change(channels=65), "block 0: channels 65 is not offered; options: 64, 72, 80, 88, 96"),
        # the third active block is the first of the second stage: block 4 of the space
        (change(2, w_pw=5), "block 4: w_pw 5 is not offered; options: 4, 6, 8"),
        (change(-1, channels=8), "block 20: channels 8 is not offered; options: 768, 776, 784, "),
        (change(a_dw=10**5000), "block 0: a_dw <int too long to show> is not offered"),
    ],
)
def test_strangers_are_not_encoded(imagenet, network, apply, words):
    apply(network)
    assert words in refused(imagenet.encode, [network])
    assert words in refused(imagenet.encode, [Subnet.from_dict(network)])


@pytest.mark.parametrize("item", [None, 3, "ks", [], {"blocks": []}, {"ks": []}])
def test_other_things_are_not_encoded(imagenet, item):
    refused(imagenet.encode, [item])


def test_rules_are_told_not_enforced(imagenet, network):
    change(kernel=7, a_dw=4)(network)
    X = imagenet.encode([network])
    assert imagenet.valid(X).tolist() == [False]


def put(key, value, index=None):
    def apply(released):
        if index is None:
            released[key] = value
        else:
            released[key][index] = value

    return apply


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (lambda r: r.pop("d"), "'d': a list of 6 numbers"),
        (lambda r: r.pop("dw_a_bits_setting"), "'dw_a_bits_setting': a list of 21 numbers"),
        (lambda r: r["e"].pop(), "'e': a list of 21 numbers"),
        (lambda r: r["ks"].append(3), "'ks': a list of 21 numbers"),
        (put("ks", 3), "'ks': a list of 21 numbers from 0 to 65536, not 3"),
        (put("e", "444"), "'e': a list of 21 numbers"),
        (put("e", math.nan, 0), "'e': a list of 21 numbers"),
        (put("e", math.inf, 0), "'e': a list of 21 numbers"),
        (put("e", 1e308, 0), "'e': a list of 21 numbers"),
        (put("e", None, 0), "'e': a list of 21 numbers"),
        (put("e", 7.0, 0), "block 0: channels 112 is not offered"),
        (put("ks", True, 0), "'ks': a list of 21 numbers"),
        (put("ks", 3.5, 0), "'ks' must hold integers, not [3.5, "),
        (put("ks", 9, 0), "block 0: kernel 9 is not offered"),
        (put("pw_w_bits_setting", 4.7, 0), "'pw_w_bits_setting' must hold integers"),
        (put("pw_w_bits_setting", 5, 0), "block 0: w_pw 5 is not offered"),
        (put("d", 1, 0), "d[0] must be one of 2, 3, 4, not 1"),
        (put("d", 5, 4), "d[4] must be one of 2, 3, 4, not 5"),
        (put("d", 2.5, 0), "'d' must hold integers"),
        (put("d", -2, 0), "'d': a list of 6 numbers"),
    ],
)
def test_malformed_released_dictionaries(imagenet, released, apply, words):
    apply(released)
    assert words in refused(imagenet.encode, [released])


@pytest.mark.parametrize("depth", [0, 1, 9])
def test_what_means_nothing_is_not_read(imagenet, released, depth):
    X = imagenet.encode([released])
    released["d"][5] = depth  # the last stage always has one block
    released["wid"] = "anything"
    released["ks"][3] = 99  # block 3 lies beyond stage 0's depth of 2
    assert (imagenet.encode([released]) == X).all()


def test_integral_floats_are_integers(imagenet, released):
    X = imagenet.encode([released])
    released["ks"] = [float(kernel) for kernel in released["ks"]]
    assert (imagenet.encode([released]) == X).all()


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
block_junk = st.fixed_dictionaries({key: junk | st.just(value) for key, value in BLOCK.items()})
near = st.fixed_dictionaries(
    {"space": junk | st.just("imagenet"), "blocks": junk | st.lists(block_junk, max_size=3)}
)


@settings(deadline=None, max_examples=300)
@given(junk | near)
def test_no_json_raises_anything_else(data):
    result = attempt(Subnet.from_dict, data)
    if isinstance(result, UserError):
        assert len(str(result).splitlines()) == 1
    else:
        assert result.to_dict() == data


released_junk = st.fixed_dictionaries(
    {
        key: junk | st.lists(st.integers() | st.floats(), min_size=n, max_size=n)
        for key, n in {
            "ks": 8, "e": 8, "d": 3,
            "pw_w_bits_setting": 8, "pw_a_bits_setting": 8,
            "dw_w_bits_setting": 8, "dw_a_bits_setting": 8,
        }.items()
    }
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(near | released_junk)
def test_encoding_raises_nothing_else(data):
    space = load_space("digits")
    result = attempt(space.encode, [data])
    if isinstance(result, UserError):
        assert len(str(result).splitlines()) == 1
    else:
        assert (space.check(result) == space.canonical(result)).all()
