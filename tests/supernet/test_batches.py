import functools
from dataclasses import asdict, replace
from itertools import islice

import numpy as np
import pytest
import torch

from apq_moo.data.augmentation import Augmentation
from apq_moo.data.images import Split
from apq_moo.errors import UserError
from apq_moo.space import sample_sizes
from apq_moo.supernet.batches import Batches
from apq_moo.supernet.training import TrainConfig, Trainer

CPU = torch.device("cpu")


@pytest.fixture
def numbered(image_set):
    """Images whose first pixel is their number."""
    images = np.zeros((50, 1, 8, 8), dtype=np.float32)
    images[:, 0, 0, 0] = np.arange(50)
    split = Split(images, np.arange(50) % 10)
    return replace(image_set, train=split, augment=Augmentation(mirror=False, max_shift=0))


def test_an_epoch_shows_every_image_once(numbered):
    batches = list(islice(Batches(numbered, 10, 0, CPU).from_step(0), 10))
    for epoch in (batches[:5], batches[5:]):
        seen = torch.cat([x[:, 0, 0, 0] for x, _ in epoch])
        assert sorted(seen.tolist()) == list(range(50))
    for x, y in batches:
        assert torch.equal(x[:, 0, 0, 0].long() % 10, y)
    assert not torch.equal(batches[0][0], batches[5][0])


@pytest.mark.parametrize("on_device", [True, False])
def test_batches_go_on_from_any_step(numbered, on_device):
    augment = Augmentation(mirror=True, max_shift=2, max_erase=3)
    if not on_device:  # an augmentation of whole epochs, as any callable may be
        augment = functools.partial(augment)
    images = replace(numbered, augment=augment)
    straight = list(islice(Batches(images, 12, 3, CPU).from_step(0), 9))
    for step in (0, 1, 3, 4, 6):
        again = islice(Batches(images, 12, 3, CPU).from_step(step), 9 - step)
        for (x, y), (u, v) in zip(straight[step:], again, strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)
    assert not torch.equal(straight[0][0], next(Batches(images, 12, 4, CPU).from_step(0))[0])


def trainer(space, image_set, **settings):
    return Trainer(space, image_set, TrainConfig(batch_size=20, ramp_steps=1, **settings))


def test_shrinking_frees_one_dimension_after_the_other(digits, image_set):
    training = trainer(digits, image_set, steps=39, warmup_steps=9, random_subnets=60, shrink=True)
    largest = digits.largest()
    kinds = np.array([gene.kind for gene in digits.genes])
    free = []
    for step in (8, 9, 18, 19, 28, 29, 38):
        training.step = step
        students = training._drawing.students(training.step)
        if not students:
            free.append(None)
            continue
        rows = digits.encode([student.subnet for student in students])
        varied = {str(kind) for kind in kinds[(rows != largest).any(axis=0)]}
        # A block that a smaller depth leaves out has its other genes at 0.
        free.append(varied & {"kernel", "depth", "channels"})
    first, third = {"kernel"}, {"kernel", "depth", "channels"}
    assert free[:3] == [None, first, first]
    assert all("depth" in each for each in free[3:5])
    assert free[5:] == [third, third]
    training.step = 19
    rows = digits.encode([student.subnet for student in training._drawing.students(training.step)])
    active = digits.active(rows)
    for gene, column in zip(digits.genes, rows.T, strict=True):
        if gene.kind == "channels":
            assert (column[active[:, gene.block]] == largest[digits.genes.index(gene)]).all()


def test_the_quantised_phase_adds_subnets_at_their_bits(digits, image_set):
    training = trainer(
        digits, image_set, steps=10, warmup_steps=2, random_subnets=3, quantised_steps=4
    )
    found = []
    for step in range(10):
        training.step = step
        students = training._drawing.students(training.step)
        found.append((sum(not p.quantised for p in students), sum(p.quantised for p in students)))
    assert found == [(0, 0)] * 2 + [(4, 0)] * 4 + [(4, 3)] * 4


def test_a_quantised_phase_trains(digits, image_set):
    losses = []
    training = trainer(
        digits, image_set, steps=4, warmup_steps=1, random_subnets=1, quantised_steps=2
    )
    training.run(callback=lambda progress: losses.append(progress.loss))
    assert len(losses) == 4
    assert np.isfinite(losses).all()


def test_random_subnets_are_drawn_as_asked(digits, image_set):
    training = trainer(
        digits,
        image_set,
        steps=4,
        warmup_steps=1,
        random_subnets=5,
        quantised_steps=4,
        draw="sizes",
    )
    training.step = 2
    rows = digits.encode([student.subnet for student in training._drawing.students(training.step)])
    rng = np.random.default_rng([0, 2, 2])  # the seed, this use of it, the step
    drawn = [sample_sizes(digits, 5, rng) for _ in range(2)]
    assert np.array_equal(rows, np.vstack([digits.smallest(), *drawn]))
    with pytest.raises(UserError, match="draw must be one of uniform, sizes; not 'all'"):
        TrainConfig(draw="all")


def test_more_quantised_steps_than_steps_are_refused():
    with pytest.raises(UserError, match="quantised_steps must be within 0 and steps, 5; not 6"):
        TrainConfig(steps=5, quantised_steps=6)


@pytest.mark.parametrize(
    ("steps", "warmup"), [(1, 0), (6, 1), (400, 66), (3000, 500), (3600, 500), (9600, 500)]
)
def test_the_warm_up_is_a_sixth_of_short_trainings(steps, warmup):
    """Three subnets and more learn in all other steps."""
    assert TrainConfig(steps=steps).warmup == warmup
    assert asdict(TrainConfig(steps=steps))["warmup_steps"] == warmup
    assert TrainConfig(steps=steps, warmup_steps=0).warmup == 0


def test_a_short_training_trains_small_subnets_too(digits, image_set):
    training = trainer(digits, image_set, steps=400)
    found = []
    for step in (65, 66, 399):
        training.step = step
        found.append(len(training._drawing.students(training.step)))
    assert found == [0, 3, 3]


@pytest.mark.parametrize("warmup", [401, -1])
def test_a_warm_up_that_does_not_fit_is_refused(warmup):
    with pytest.raises(UserError, match=rf"warmup_steps={warmup} must lie between 0 and steps=400"):
        TrainConfig(steps=400, warmup_steps=warmup)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "clip_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5])
def test_settings_that_are_no_numbers_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} must be a finite number, at least 0; not"):
        TrainConfig(**{name: value})


def test_a_diverged_training_stores_nothing(digits, image_set, tmp_path):
    training = trainer(digits, image_set, steps=3, warmup_steps=1, learning_rate=1e20)
    with pytest.raises(UserError, match=r"diverged before step 3: .*lower learning_rate"):
        training.run()
    with pytest.raises(UserError, match="diverged"):
        training.save(tmp_path / "file")
    assert not list(tmp_path.iterdir())
