"""A fine-tuned subnet is better at its bits, and the supernet is as before."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.errors import UserError
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.evaluation import calibrate
from apq_moo.supernet.finetuning import FineTunedScorer, FineTuning
from apq_moo.supernet.network import forward
from apq_moo.supernet.sampling import SampleConfig, collect
from apq_moo.supernet.scoring import Scorer

SPLIT = ["validation"]


@pytest.fixture(scope="module")
def shipped(digits):
    return load_supernet(find_assets(digits).path(SUPERNET), digits)[0]


@pytest.fixture(scope="module")
def subnets(digits):
    """The largest and the smallest network at the fewest bits."""
    rows = np.array([digits.largest(), digits.smallest()])
    rows[:, digits.bit_columns] = 0
    return digits.decode(rows)


def test_it_helps_and_leaves_the_supernet_alone(shipped, subnets, image_set):
    before = {name: value.clone() for name, value in shipped.state_dict().items()}
    tuner = FineTunedScorer(shipped, image_set, FineTuning(50))
    x = torch.from_numpy(image_set.calibration.images)
    y = torch.from_numpy(image_set.calibration.labels)

    @torch.no_grad()
    def loss(net):
        layers = net.slice(subnets[0])
        recorded = calibrate(layers, x, quantised=True)
        return float(F.cross_entropy(forward(layers, x, recorded, quantised=True), y))

    assert loss(tuner.tune(subnets[0])) < 0.8 * loss(shipped)
    assert all(torch.equal(value, before[name]) for name, value in shipped.state_dict().items())


def test_no_steps_change_nothing(shipped, subnets, image_set):
    tuned = FineTunedScorer(shipped, image_set, FineTuning(0)).tune(subnets[0]).state_dict()
    assert all(torch.equal(tuned[name], value) for name, value in shipped.state_dict().items())


def test_networks_are_tuned_each_alone(shipped, subnets, image_set):
    """Whatever was scored before, and not those in full precision."""
    config = FineTuning(5, seed=3)
    scorer = FineTunedScorer(shipped, image_set, config)
    both = scorer.accuracies(subnets, SPLIT, quantised=True)
    plain = Scorer(shipped, image_set)
    assert (both > plain.accuracies(subnets, SPLIT, quantised=True)).all()
    again = FineTunedScorer(shipped, image_set, config).accuracies(
        subnets[::-1], SPLIT, quantised=np.array([True, False])
    )
    assert again[0] == both[1]
    assert again[1] == plain.accuracies(subnets[:1], SPLIT, quantised=False)
    other = FineTunedScorer(shipped, image_set, FineTuning(5, seed=4))
    assert other.accuracies(subnets, SPLIT, quantised=True).tolist() != both.tolist()


def test_samples_are_tuned_where_asked(digits, shipped, image_set, tmp_path):
    path = find_assets(digits).path(SUPERNET)
    config = SampleConfig(3, 3, 2, 2, finetune_steps=3, seed=1)
    table = collect(digits, path, "digits", config, tmp_path / "s.npz")
    scorer = FineTunedScorer(shipped, image_set, FineTuning(3, seed=1))
    subnets = digits.decode(table.X)
    wanted = scorer.accuracies(subnets, SPLIT, quantised=table.quantised)[:, 0]
    assert table.acc.tolist() == wanted.tolist()
    assert table.provenance["finetuning"] == asdict(FineTuning(3, seed=1))
    # A table that was fine-tuned in another way does not go on in this one.
    older = {k: v for k, v in table.provenance.items() if k != "finetuning"}
    replace(table, provenance=older).save(tmp_path / "older.npz")
    with pytest.raises(UserError, match="with other settings"):
        collect(digits, path, "digits", config, tmp_path / "older.npz")
    inherited = Scorer(shipped, image_set).accuracies(subnets, SPLIT, quantised=table.quantised)
    same = table.acc == inherited[:, 0]
    assert same[~table.quantised].all()
    assert not same[table.quantised].all()
