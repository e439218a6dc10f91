"""Saved predictors: what is refused, in one line each."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from apq_moo.errors import UserError
from apq_moo.predictors import AdditivePredictor, MLPPredictor, Predictor, load_predictor
from apq_moo.predictors.storage import read_state, write_state


def refused(path, space, match):
    with pytest.raises(UserError, match=match) as caught:
        load_predictor(path, space)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.fixture
def saved(fitted, tmp_path):
    path = tmp_path / "predictor.safetensors"
    fitted["mlp"].save(path)
    return path


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_truncated(saved, digits, keep):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    refused(saved, digits, "cannot read")


def test_any_altered_byte_of_the_arrays(saved, digits):
    data = saved.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for position in np.random.default_rng(0).integers(start, len(data), 10):
        altered = bytearray(data)
        altered[position] ^= 1
        saved.write_bytes(altered)
        refused(saved, digits, "do not match its checksum")


@pytest.mark.parametrize(
    ("old", "new"), [(b'seed\\": 1', b'seed\\": 2'), (b'\\"mlp\\"', b'\\"xlp\\"')]
)
def test_altered_header(saved, digits, old, new):
    data = saved.read_bytes()
    assert data.count(old) == 1
    saved.write_bytes(data.replace(old, new))
    refused(saved, digits, "do not match its checksum")


def test_altered_tensor_names(saved, digits):
    data = saved.read_bytes()
    swapped = data.replace(b"layers.1.0", b"LAYERS").replace(b"layers.2.0", b"layers.1.0")
    saved.write_bytes(swapped.replace(b"LAYERS", b"layers.2.0"))
    refused(saved, digits, "cannot read|do not match its checksum")


def test_another_space(saved, imagenet):
    refused(saved, imagenet, "belongs to another space \\('digits'\\), not to this 'imagenet'")


def test_other_files(digits, tmp_path):
    refused(tmp_path / "missing.safetensors", digits, "cannot read")
    refused(tmp_path, digits, "cannot read")
    text = tmp_path / "text.safetensors"
    text.write_text("[1, 2, 3]")
    refused(text, digits, "cannot read")
    foreign = tmp_path / "foreign.safetensors"
    for metadata in (None, {"header": "[]"}, {"header": json.dumps({"format": "x"})}):
        save_file({"a": np.zeros(3)}, foreign, metadata=metadata)
        refused(foreign, digits, "not a file of kind 'apq-moo predictor 1'")
    save_file({"a": np.zeros(3)}, foreign, metadata={"header": "{"})
    refused(foreign, digits, "is not valid JSON")


def test_unknown_or_other_kind(saved, fitted, digits, tmp_path):
    with pytest.raises(UserError, match="holds a predictor 'mlp', not a AdditivePredictor"):
        AdditivePredictor.load(saved, digits)
    assert isinstance(Predictor.load(saved, digits), MLPPredictor)
    path = tmp_path / "unknown.safetensors"
    write_state(path, digits, {}, {"predictor": "oracle", "seed": 0, "settings": {}})
    with pytest.raises(UserError, match="unknown predictor 'oracle'"):
        load_predictor(path, digits)


@pytest.mark.parametrize("name", ["additive", "xgboost", "xgboost-stacked", "gbdt", "gp", "mlp"])
def test_well_formed_files_of_wrong_contents(name, digits, imagenet, fitted, tmp_path):
    path = tmp_path / "predictor.safetensors"
    header = {"predictor": name, "seed": 0, "settings": {"center": 0, "scale": 1, "intercept": 0}}
    write_state(path, digits, {}, header)
    refused(path, digits, "does not hold a predictor|is missing")
    # Right names, but learnt on another space.
    fitted[name].save(path)
    arrays, header = read_state(path, digits)
    write_state(path, imagenet, arrays, header)
    refused(path, imagenet, "needs|features|expects X")


def test_a_failed_save_leaves_the_old_file(saved, fitted, tmp_path):
    before = saved.read_bytes()
    with pytest.raises(UserError, match="cannot write"):
        fitted["mlp"].save(saved / "below.safetensors")
    assert saved.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [saved.name]


def test_headers_that_are_deep_or_long(saved, digits):
    data = saved.read_bytes()
    size = int.from_bytes(data[:8], "little")
    outer = json.loads(data[8 : 8 + size])
    for text, match in (
        ("[" * 150 + "]" * 150, "nested more than 100 levels"),
        ("[" * 100_000, "recursion"),
        ('{"a": ' + "9" * 5000 + "}", "5000 digits"),
        (" " * 2**22, "list of tensors is too long"),
    ):
        outer["__metadata__"]["header"] = text
        changed = json.dumps(outer).encode()
        saved.write_bytes(len(changed).to_bytes(8, "little") + changed + data[8 + size :])
        refused(saved, digits, match)
    saved.write_bytes(data)
    with saved.open("ab") as handle:
        handle.truncate(2**27 + 1)
    refused(saved, digits, "has more than 134,217,728 bytes")


@pytest.mark.parametrize(
    ("name", "setting", "array"),
    [("mlp", "center", "regressor.bias"), ("additive", "intercept", "coefficients")],
)
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e30])
def test_numbers_that_no_accuracy_comes_of(name, setting, array, value, fitted, digits, tmp_path):
    path = tmp_path / "predictor.safetensors"
    fitted[name].save(path)
    arrays, header = read_state(path, digits)
    changed = {**header, "settings": {**header["settings"], setting: value}}
    write_state(path, digits, arrays, changed)
    refused(path, digits, f"{setting} must lie between -1,000,000 and 1,000,000")
    arrays[array] = arrays[array].copy()
    arrays[array].flat[-1] = value
    write_state(path, digits, arrays, header)
    refused(path, digits, "numbers of at most 1,000,000")


def test_trees_that_take_long(digits, fitted, tmp_path):
    """Many roots beside one deep tree."""
    path = tmp_path / "predictor.safetensors"
    fitted["gbdt"].save(path)
    _, header = read_state(path, digits)
    n, depth = 20_000, 900
    children = np.full((n, 2), -1, dtype=np.int32)
    firsts = 1 + 2 * np.arange(depth)
    children[[0, *firsts[:-1]]] = np.stack([firsts, firsts + 1], axis=1)
    numbers = {"features": np.zeros(n, np.int32), "thresholds": np.zeros(n, np.float32)}
    arrays = {"base": np.zeros(1), "children": children, "values": np.zeros(n), **numbers}
    arrays["roots"] = np.append(0, np.arange(2 * depth + 1, n)).astype(np.int32)
    write_state(path, digits, {f"mp.{name}": array for name, array in arrays.items()}, header)
    refused(path, digits, "too many for their depth")
