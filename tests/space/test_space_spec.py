"""Descriptions: what is read, and one clear line for whatever is wrong."""

import copy
import math
import tomllib
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apq_moo.errors import UserError
from apq_moo.space import ROLES, Space, SpaceSpec, Stage

MISSING = object()


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def spoil(description, path, value):
    *parents, key = path
    for parent in parents:
        description = description[parent]
    if value is MISSING:
        del description[key]
    else:
        description[key] = value


def message_of(data):
    with pytest.raises(UserError) as caught:
        Space(SpaceSpec.from_dict(data, source="my.toml"))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 400
    return message


def test_reads_every_key(description):
    assert SpaceSpec.from_dict(description) == SpaceSpec(
        name="tiny",
        images="digits",
        input_size=9,
        input_channels=1,
        classes=10,
        channel_step=4,
        bits={"w_pw": (4, 8), "a_pw": (6,), "w_dw": (2, 8), "a_dw": (4, 8)},
        fixed_bits=8,
        stem=(4, 3, 2),
        first_block=(8, 5, 1),
        feature_mix=24,
        stages=(
            Stage(8, 2, (1, 2), (3, 5), (1.0, 2.0)),
            Stage(12, 1, (1,), (3,), (1.5, 2.0)),
        ),
        table_omits=("classifier",),
        forbidden=({"kernel": (5,), "a_dw": (4,)},),
    )


def test_defaults(description):
    for key in ("images", "channel_step", "table_omits", "first_block", "feature_mix", "forbidden"):
        del description[key]
    del description["bits"]["fixed"]
    description["stem"] = {"channels": 8}
    spec = SpaceSpec.from_dict(description)
    assert (spec.images, spec.channel_step, spec.fixed_bits) == ("", 8, 8)
    assert (spec.stem, spec.first_block, spec.feature_mix) == ((8, 3, 1), None, None)
    assert (spec.table_omits, spec.forbidden) == ((), ())


def test_reading_leaves_the_input_alone(description):
    before = copy.deepcopy(description)
    SpaceSpec.from_dict(description)
    assert description == before


