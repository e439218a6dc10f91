"""The fashion assets that ship with the package."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from apq_moo.data import load_images
from apq_moo.data.assets import SAMPLES, SUPERNET, find_assets
from apq_moo.data.samples import FOUND, SETS, load_samples
from apq_moo.errors import UserError
from apq_moo.files import sha256
from apq_moo.pipeline.stages import complete
from apq_moo.predictors import find_predictor
from apq_moo.predictors.metrics import pairwise_accuracy
from apq_moo.problems import APQProblem
from apq_moo.space import load_space
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.scoring import Scorer

SPACE = load_space("fashion")


def table():
    return load_samples(find_assets(SPACE).path(SAMPLES), SPACE)


def test_all_assets_are_whole_and_small():
    assert complete(SPACE, find_assets(SPACE).folder)
    folder = Path(str(files("apq_moo") / "assets"))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 18e6
    assert find_assets(SPACE).path(SAMPLES).stat().st_size < 10e6


def test_samples_are_distinct_and_of_this_supernet():
    found = table()
    assert found.provenance["supernet_sha256"] == sha256(find_assets(SPACE).path(SUPERNET))
    counts = found.counts()
    assert counts["mp"] >= 5000
    assert counts["fp_held_out"] >= 2000
    assert counts["mp_held_out"] >= 1000
    assert len(np.unique(found.X, axis=0)) == len(found.X)


def test_samples_of_fronts_reach_beyond_the_random_ones():
    found = table()
    problem = APQProblem(SPACE, ("latency",))
    (X, acc), (random, best) = found.rows(FOUND), found.rows("mp")
    assert len(X) >= 3000
    assert len(found.provenance["found"]) == 12
    latency, least = (problem.costs(SPACE.block_index(of))["latency"] for of in (X, random))
    assert (latency < least.min()).sum() > 300
    assert (acc > best.max()).sum() > 1000


def test_the_supernet_has_ranges_and_integers_between_blocks():
    supernet, header = load_supernet(find_assets(SPACE).path(SUPERNET), SPACE)
    assert supernet.ranges.known
    assert SPACE.spec.between_bits == 8
    assert header["train"]["steps"] == header["steps"] == 16000
    assert header["train"]["bit_sandwich"]


@pytest.mark.parametrize("name", ["ensemble", "mlp", "xgboost-stacked"])
def test_shipped_predictors_rank_held_out_networks(name):
    X, y = table().rows("mp_held_out")
    assert pairwise_accuracy(y, find_predictor(SPACE, name).predict(X)) > 0.9


@pytest.mark.slow
def test_samples_are_measured_again():
    """On a machine that has the images."""
    try:
        images = load_images("fashion-mnist")
    except UserError as error:
        pytest.skip(str(error))
    found = table()
    scorer = Scorer(load_supernet(find_assets(SPACE).path(SUPERNET), SPACE)[0], images)
    largest = SPACE.decode(SPACE.largest())
    assert scorer.accuracies(largest, ["test"], quantised=False)[0, 0] >= 94.0
    for name in ("fp_held_out", "mp_held_out"):
        rows = np.flatnonzero(found.group == SETS.index(name))[:2]
        subnets = SPACE.decode(found.X[rows])
        again = scorer.accuracies(subnets, ["validation"], quantised=name == "mp_held_out")
        assert again[:, 0] == pytest.approx(found.acc[rows], abs=0.1)
