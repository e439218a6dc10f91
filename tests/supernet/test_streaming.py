"""Training and scoring on images in files: the same whoever reads them and wherever it stops."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from apq_moo.data import folders, streamed
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.data.augmentation import AUGMENTATIONS
from apq_moo.data.folders import load_image_folder
from apq_moo.data.images import ImageSet
from apq_moo.errors import UserError
from apq_moo.pipeline import stages
from apq_moo.supernet import scoring
from apq_moo.supernet.batches import Batches
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.distributed import ALONE, Group
from apq_moo.supernet.finetuning import FineTunedScorer, FineTuning
from apq_moo.supernet.scoring import Scorer
from apq_moo.supernet.sources import batches_of
from apq_moo.supernet.streaming import StreamedBatches
from apq_moo.supernet.training import TrainConfig, Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """300 digits, grey, of 12 by 16 pixels."""
    top = tmp_path_factory.mktemp("digits")
    data = load_digits()
    for i, (image, label) in enumerate(zip(data.images[:300], data.target, strict=False)):
        folder = top / ("test" if i % 5 == 0 else "train") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((image * 255 / 16).astype(np.uint8))
        picture.resize((12, 16)).save(folder / f"{i}.png")
    return top


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setenv("APQ_MOO_WORKERS", "0")


@pytest.fixture(scope="module")
def images(place):
    return load_image_folder(place, size=8, channels=1, stream=True)


def test_where_batches_come_from(images, image_set):
    assert isinstance(batches_of(image_set, 8, 0, CPU), Batches)
    x, y = next(batches_of(images, 8, 0, CPU).from_step(0))
    assert x.shape == (8, 1, 8, 8)
    assert x.dtype == torch.float32
    assert 0 <= x.min() < x.max() <= 1
    assert y.dtype == torch.int64


def test_an_epoch_has_each_image_once(images):
    batches = batches_of(images, 10, 0, CPU)
    assert batches.per_epoch == 21  # 216 images
    shares = list(islice(batches._shares(0), 42))
    first, second = (
        np.concatenate([share.rows for share in shares[part]])
        for part in (slice(21), slice(21, 42))
    )
    assert len(set(first)) == len(set(second)) == 210
    assert first.tolist() != second.tolist()
    for share, (_, y) in zip(shares, islice(batches.from_step(0), 3), strict=False):
        assert y.tolist() == images.train.labels[share.rows].tolist()


@pytest.mark.parametrize("step", [1, 20, 21, 50])
def test_any_step_is_where_the_undisturbed_run_has_it(images, step):
    """Across the ends of epochs."""
    batches = batches_of(images, 10, 3, CPU, AUGMENTATIONS["erasing"])
    wanted = list(islice(batches.from_step(0), step, step + 2))
    found = list(islice(batches.from_step(step), 2))
    for (x, y), (u, v) in zip(wanted, found, strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)


def test_what_is_random_is_the_seed_s(images):
    runs = [next(batches_of(images, 10, seed, CPU).from_step(0))[0] for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    state = torch.random.get_rng_state()
    next(batches_of(images, 10, 0, CPU).from_step(0))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_share_what_one_would_see(images, size):
    erasing = AUGMENTATIONS["erasing"]
    whole, labels = next(batches_of(images, 11, 0, CPU, erasing).from_step(4))
    for rank in range(size):
        group = Group(rank, size)
        batches = batches_of(images, 11, 0, CPU, erasing, group)
        x, y = next(batches.from_step(4))
        assert torch.equal(x, group.share(whole))
        assert torch.equal(y, group.share(labels))
        (_, pixels) = next(batches.read(4))
        assert len(pixels) == 11 // size  # it reads no more than that


def test_batches_in_memory_are_shared_alike(image_set):
    whole, labels = next(batches_of(image_set, 11, 0, CPU).from_step(4))
    for rank in range(2):
        group = Group(rank, 2)
        x, y = next(batches_of(image_set, 11, 0, CPU, group=group).from_step(4))
        assert torch.equal(x, group.share(whole))
        assert torch.equal(y, group.share(labels))
    assert ALONE.share(whole) is not None


class StopError(Exception):
    pass


def test_a_resumed_training_is_the_undisturbed_one(digits, images, tmp_path, monkeypatch):
    images = images.calibrated_by(images.train[:16])
    config = TrainConfig(steps=6, warmup_steps=2, batch_size=54, random_subnets=1)
    wanted = Trainer(digits, images, config).run().state_dict()
    monkeypatch.setenv("APQ_MOO_WORKERS", "2")  # whoever reads the images
    trainer = Trainer(digits, images, config)

    def stop(progress):
        if progress.step == 5:  # in the second epoch
            raise StopError

    with pytest.raises(StopError):
        trainer.run(callback=stop)
    trainer.save(tmp_path / "a.training")
    resumed = Trainer(digits, images, config)
    resumed.load(tmp_path / "a.training")
    found = resumed.run().state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_a_training_on_a_set_that_has_changed_is_not_resumed(digits, place, images, tmp_path):
    config = TrainConfig(steps=2, warmup_steps=1, batch_size=16)
    Trainer(digits, images, config).save(tmp_path / "a.training")
    path = next((place / "train" / "3").iterdir())
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    try:
        changed = load_image_folder(place, size=8, channels=1, stream=True)
        with pytest.raises(UserError, match="was trained on other images"):
            Trainer(digits, changed, config).load(tmp_path / "a.training")
        with pytest.raises(UserError, match="has changed since the images were listed"):
            Trainer(digits, images, replace(config, steps=14, batch_size=216)).run()
    finally:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def held(images):
    """The same images as an evaluation sees them, in memory."""
    parts = {name: images.split(name)[:] for name in ("train", "validation", "test")}
    return ImageSet(
        "held", calibration=images.calibration, test_clean=parts["test"], augment=None, **parts
    )


@pytest.fixture(scope="module")
def supernet(digits):
    return load_supernet(find_assets(digits).path(SUPERNET), digits)[0]


SPLITS = ("validation", "test")


@pytest.mark.parametrize("block", [None, 30])
def test_scores_are_those_of_images_in_memory(digits, images, held, supernet, monkeypatch, block):
    if block is not None:
        monkeypatch.setattr(streamed, "WHOLE_BYTES", 64 * 25)
        monkeypatch.setattr(streamed, "BLOCK_BYTES", 64 * block)
    subnets = digits.decode(digits.sample(3, np.random.default_rng(0)))
    at = np.array([True, False, True])
    scorer = Scorer(supernet, images)
    wanted = Scorer(supernet, held).count(subnets, SPLITS, quantised=at)
    assert 0 < wanted[:, 1].max() <= 60
    for _ in range(2):  # anew, or from what was kept
        assert scorer.count(subnets, SPLITS, quantised=at).tolist() == wanted.tolist()
    hits = scorer.hits(subnets[:1], SPLITS, quantised=True)
    assert [part.sum() for part in hits[0]] == wanted[0].tolist()
    assert (SPLITS in scorer._together) == (block is None)
    assert scorer.estimate_s(subnets[0], SPLITS) > 0
    again = Scorer(supernet, images.calibrated_by(images.train[:40]))
    other = Scorer(supernet, held.calibrated_by(held.train[:40]))
    assert (
        again.count(subnets, SPLITS, quantised=at).tolist()
        == other.count(subnets, SPLITS, quantised=at).tolist()
    )


def test_an_evaluation_reads_each_image_once_for_both_ends(digits, place, images, monkeypatch):
    """The test images are as clean as they are, and in full precision and at its bits at once."""
    checkpoint = find_assets(digits).path(SUPERNET)
    asked, blocks = [], streamed.StreamedSet.blocks

    def noted(images, names):
        asked.append(tuple(names))
        return blocks(images, names)

    monkeypatch.setattr(streamed.StreamedSet, "blocks", noted)
    monkeypatch.setattr(stages, "_calibration_noise", lambda *_: {})
    monkeypatch.setattr(scoring, "_KEPT_BYTES", 0)  # else they are kept, as they are few
    name = f"folder:{place}@8-grey-stream"
    found = stages.evaluate(digits, checkpoint, name, n_random=2).named
    assert asked[0] == SPLITS
    assert "test_clean" not in {split for splits in asked for split in splits}
    scorer = Scorer(load_supernet(checkpoint, digits)[0], images)
    for end, row in (("largest", digits.largest()), ("smallest", digits.smallest())):
        for kind in ("fp", "mp"):
            wanted = scorer.accuracies(digits.decode(row[None]), SPLITS, quantised=kind == "mp")[0]
            values = found[end][kind]
            assert [values[split] for split in SPLITS] == wanted.tolist()
            assert values["test_clean"] == values["test"]


def test_fine_tuning_is_done_once_whatever_the_blocks(digits, images, supernet, monkeypatch):
    subnets = digits.decode(digits.sample(2, np.random.default_rng(0)))
    wanted = FineTunedScorer(supernet, images, FineTuning(2, batch_size=16)).count(
        subnets, SPLITS, quantised=True
    )
    monkeypatch.setattr(streamed, "WHOLE_BYTES", 64 * 25)
    monkeypatch.setattr(streamed, "BLOCK_BYTES", 64 * 30)
    scorer = FineTunedScorer(supernet, images, FineTuning(2, batch_size=16))
    tuned = []
    tune = scorer.tune
    monkeypatch.setattr(scorer, "tune", lambda subnet: tuned.append(subnet) or tune(subnet))
    assert scorer.count(subnets, SPLITS, quantised=True).tolist() == wanted.tolist()
    assert tuned == subnets
    plain = Scorer(supernet, images).count(subnets, SPLITS, quantised=True)
    assert plain.tolist() != wanted.tolist()


def test_a_large_folder_is_what_training_streams(digits, place, monkeypatch):
    monkeypatch.setattr(folders, "MAX_BYTES", 100)
    found = load_image_folder(place, size=8, channels=1)
    trainer = Trainer(digits, found, TrainConfig(steps=1, warmup_steps=0, batch_size=8))
    assert isinstance(trainer._batches, StreamedBatches)