S0 = ("stages", 0)
# what is spoilt, by what, and the words that must name it
MALFORMED = [
    # keys that are missing
    (("name",), MISSING, "name must be"),
    (("input_size",), MISSING, "input_size must be an integer from 1 to 4096, but is missing"),
    (("input_channels",), MISSING, "input_channels must be"),
    (("classes",), MISSING, "classes must be"),
    (("stem",), MISSING, "[stem] table is needed"),
    (("stem", "channels"), MISSING, "stem.channels must be"),
    (("stages",), MISSING, "[[stages]] table is needed"),
    (("bits",), MISSING, "bits.w_pw must be"),
    (("bits", "a_dw"), MISSING, "bits.a_dw must be"),
    (("kernels",), MISSING, "stages[0].kernels must be"),
    (("expand",), MISSING, "stages[0].expand must be"),
    ((*S0, "width"), MISSING, "stages[0].width must be"),
    (("stages", 1, "depths"), MISSING, "stages[1].depths must be"),
    (("feature_mix", "channels"), MISSING, "feature_mix.channels must be"),
    # keys that are unknown
    (("kernel",), [3], "unknown key 'kernel' in the file; known: name, "),
    (("a\nb",), 3, r"unknown key 'a\nb' in the file"),
    (("bits", "w"), [4], "unknown key 'w' in [bits]; known: w_pw, a_pw, w_dw, a_dw, fixed"),
    (("stem", "pad"), 1, "unknown key 'pad' in [stem]"),
    (("first_block", "expand"), 1, "unknown key 'expand' in [first_block]"),
    (("feature_mix", "kernel"), 1, "unknown key 'kernel' in [feature_mix]"),
    ((*S0, "depth"), [1], "unknown key 'depth' in stages[0]"),
    (("forbidden", 0, "depth"), 1, "unknown key 'depth' in forbidden[0]"),
    # sections of another type
    (("stem",), 3, "[stem] must be a table, not 3"),
    (("first_block",), [8], "[first_block] must be a table, not [8]"),
    (("first_block",), 3, "[first_block] must be a table, not 3"),
    (("feature_mix",), 1280, "[feature_mix] must be a table, not 1280"),
    (("bits",), [4, 8], "[bits] must be a table, not [4, 8]"),
    (("stages",), {"width": 8}, "stages must be a list, not {'width': 8}"),
    (("stages",), [], "[[stages]] table is needed"),
    (("stages", 1), 4, "stages[1] must be a table, not 4"),
    (("forbidden",), {"kernel": 7}, "forbidden must be a list"),
    (("forbidden", 0), "kernel", "forbidden[0] must be a table, not 'kernel'"),
    (("forbidden", 0), {}, "forbidden[0] is empty"),
    (("table_omits",), "stem", "table_omits must be a list, not 'stem'"),
    (("table_omits",), ["head"], "table_omits: unknown 'head'; known: stem, first_block"),
    (("table_omits",), [["stem"]], "table_omits: unknown ['stem']"),
    # texts
    (("name",), "", "name must be"),
    (("name",), 3, "name must be"),
    (("name",), "../up", "not '../up'"),
    (("name",), "two\nlines", r"not 'two\nlines'"),
    (("name",), "x" * 65, "name must be up to 64 letters"),
    (("images",), 3, "images must be a text, not 3"),
    # integers
    (("input_size",), "224", "input_size must be an integer from 1 to 4096, not '224'"),
    (("input_size",), 224.0, "not 224.0"),
    (("input_size",), True, "input_size must be an integer from 1 to 4096, not True"),
    (("input_size",), 0, "not 0"),
    (("input_size",), 10**30, "input_size must be an integer from 1 to 4096, not 1000"),
    (("input_size",), 10**5000, "input_size must be an integer"),
    (("input_channels",), None, "input_channels must be an integer from 1 to 65536, not None"),
    (("classes",), 1, "classes must be an integer from 2"),
    (("channel_step",), 0, "channel_step must be an integer from 1"),
    (("bits", "fixed"), 1, "bits.fixed must be an integer from 2 to 16, not 1"),
    (("stem", "kernel"), 4, "stem.kernel must be odd, not 4"),
    (("stem", "kernel"), 33, "stem.kernel must be an integer from 1 to 31, not 33"),
    (("stem", "stride"), -1, "stem.stride must be an integer from 1 to 8, not -1"),
    (("first_block", "stride"), 0, "first_block.stride must be"),
    (("feature_mix", "channels"), [1280], "feature_mix.channels must be"),
    ((*S0, "width"), 65537, "stages[0].width must be an integer from 1 to 65536, not 65537"),
    ((*S0, "stride"), -2, "stages[0].stride must be an integer from 1 to 8, not -2"),
    # lists of options
    ((*S0, "depths"), [], "stages[0].depths must be a non-empty, ascending list"),
    ((*S0, "depths"), 2, "stages[0].depths must be a non-empty, ascending list"),
    ((*S0, "depths"), [2, 1], "integers from 1 to 64, not [2, 1]"),
    ((*S0, "depths"), [1, 1], "not [1, 1]"),
    ((*S0, "depths"), [0, 1], "not [0, 1]"),
    ((*S0, "depths"), [65], "not [65]"),
    ((*S0, "depths"), [1, True], "not [1, True]"),
    ((*S0, "depths"), nested(5000), "stages[0].depths must be a non-empty, ascending list"),
    (("kernels",), [3, 4], "stages[0].kernels must be a list of odd integers, not [3, 4]"),
    (("kernels",), [5, 3], "stages[0].kernels must be"),
    (("stages", 1, "kernels"), "3", "stages[1].kernels must be"),
    (("bits", "w_pw"), [1, 4], "bits.w_pw must be a non-empty, ascending list of integers from 2"),
    (("bits", "a_pw"), [8, 17], "bits.a_pw must be"),
    (("bits", "a_pw"), [8, 31], "bits.a_pw must be a list of 2 to 16, or 32 for floating point"),
    (("bits", "a_pw"), [32, 33], "bits.a_pw must be"),
    (("bits", "fixed"), 31, "bits.fixed must be"),
    (("bits", "w_dw"), [4, 4.5], "bits.w_dw must be"),
    (("bits", "a_dw"), [10**5000], "bits.a_dw must be"),
    (("forbidden", 0, "kernel"), "5", "forbidden[0].kernel must be"),
    (("forbidden", 0, "kernel"), [], "forbidden[0].kernel must be"),
    (("forbidden", 0, "a_dw"), 4.0, "forbidden[0].a_dw must be"),
    # ratios
    (("expand",), 6, "stages[0].expand must be [smallest, largest] ratio"),
    (("expand",), [4], "stages[0].expand must be"),
    (("expand",), [1, 2, 3], "not [1, 2, 3]"),
    (("expand",), [6, 4], "not [6, 4]"),
    (("expand",), [0, 4], "not [0, 4]"),
    (("expand",), [-1, 4], "not [-1, 4]"),
    (("expand",), [1, 65], "not [1, 65]"),
    (("expand",), [True, 4], "not [True, 4]"),
    (("expand",), ["1", 4], "not ['1', 4]"),
    (("expand",), [math.nan, 4], "not [nan, 4]"),
    (("expand",), [1, math.nan], "not [1, nan]"),
    (("expand",), [1, math.inf], "not [1, inf]"),
    (("expand",), [-math.inf, 4], "not [-inf, 4]"),
    (("expand",), [1, 10**400], "stages[0].expand must be"),
    (("stages", 1, "expand"), {}, "stages[1].expand must be"),
]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    MALFORMED,
    ids=[f"{i}-{'.'.join(map(repr, path))}" for i, (path, *_) in enumerate(MALFORMED)],
)
def test_malformed_descriptions(description, path, value, words):
    spoil(description, path, value)
    message = message_of(description)
    assert message.startswith("my.toml: ")
    assert words in message


def test_of_unknown_keys_the_first_by_name_is_told(description):
    description |= {"zeta": 1, 5: 2, "alpha": 3}
    assert "unknown key 5 in the file" in message_of(description)
    del description[5]
    assert "unknown key 'alpha' in the file" in message_of(description)


