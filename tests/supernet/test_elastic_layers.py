"""Elastic kernels, channels and their order, against hand-made computations."""

import copy

import numpy as np
import torch

from apq_moo.supernet.layers import ElasticBlock, ElasticConv, ElasticDepthwise


def test_a_smaller_kernel_is_the_transformed_centre():
    layer = ElasticDepthwise(4, [3, 5, 7])
    for name in ("7to5", "5to3"):
        layer.transforms[name].data += 0.1 * torch.randn_like(layer.transforms[name])
    seven = layer.weight[:2]
    five = torch.empty(2, 1, 5, 5)
    three = torch.empty(2, 1, 3, 3)
    for c in range(2):
        five[c, 0] = (seven[c, 0, 1:6, 1:6].flatten() @ layer.transforms["7to5"]).view(5, 5)
        three[c, 0] = (five[c, 0, 1:4, 1:4].flatten() @ layer.transforms["5to3"]).view(3, 3)
    assert torch.equal(layer.slice_weight(2, 7), seven)
    torch.testing.assert_close(layer.slice_weight(2, 5), five)
    torch.testing.assert_close(layer.slice_weight(2, 3), three)


def test_transforms_begin_as_the_centre():
    layer = ElasticDepthwise(4, [3, 7])
    torch.testing.assert_close(layer.slice_weight(4, 3), layer.weight[:, :, 2:5, 2:5])


def test_transforms_learn():
    layer = ElasticDepthwise(4, [3, 5, 7])
    layer.slice_weight(4, 3).square().sum().backward()
    assert layer.transforms["7to5"].grad.abs().sum() > 0
    assert layer.transforms["5to3"].grad.abs().sum() > 0


def test_slicing_takes_the_leading_channels():
    layer = ElasticConv(6, 8)
    assert torch.equal(layer.slice_weight(3, 5), layer.weight[:5, :3])


def test_ordering_sorts_by_importance():
    block = ElasticBlock(8, 32, 8, [3, 5])
    block.depthwise.norm.weight.data.uniform_(0.1, 2)
    before = block.importance().sort(descending=True).values
    block.order_channels()
    torch.testing.assert_close(block.importance(), before)


def test_ordering_keeps_the_function_of_the_largest(nets, pictures):
    for name, net in nets.items():
        largest = net.space.decode(net.space.largest())[0]
        ordered = copy.deepcopy(net)
        ordered.order_channels()
        with torch.no_grad():
            before, after = net(pictures[name], largest), ordered(pictures[name], largest)
        assert not torch.equal(net.blocks[0].expand.weight, ordered.blocks[0].expand.weight)
        # Half-precision floats between blocks fall on other sides of their roundings.
        exact = 1e-5 if net.space.spec.between_bits == 32 else 1e-2
        torch.testing.assert_close(before, after, atol=exact, rtol=1e-5)


def test_pruning_keeps_what_matters():
    """With most of the function in a few channels, the ordered block loses less by pruning."""
    torch.manual_seed(0)
    block = ElasticBlock(8, 32, 8, [3])
    strong = torch.randperm(32)[:8]
    block.project.weight.data *= 0.01
    block.project.weight.data[:, strong] *= 100
    block.order_channels()
    norms = block.project.weight.abs().sum(dim=(0, 2, 3))
    assert norms[:8].min() > 10 * norms[8:].max()


def test_a_derived_kernel_is_its_exact_value_rounded():
    torch.manual_seed(3)
    layer = ElasticDepthwise(33, [3, 5, 7])
    for transform in layer.transforms.values():
        torch.nn.init.normal_(transform)
    whole = layer.slice_weight(33, 5).detach()
    centre = layer.weight.detach()[:, 0, 1:6, 1:6].reshape(33, 25).double().numpy()
    exact = centre @ layer.transforms["7to5"].detach().double().numpy()
    assert np.array_equal(whole.reshape(33, 25).numpy(), exact.astype(np.float32))
    for channels in (1, 2, 7, 32):
        assert torch.equal(layer.slice_weight(channels, 3), layer.slice_weight(33, 3)[:channels])
