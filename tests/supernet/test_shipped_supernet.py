"""The supernet that ships with the package, after its training."""

import copy

import numpy as np
import torch
from scipy.stats import kendalltau

from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.scoring import Scorer


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
        Scorer(each, image_set).accuracies([subnet], ["test"], quantised=False)[0, 0]
        for each in (net, turned)
    )
    assert leading > trailing + 10


def test_the_largest_and_the_smallest(digits, image_set):
    scorer = Scorer(shipped(digits), image_set)
    subnets = digits.decode(np.array([digits.largest(), digits.smallest()]))
    splits = ("test", "test_clean")
    (hard, clean), (smallest, _) = scorer.accuracies(subnets, splits, quantised=False)
    assert clean >= 98
    assert hard - scorer.accuracies(subnets[:1], splits, quantised=True)[0, 0] <= 0.5
    assert hard - smallest >= 5
