"""The network: exact inference against torch, and released checkpoints."""

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apq_moo.errors import UserError
from apq_moo.predictors import inference, load_predictor, load_published
from apq_moo.predictors.inference import ExactNetwork
from apq_moo.predictors.network import check_weights, weight_shapes
from apq_moo.predictors.training import Recipe, initial_weights, train
from apq_moo.space import Space, load_space


class Twin(torch.nn.Module):
    """The released layout, written as plainly as torch allows."""

    def __init__(self, architecture, bits):
        super().__init__()
        sizes = [architecture, 400, 400, 400]
        self.layers = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(a, b), torch.nn.ReLU()) for a, b in pairwise(sizes)
        )
        self.quantize_fc = torch.nn.Linear(bits, 400)
        self.regressor = torch.nn.Linear(400, 1)

    def forward(self, architecture, bits=None):
        x = self.layers[0](architecture)
        if bits is not None:
            x = x + self.quantize_fc(bits)
        return self.regressor(self.layers[2](self.layers[1](x)))[:, 0]


def make_twin(space, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    twin = Twin(space.n_architecture_inputs, space.n_inputs - space.n_architecture_inputs)
    with torch.no_grad():
        for parameter in twin.parameters():
            bound = spread / parameter.shape[-1] ** 0.5
            parameter.uniform_(-bound, bound, generator=generator)
    return twin


def evaluate(twin, space, X):
    """In float64."""
    Z = torch.from_numpy(space.one_hot(X).astype(np.float64))
    split = space.n_architecture_inputs
    with torch.inference_mode():
        return twin.double()(Z[:, :split], Z[:, split:]).numpy()


def arrays(twin):
    return {name: value.float().numpy().copy() for name, value in twin.state_dict().items()}


def many_bits():
    """A space whose blocks have too many combinations of bits for one table."""
    spec = load_space("digits").spec
    options = tuple(range(2, 9))
    return Space(type(spec)(**{**spec.__dict__, "bits": dict.fromkeys(spec.bits, options)}))


@pytest.mark.parametrize("space", [load_space("imagenet"), load_space("digits"), many_bits()])
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
def test_network_equals_its_torch_twin(space, spread):
    twin = make_twin(space, spread=spread)
    X = space.sample(300, np.random.default_rng(0))
    expected = evaluate(twin, space, X)
    network = ExactNetwork(space, check_weights(arrays(twin), space))
    got = network(X)
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
    np.testing.assert_array_equal(network.of_blocks(space.block_index(X)), got)


@pytest.mark.parametrize("space", [load_space("imagenet"), many_bits()])
def test_products_of_bytes_equal_float64(space, monkeypatch):
    """The two ways to compute, in chunks of several sizes."""
    weights = check_weights(arrays(make_twin(space, seed=3, spread=4.0)), space)
    X = space.sample(600, np.random.default_rng(1))
    found = {}
    for fast in (False, True):
        monkeypatch.setattr(inference, "_has_byte_products", lambda fast=fast: fast)
        network = ExactNetwork(space, weights)
        found[fast] = network(X)
        np.testing.assert_array_equal(network(X[:1]), found[fast][:1])
        np.testing.assert_array_equal(network(X[50:337]), found[fast][50:337])
    np.testing.assert_array_equal(found[True], found[False])


def test_products_of_bytes_follow_the_processor_and_must_be_exact(monkeypatch):
    decide = inference._has_byte_products.__wrapped__
    calls = []

    def exact(a, b):
        calls.append(a.shape)
        return (a.double() @ b.double()).int()

    def saturating(a, b):
        return exact(a, b).clamp(-(2**20), 2**20)

    def missing(a, b):
        raise RuntimeError("not implemented for this processor")

    for flags, product, expected in [
        ({"avx2", "avx512_f"}, exact, False),
        (set(), exact, False),
        ({"avx2", "avx512_vnni"}, exact, True),
        ({"avx_vnni"}, exact, True),
        ({"amx_int8"}, exact, True),
        ({"avx512_vnni"}, saturating, False),
        ({"avx512_vnni"}, missing, False),
    ]:
        monkeypatch.setattr(inference, "_processor_flags", lambda flags=flags: flags)
        monkeypatch.setattr(torch, "_int_mm", product)
        assert decide() == expected
    assert len(calls) == 4  # not where the processor lacks the instructions
    monkeypatch.delattr(torch, "_int_mm")
    assert not decide()


def test_torch_and_linux_agree_on_the_processor(monkeypatch, tmp_path):
    if not hasattr(torch.cpu, "get_capabilities") or not Path("/proc/cpuinfo").exists():
        pytest.skip("only one of them tells here")
    by_torch = inference._processor_flags() & inference._BYTE_PRODUCTS
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert inference._processor_flags() & inference._BYTE_PRODUCTS == by_torch
    monkeypatch.setattr(inference, "Path", lambda _name: tmp_path / "no such file")
    assert inference._processor_flags() == set()


def test_sums_at_the_limits_of_their_types_are_exact():
    rows, layer = (
        np.full((3, 400), 32639, np.float32),
        inference._Layer(np.full((400, 400), -2.0), np.zeros(400)),
    )
    rows[1] *= -1
    rows[2, ::2] = -32512
    room = inference._Room.of(3)
    layer.multiply(rows.copy(), room, fast=True)
    expected = -32639.0 * rows.astype(np.int64).sum(axis=1)
    np.testing.assert_array_equal(room.total, np.repeat(expected[:, None], 400, axis=1))
    layer.multiply(rows.copy(), room, fast=False)
    np.testing.assert_array_equal(room.total, np.repeat(expected[:, None], 400, axis=1))


def permuted(weights, rng):
    """The same network with its hidden units in another order."""
    orders = [rng.permutation(400) for _ in range(3)]
    result = {name: array.copy() for name, array in weights.items()}
    for name, order in zip(("layers.0.0", "layers.1.0", "layers.2.0"), orders, strict=True):
        for part in ("weight", "bias"):
            result[f"{name}.{part}"] = result[f"{name}.{part}"][order]
    for part in ("weight", "bias"):
        result[f"quantize_fc.{part}"] = result[f"quantize_fc.{part}"][orders[0]]
    for name, order in zip(("layers.1.0", "layers.2.0", "regressor"), orders, strict=True):
        result[f"{name}.weight"] = result[f"{name}.weight"][:, order]
    return result


@given(seed=st.integers(0, 2**32 - 1), heavy=st.booleans())
@settings(max_examples=10, deadline=None)
def test_arithmetic_is_exact_in_any_order(seed, heavy):
    """Rounding would show when the terms of every sum trade places."""
    space = load_space("digits")
    rng = np.random.default_rng(seed)
    weights = {
        name: (rng.standard_cauchy(shape) if heavy else rng.normal(size=shape)).astype(np.float32)
        for name, shape in weight_shapes(space).items()
    }
    X = space.sample(40, rng)
    expected = ExactNetwork(space, weights)(X)
    other = ExactNetwork(space, permuted(weights, rng))(X[::-1])[::-1]
    np.testing.assert_array_equal(other, expected)
    assert len(np.unique(expected)) > 30


def test_a_network_of_zeros(digits):
    weights = {
        name: np.zeros(shape, dtype=np.float32) for name, shape in weight_shapes(digits).items()
    }
    weights["regressor.bias"] += np.float32(0.7)
    network = ExactNetwork(digits, weights)
    X = digits.sample(3, np.random.default_rng(0))
    np.testing.assert_allclose(network(X), 0.7, rtol=1e-6)


def test_published_shapes(imagenet):
    assert weight_shapes(imagenet) == {
        "layers.0.0.weight": (400, 520),
        "layers.0.0.bias": (400,),
        "quantize_fc.weight": (400, 252),
        "quantize_fc.bias": (400,),
        "layers.1.0.weight": (400, 400),
        "layers.1.0.bias": (400,),
        "layers.2.0.weight": (400, 400),
        "layers.2.0.bias": (400,),
        "regressor.weight": (1, 400),
        "regressor.bias": (1,),
    }


def test_transfer_starts_from_the_pretrained_function(digits):
    weights = initial_weights(digits, np.random.default_rng(0), zero_bits=True)
    twin = make_twin(digits)
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    X = digits.sample(50, np.random.default_rng(1))
    Z = torch.from_numpy(digits.one_hot(X)).double()[:, : digits.n_architecture_inputs]
    with torch.inference_mode():
        full_precision = twin.double()(Z).numpy()
    np.testing.assert_allclose(ExactNetwork(digits, weights)(X), full_precision, atol=1e-5)


def test_training_equals_a_plain_torch_loop(digits):
    """Full batches and a step count too small for the schedule to matter in order of samples."""
    rng = np.random.default_rng(0)
    start = initial_weights(digits, rng, zero_bits=True)
    X = digits.sample(32, rng)
    Z, split = digits.one_hot(X), digits.n_architecture_inputs
    y = rng.normal(size=32)
    recipe = Recipe(
        epochs=3, min_steps=1, batch=32, lr=1e-3, bits_lr=5e-3, weight_decay=0.5, warmup=0.0
    )
    got = train(start, (Z[:, :split], Z[:, split:]), y, recipe, rng)

    twin = make_twin(digits).float()
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in start.items()})
    bits = list(twin.quantize_fc.parameters())
    rest = [*twin.layers.parameters(), *twin.regressor.parameters()]
    optimiser = torch.optim.AdamW(
        [{"params": rest, "lr": 1e-3}, {"params": bits, "lr": 5e-3}], weight_decay=0.5
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=3)
    inputs, targets = torch.from_numpy(np.ascontiguousarray(Z)), torch.from_numpy(y).float()
    for _ in range(3):
        optimiser.zero_grad()
        ((twin(inputs[:, :split], inputs[:, split:]) - targets) ** 2).mean().backward()
        optimiser.step()
        cosine.step()
    for name, expected in twin.state_dict().items():
        np.testing.assert_allclose(got[name], expected.numpy(), rtol=1e-3, atol=2e-5)
    assert np.abs(got["quantize_fc.weight"]).max() > 1e-3

    # Without bits their map is left as it was.
    got = train(start, (Z[:, :split], None), y, recipe, rng)
    np.testing.assert_array_equal(got["quantize_fc.weight"], start["quantize_fc.weight"])


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """One network in all the forms that checkpoints come in."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("released")
    twin = make_twin(load_space("imagenet"), seed=7)
    state = twin.state_dict()
    torch.save(state, folder / "plain.pt")
    torch.save({"state_dict": state, "epoch": 3}, folder / "nested.pth")
    prefixed = {f"module.{name}": value for name, value in state.items()}
    torch.save({"state_dict": prefixed}, folder / "parallel.pth.tar")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file(state, folder / "plain.safetensors")
    return twin, folder


@pytest.mark.parametrize("name", ["plain.pt", "nested.pth", "parallel.pth.tar", "legacy.pt"])
def test_released_checkpoint(name, released, imagenet, tmp_path):
    twin, folder = released
    X = imagenet.sample(200, np.random.default_rng(0))
    predictor = load_predictor(folder / name, imagenet)
    expected = 100 * evaluate(twin, imagenet, X)
    np.testing.assert_allclose(predictor.predict(X), expected, atol=2e-3)
    predictor.save(tmp_path / "own.safetensors")
    own = load_predictor(tmp_path / "own.safetensors", imagenet)
    np.testing.assert_array_equal(own.predict(X), predictor.predict(X))
    same = load_published(folder / "plain.safetensors", imagenet)
    np.testing.assert_array_equal(same.predict(X), predictor.predict(X))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


BAD_STATES = {
    "missing key": lambda s: {k: v for k, v in s.items() if k != "quantize_fc.bias"},
    "fourth layer": lambda s: s | {"layers.3.0.weight": s["layers.2.0.weight"]},
    "wrong width": lambda s: s | {"layers.1.0.weight": s["layers.1.0.weight"][:300]},
    "not finite": lambda s: s | {"regressor.bias": torch.tensor([float("nan")])},
    "integers": lambda s: s | {"regressor.bias": torch.tensor([1])},
    "not a tensor": lambda s: s | {"regressor.bias": [0.5]},
    "a list": lambda s: list(s.values()),
}
BAD_BYTES = {
    "truncated": lambda data: data[:5000],
    "empty": lambda data: b"",
    "text": lambda data: b"hello",
}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing key", "'quantize_fc.bias' is missing"),
        ("fourth layer", "unexpected array 'layers.3.0.weight'"),
        ("wrong width", r"layers.1.0.weight has shape \(300, 400\); .* needs \(400, 400\)"),
        ("not finite", "regressor.bias must hold floating-point numbers of at most"),
        ("integers", "regressor.bias must hold floating-point"),
        ("not a tensor", "found 'regressor.bias': list"),
        ("a list", "expected a dictionary of tensors, found list"),
        ("code", "holds more than tensors"),
        ("plain pickle with code", "holds more than tensors"),
        ("truncated", "damaged"),
        ("empty", "damaged"),
        ("text", "damaged"),
        ("no file", "No such file"),
    ],
)
def test_refused_checkpoints(how, message, released, imagenet, tmp_path):
    path, mark = tmp_path / "bad.pt", tmp_path / "exploded"
    state = {name: value.float().clone() for name, value in released[0].state_dict().items()}
    if how in BAD_STATES:
        torch.save(BAD_STATES[how](state), path)
    elif how in BAD_BYTES:
        torch.save(state, path)
        path.write_bytes(BAD_BYTES[how](path.read_bytes()))
    elif how == "code":
        torch.save(state | {"regressor.bias": Bomb(mark)}, path)
    elif how == "plain pickle with code":
        path.write_bytes(pickle.dumps(Bomb(mark), protocol=2))
    with pytest.raises(UserError, match=message) as caught:
        load_predictor(path, imagenet)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not mark.exists()


def test_checkpoint_of_another_space(released, digits):
    with pytest.raises(UserError, match=r"has shape \(400, 520\); space 'digits' needs"):
        load_published(released[1] / "plain.pt", digits)


def test_damaged_safetensors(released, imagenet, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes((released[1] / "plain.safetensors").read_bytes()[:9000])
    with pytest.raises(UserError, match="cannot read checkpoint"):
        load_published(path, imagenet)