@pytest.mark.parametrize("data", [None, 3, "tiny", [], [{}], math.nan])
def test_a_description_is_a_table(data):
    assert "the file must be a table" in message_of(data)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("forbidden",), [{"w_pw": [4, 8]}], "leave block 0 no configuration"),
        (("forbidden",), [{"kernel": 3}, {"kernel": 5}], "leave block 0 no configuration"),
        (("stages", 1, "expand"), [1.1, 1.4], "no multiple of channel_step 4 lies within expand"),
        (("channel_step",), 128, "no multiple of channel_step 128"),
    ],
)
def test_spaces_without_members(description, path, value, words):
    spoil(description, path, value)
    assert words in message_of(description)


def test_a_rule_that_empties_a_later_block_names_it(description):
    description["forbidden"] = [{"channels": [12, 16], "kernel": 3}]
    assert "leave block 2 no configuration" in message_of(description)


# -- bounds on size --------------------------------------------------------------------------------


def wide(description, n_blocks):
    """``n_blocks`` blocks of 15^4 = 50,625 configurations: all bits from 2 to 16, nothing else."""
    description |= {
        "bits": {role: list(range(2, 17)) for role in ROLES},
        "kernels": [3],
        "expand": [1, 1],
        "forbidden": [],
        "stages": [{"width": 8, "depths": [64]}] * (n_blocks // 64)
        + [{"width": 8, "depths": [n_blocks % 64]}],
    }
    return description


def test_most_configurations(description):
    # 2^24 / 15^4 = 331.4
    assert Space(SpaceSpec.from_dict(wide(description, 331))).n_blocks == 331
    message = message_of(wide(description, 332))
    assert "more than 16,777,216 configurations" in message


def test_most_blocks(description):
    description |= {
        "bits": {role: [8] for role in ROLES},
        "stages": [{"width": 8, "depths": [64]}] * 64,
    }
    assert Space(SpaceSpec.from_dict(description)).n_blocks == 4096
    description["stages"].append({"width": 8, "depths": [1]})
    assert "has 4097 blocks; at most 4096" in message_of(description)


def test_a_block_of_thousands_of_millions_of_configurations_is_refused_at_once(description):
    description |= {"channel_step": 1, "expand": [0.0001, 64]}
    description["first_block"]["channels"] = 65536
    description["bits"] = {role: [2, 3, 4, 5, 6, 7, 8] for role in ROLES}
    # 65,536 x 64 channel numbers x 2 kernels x 7^4 policies = 2e10
    assert "configurations" in message_of(description)


# -- the digest ------------------------------------------------------------------------------------


def test_digest_ignores_the_name_and_the_order_of_keys(description):
    digest = SpaceSpec.from_dict(description).digest
    other = {key: description[key] for key in reversed(description)} | {"name": "other"}
    other["table_omits"] = ["classifier", "classifier"]
    assert SpaceSpec.from_dict(other).digest == digest
    assert len(bytes.fromhex(digest)) == 32


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("images",), ""),
        (("input_size",), 10),
        (("input_channels",), 3),
        (("classes",), 11),
        (("channel_step",), 8),
        (("bits", "a_dw"), [4, 6, 8]),
        (("bits", "fixed"), 6),
        (("stem", "stride"), 1),
        (("first_block",), MISSING),
        (("feature_mix", "channels"), 32),
        ((*S0, "depths"), [2]),
        (("stages", 1, "expand"), [1.5, 2.5]),
        (("table_omits",), []),
        (("forbidden",), []),
        (("forbidden", 0, "a_dw"), 8),
    ],
)
def test_digest_sees_everything_else(description, path, value):
    before = SpaceSpec.from_dict(description).digest
    spoil(description, path, value)
    assert SpaceSpec.from_dict(description).digest != before


# -- fuzzing ---------------------------------------------------------------------------------------

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
keys = st.sampled_from(
    [
        *("name", "images", "input_size", "input_channels", "classes", "channel_step", "kernels"),
        *("expand", "bits", "stem", "first_block", "stages", "feature_mix", "table_omits"),
        "forbidden",
    ]
)


def read(data):
    """Whether the answer is a space, or one line that says why not."""
    try:
        assert Space(SpaceSpec.from_dict(data)).count() > 0
    except UserError as error:
        message = str(error)
        return len(message.splitlines()) == 1
    return True


@settings(deadline=None, max_examples=200)
@given(junk | st.dictionaries(keys, junk))
def test_no_input_raises_anything_else(data):
    assert read(data)


def places(value, path=()):
    """Paths of all entries of nested dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


PRESET = tomllib.loads((files("apq_moo.space") / "presets" / "digits.toml").read_text())


@settings(deadline=None, max_examples=400)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(places(PRESET), key=str)), junk), min_size=1, max_size=3
    )
)
def test_no_near_miss_raises_anything_else(changes):
    data = copy.deepcopy(PRESET)
    for path, value in changes:
        try:
            spoil(data, path, value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change removed the place
    assert read(data)
