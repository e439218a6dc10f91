"""Gradients of gates and of mixtures of bits, against autograd of what they stand for."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.space import Block
from apq_moo.space.spec import ROLES
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.gates import (
    StagePath,
    block_layers,
    fixed_parts,
    gate_gradients,
)
from apq_moo.supernet.mixtures import mixture_gradients, roles
from apq_moo.supernet.network import BN_EPS, forward, rounded, run
from apq_moo.supernet.quantisers import quantise_activation, quantise_weight


@pytest.fixture(scope="module")
def supernet(digits):
    found, _ = load_supernet(find_assets(digits).path(SUPERNET), digits)
    return found.requires_grad_(False)


@pytest.fixture(scope="module")
def batch(image_set):
    x, y = image_set.train.images[:48], image_set.train.labels[:48]
    return torch.from_numpy(x), torch.from_numpy(y)


def block(stage, kernel, channels, bits=8):
    return Block(stage, kernel, channels, bits, bits, bits, bits)


@pytest.fixture
def path():
    """Two of three blocks, one of three, two of two."""
    return [
        StagePath(
            [block(0, 3, 16), block(0, 5, 24), block(0, 7, 32, 6)],
            2,
            [
                [block(0, 3, 16), block(0, 3, 32), block(0, 5, 16)],
                [block(0, 5, 24), block(0, 7, 8, 4)],
            ],
            (1, 2, 3),
        ),
        StagePath(
            [block(1, 3, 24), block(1, 5, 16), block(1, 3, 64)],
            1,
            [[block(1, 5, 48), block(1, 3, 24)]],
            (1, 3),
        ),
        StagePath([block(2, 3, 16), block(2, 3, 96)], 2, [[block(2, 3, 16)], []], (2,)),
    ]


def gated(supernet, x, y, path):
    """The loss of a network in which every candidate is there, times a gate; and the gates."""
    ahead, behind = fixed_parts(supernet)
    h = run(ahead, x.to(memory_format=torch.channels_last), rounded)
    gates, deep = [], []
    for number, stage in enumerate(path):
        gates.append([])
        reached = []
        for position, taken in enumerate(stage.blocks):
            options = stage.candidates[position] if position < stage.depth else ()
            if options:
                gate = torch.tensor([float(o == taken) for o in options], requires_grad=True)
                parts = [
                    run(block_layers(supernet, number, position, o), h, rounded) for o in options
                ]
                if taken not in options:
                    parts.append(run(block_layers(supernet, number, position, taken), h, rounded))
                    gate_of_taken = torch.ones(1)
                    h = sum(
                        g * o for g, o in zip(torch.cat([gate, gate_of_taken]), parts, strict=True)
                    )
                else:
                    h = sum(g * o for g, o in zip(gate, parts, strict=True))
                gates[-1].append(gate)
            else:
                h = run(block_layers(supernet, number, position, taken), h, rounded)
                if position < stage.depth:
                    gates[-1].append(torch.zeros(0, requires_grad=True))
            reached.append(h)
        depth = torch.tensor([float(d == stage.depth) for d in stage.depths], requires_grad=True)
        h = sum(g * reached[d - 1] for g, d in zip(depth, stage.depths, strict=True))
        deep.append(depth)
    logits = run(behind, h, rounded).flatten(1)
    return F.cross_entropy(logits, y), gates, deep


def test_gates_have_the_gradients_of_the_network_that_has_them_all(supernet, batch, path):
    found = gate_gradients(supernet, *batch, path)
    loss, gates, deep = gated(supernet, *batch, path)
    loss.backward()
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    seen = 0
    for mine, theirs in zip(found.candidates, gates, strict=True):
        for values, gate in zip(mine, theirs, strict=True):
            assert len(values) == len(gate)
            if len(values):
                np.testing.assert_allclose(values, gate.grad.numpy(), rtol=1e-3, atol=1e-4)
                seen += len(values)
    for values, gate in zip(found.depths[:2], deep, strict=False):
        np.testing.assert_allclose(values, gate.grad.numpy(), rtol=1e-3, atol=1e-4)
    assert seen == 8
    assert found.depths[2].tolist() == [0.0]  # nothing to choose
    assert all(np.abs(part).max() > 1e-3 for part in found.depths[:2])


def test_the_path_is_the_subnet(supernet, batch, path, digits):
    taken = [b.__dict__ for stage in path for b in stage.blocks[: stage.depth]]
    (subnet,) = digits.decode(digits.encode([{"space": "digits", "blocks": taken}]))
    x, y = batch
    wanted = F.cross_entropy(forward(supernet.slice(subnet), x, quantised=True), y)
    assert gate_gradients(supernet, x, y, path).loss == pytest.approx(float(wanted), rel=1e-6)
    assert all(p.grad is None for p in supernet.parameters())


# -- mixtures --------------------------------------------------------------------------------------


def mixed_by_hand(supernet, x, subnet, counts, bits):
    """A plain loop over layers, with every quantised form."""
    number = {
        b: at
        for at, b in enumerate(
            sorted(
                {layer.block for layer in supernet.space.layers(subnet) if layer.block is not None}
            )
        )
    }
    for item in supernet.slice(subnet):
        layer = item.layer
        if layer.opens_shortcut:
            kept = x
        if item.scale is None:
            x = x.mean((2, 3), keepdim=True)
        weight = item.weight
        if layer.block is None:
            x = quantise_activation(x, *item.ranges.input, layer.a_bits)
            weight = quantise_weight(weight, layer.w_bits)
        else:
            of = counts[number[layer.block]]
            kind = "dw" if layer.groups > 1 else "pw"
            x = sum(
                c * quantise_activation(x, *supernet.ranges.of(layer.name, b), b)
                for c, b in zip(of[f"a_{kind}"], bits, strict=True)
            )
            weight = sum(
                c * quantise_weight(weight, b) for c, b in zip(of[f"w_{kind}"], bits, strict=True)
            )
        bias = item.bias if item.scale is None else None
        x = F.conv2d(x, weight, bias, layer.stride, layer.padding, groups=layer.groups)
        if item.scale is not None:
            x = F.batch_norm(x, None, None, item.scale, item.bias, True, eps=BN_EPS)
        if layer.activation is not None:
            x = F.relu6(x)
        if layer.closes_shortcut:
            x = x + kept
        if layer.between_bits is not None:
            x = x.half().float()
    return x.flatten(1)


@pytest.fixture(scope="module")
def subnet(digits):
    return digits.decode(digits.sample(3, np.random.default_rng(4)))[2]


def test_mixtures_have_the_gradients_of_a_plain_loop(supernet, batch, subnet):
    x, y = batch
    bits = (3, 4, 6, 8)
    rng = np.random.default_rng(0)
    shares = [{role: rng.dirichlet(np.ones(4)) for role in ROLES} for _ in subnet.blocks]
    loss, found = mixture_gradients(
        supernet, x, y, subnet, [{r: (bits, v) for r, v in of.items()} for of in shares]
    )
    counts = [
        {r: torch.tensor(v, dtype=torch.float32, requires_grad=True) for r, v in of.items()}
        for of in shares
    ]
    plain = F.cross_entropy(mixed_by_hand(supernet, x, subnet, counts, bits), y)
    plain.backward()
    assert loss == pytest.approx(float(plain.detach()), rel=1e-4)
    for mine, theirs in zip(found, counts, strict=True):
        for role in ROLES:
            np.testing.assert_allclose(mine[role], theirs[role].grad.numpy(), rtol=2e-2, atol=2e-4)
            # Batch norms undo a weight's scale: along it the loss is flat (Euler).
            if role.startswith("w"):
                at = theirs[role].detach().numpy()
                assert abs(mine[role] @ at) < 0.05 * np.abs(mine[role]).max() + 1e-4


def test_a_mixture_of_one_is_the_subnet_at_its_bits(supernet, batch, subnet):
    x, y = batch
    bits = (3, 4, 6, 8)
    one = [
        {r: (bits, np.array([float(getattr(b, r) == w) for w in bits])) for r in ROLES}
        for b in subnet.blocks
    ]
    wanted = F.cross_entropy(forward(supernet.slice(subnet), x, quantised=True), y)
    found, _ = mixture_gradients(supernet, x, y, subnet, one)
    assert found == pytest.approx(float(wanted), rel=1e-5)


def test_roles_are_those_of_the_layers_bits(digits, subnet):
    for layer in digits.layers(subnet):
        if layer.block is not None:
            places = sorted(
                {each.block for each in digits.layers(subnet) if each.block is not None}
            )
            own = subnet.blocks[places.index(layer.block)]
            assert tuple(getattr(own, role) for role in roles(layer)) == (
                layer.w_bits,
                layer.a_bits,
            )
