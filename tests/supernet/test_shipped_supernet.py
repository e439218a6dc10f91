"""The supernet that ships with the package, after its training."""

import copy

import numpy as np
import torch
from scipy.stats import kendalltau

from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.sampling import Measurer


def shipped(digits):
    return load_supernet(find_assets(digits).path(SUPERNET), digits)[0]


def test_channels_are_ordered_by_importance(digits):
    for block in shipped(digits).blocks:
        groups = block.importance().view(-1, 8).mean(dim=1).numpy()
        assert kendalltau(np.arange(len(groups)), groups)[0] < -0.8


def test_pruning_keeps_the_important_channels(digits, image_set):
    """The narrowest network of the leading channels beats that of the trailing ones by far."""
    net = shipped(digits)
    turned = copy.deepcopy(net)
    with torch.no_grad():
        for block in turned.blocks:
            for layer in (block.expand, block.depthwise):
                for value in (layer.weight, layer.norm.weight, layer.norm.bias):
                    value.copy_(value.flip(0))
            block.project.weight.copy_(block.project.weight.flip(1))
    row = digits.largest()
    row[digits.block_columns[:, 1]] = 0
    subnet = digits.decode(row)[0]
    leading, trailing = (
        Measurer(each, image_set).accuracy(subnet, "test", quantised=False)
        for each in (net, turned)
    )
    assert leading > trailing + 10


def test_the_largest_and_the_smallest(digits, image_set):
    measurer = Measurer(shipped(digits), image_set)
    largest, smallest = digits.decode(np.array([digits.largest(), digits.smallest()]))
    assert measurer.accuracy(largest, "test_clean", quantised=False) >= 98
    hard = measurer.accuracy(largest, "test", quantised=False)
    assert hard - measurer.accuracy(largest, "test", quantised=True) <= 0.5
    assert hard - measurer.accuracy(smallest, "test", quantised=False) >= 5
