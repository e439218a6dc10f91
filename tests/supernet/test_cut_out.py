"""A network cut out of the supernet does what the supernet does with that subnet active."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from apq_moo.space import Space, load_space
from apq_moo.supernet.evaluation import Evaluator, calibrate
from apq_moo.supernet.network import Supernet, forward
from apq_moo.supernet.plain import cut_out
from apq_moo.supernet.range_fitting import fit_ranges


def agree(net, subnet, x):
    """Largest difference to the folded and the unfolded supernet, and at the subnet's bits."""
    found = []
    evaluator = Evaluator(net, x[:64])
    for quantised in (False, True):
        plain = cut_out(net, subnet, x[:64], quantised=quantised)
        layers = net.slice(subnet)
        recorded = calibrate(layers, x[:64], quantised=quantised)
        with torch.no_grad():
            logits = plain(x)
            found.append(logits - forward(layers, x, recorded, quantised=quantised))
            if not quantised:
                found.append(logits - evaluator.logits(subnet, x, quantised=False))
    assert logits.abs().max() > 0.1
    return max(float(difference.abs().max()) for difference in found)


@pytest.mark.parametrize("name", ["digits", "full"])
def test_whole_networks(nets, pictures, name):
    """With floats between blocks, as in training."""
    net = Supernet(Space(replace(nets[name].space.spec, between_bits=32)))
    net.load_state_dict(nets[name].state_dict())
    fit_ranges(net, pictures[name], subnets=4)
    rows = [net.space.smallest(), net.space.largest()]
    rows += list(net.space.sample(8, np.random.default_rng(1)))
    for subnet in net.space.decode(np.array(rows)):
        assert agree(net, subnet, pictures[name]) < 1e-5


@pytest.mark.parametrize("between", [8, 16])
def test_ranges_and_what_is_stored_between_blocks(pictures, between):
    """Level by level all but a few images agree; see the test of folding below."""
    space = Space(replace(load_space("digits").spec, between_bits=between))
    torch.manual_seed(1)
    net, x = Supernet(space), pictures["digits"]
    fit_ranges(net, x[:64], subnets=4)
    same = []
    for subnet in space.decode(space.sample(6, np.random.default_rng(2))):
        plain = cut_out(net, subnet, x[:64], quantised=True)
        wanted = Evaluator(net, x[:64]).logits(subnet, x, quantised=True)
        with torch.no_grad():
            difference = (plain(x) - wanted).abs()
        same.append(float((difference.amax(1) < 1e-4).double().mean()))
    assert np.mean(same) > 0.9


@pytest.mark.parametrize("field", ["kernel", "channels", "w_pw", "a_pw", "w_dw", "a_dw"])
def test_each_elastic_layer(nets, pictures, field):
    net = nets["full"]
    largest = net.space.decode(net.space.largest())[0]
    for b, block in enumerate(largest.blocks):
        options = net.space.plans[[0, 1, 2, 3, 4][b]].options[field]
        for value in options:
            blocks = list(largest.blocks)
            blocks[b] = replace(block, **{field: value})
            assert agree(net, replace(largest, blocks=tuple(blocks)), pictures["full"]) < 1e-5


def test_each_depth(nets, pictures):
    net = nets["full"]
    for first in range(2):
        for second in range(3):
            row = net.space.largest()
            row[[net.space.depth_columns[0], net.space.depth_columns[1]]] = first, second
            subnet = net.space.decode(row)[0]
            assert len(subnet.blocks) == first + second + 2
            assert agree(net, subnet, pictures["full"]) < 1e-5


def test_quantised_folding_agrees_but_for_rounding(nets, pictures):
    """Folding moves last digits, which can move an activation by a level now and then."""
    net, x = nets["digits"], pictures["digits"]
    evaluator = Evaluator(net, x[:64])
    same = []
    for subnet in net.space.decode(net.space.sample(20, np.random.default_rng(2))):
        plain = cut_out(net, subnet, x[:64], quantised=True)
        with torch.no_grad():
            difference = (plain(x) - evaluator.logits(subnet, x, quantised=True)).abs()
        same.append(float((difference.amax(1) < 1e-4).double().mean()))
    assert np.mean(same) > 0.9


def test_parameters_are_those_of_the_layers(nets, pictures):
    for name, net in nets.items():
        for subnet in net.space.decode(net.space.sample(5, np.random.default_rng(3))):
            plain = cut_out(net, subnet, pictures[name], quantised=True)
            layers = net.space.layers(subnet)
            expected = sum(
                layer.weights + layer.c_out * (1 if layer.bias else 2) for layer in layers
            )
            assert sum(p.numel() for p in plain.parameters()) == expected


def test_a_cut_out_network_shares_no_memory(nets, pictures):
    net = nets["full"]
    largest = net.space.decode(net.space.largest())[0]
    plain = cut_out(net, largest, pictures["full"], quantised=False)
    before = net.stem.weight.clone()
    for value in plain.parameters():
        value.data.zero_()
    assert torch.equal(net.stem.weight, before)


def test_statistics_are_those_of_the_convolutions(nets, pictures):
    net, x = nets["full"], pictures["full"]
    layers = net.slice(net.space.decode(net.space.largest())[0])
    recorded = calibrate(layers, x, quantised=False)
    stem = torch.nn.functional.conv2d(x, layers[0].weight, padding=1)
    torch.testing.assert_close(recorded[0].mean, stem.mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        recorded[0].var, stem.var(dim=(0, 2, 3), correction=0), atol=1e-5, rtol=1e-4
    )


def test_the_published_space_builds():
    space = load_space("imagenet")
    with torch.device("meta"):
        net = Supernet(space)
    subnet = space.decode(space.largest())[0]
    for item, layer in zip(net.slice(subnet), space.layers(subnet), strict=True):
        wanted = (layer.c_out, layer.c_in // layer.groups, layer.kernel, layer.kernel)
        assert tuple(item.weight.shape) == wanted
