"""Training goes down, and continues exactly where it was interrupted."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from apq_moo.errors import UserError
from apq_moo.supernet.checkpoint import (
    load_supernet,
    load_tensors,
    save_supernet,
    save_tensors,
)
from apq_moo.supernet.gradients import Student, TorchGradients
from apq_moo.supernet.training import FORMAT, TrainConfig, Trainer

SHORT = TrainConfig(steps=14, warmup_steps=5, ramp_steps=3)
LEVERS = replace(
    SHORT,
    distillation="alpha",
    sampling="best-up",
    quantised_steps=6,
    bit_phases=True,
    momentum_groups=True,
    augmentation="erasing",
    average_decay=0.8,
    accumulation=3,
)


class InterruptedRunError(Exception):
    pass


def run_until(trainer, stop):
    def interrupt(progress):
        if progress.step == stop:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        trainer.run(callback=interrupt)


def test_loss_goes_down(digits, image_set):
    losses = []
    config = TrainConfig(steps=40, warmup_steps=30, ramp_steps=5)
    Trainer(digits, image_set, config).run(callback=lambda p: losses.append(p.loss))
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])


@pytest.fixture(scope="module")
def undisturbed(digits, image_set):
    """What trainings that nothing interrupts end with, by their settings."""

    @cache
    def trained(config):
        return Trainer(digits, image_set, config).run().state_dict()

    return trained


@pytest.mark.parametrize(
    ("config", "stop"), [(SHORT, 3), (SHORT, 5), (SHORT, 7), (SHORT, 11), (LEVERS, 3), (LEVERS, 10)]
)
def test_resuming_is_exact(digits, image_set, undisturbed, tmp_path, config, stop):
    """Across the ordering of channels (step 5) and the end of an epoch (step 7)."""
    trainer = Trainer(digits, image_set, config)
    run_until(trainer, stop)
    trainer.save(tmp_path / "a.training")
    resumed = Trainer(digits, image_set, config)
    resumed.load(tmp_path / "a.training")
    assert resumed.step == stop
    found = resumed.run().state_dict()
    assert all(torch.equal(found[name], value) for name, value in undisturbed(config).items())


def test_the_moving_average_is_what_training_ends_with(digits, image_set):
    """Begun where the warm-up ends, with a share of t / (t + 9) after t steps, at most 0.4."""
    config = replace(SHORT, steps=13, average_decay=0.4)
    trainer = Trainer(digits, image_set, config)
    weights = []
    found = trainer.run(
        callback=lambda _: weights.append(
            [p.detach().clone() for p in trainer.supernet.parameters()]
        )
    )
    average = weights[4]
    for t, new in enumerate(weights[5:], start=1):
        kept = min(0.4, t / (t + 9))
        average = [kept * a + (1 - kept) * p for a, p in zip(average, new, strict=True)]
    for a, p in zip(average, found.parameters(), strict=True):
        assert torch.allclose(a, p, atol=1e-6)
    assert not torch.equal(found.classifier.weight, weights[-1][-2])


def test_halves_by_size_have_moments_of_their_own(digits, image_set):
    """The mean of two AdamWs, each on the gradients of its half at the same weights."""
    config = replace(
        SHORT, warmup_steps=0, random_subnets=3, momentum_groups=True, weight_decay=0.1
    )
    trainer = Trainer(digits, image_set, config)
    twins = [copy.deepcopy(trainer.supernet) for _ in range(2)]
    ways = [TorchGradients(twin) for twin in twins]
    optimisers = [torch.optim.AdamW(twin.parameters(), weight_decay=0.1) for twin in twins]
    first = Student(digits.decode(digits.largest())[0])
    for step, (x, y) in zip(range(3), trainer._batches.from_step(0), strict=False):
        others = trainer._drawing.students(step)
        sizes = [sum(layer.macs for layer in digits.layers(s.subnet)) for s in others]
        assert sizes == sorted(sizes, reverse=True)
        ways[0].step(x, y, [first, *others[:2]])
        soft = ways[0].logits[0].softmax(1)
        ways[1].step(x, y, others[2:], soft)
        for twin, optimiser in zip(twins, optimisers, strict=True):
            torch.nn.utils.clip_grad_norm_(twin.parameters(), config.clip_norm)
            optimiser.param_groups[0]["lr"] = config.rate(step)
            optimiser.step()
        with torch.no_grad():
            for a, b in zip(*(twin.parameters() for twin in twins), strict=True):
                a.copy_(b.lerp_(a, 0.5))
    run_until(trainer, 3)
    for a, b in zip(twins[0].parameters(), trainer.supernet.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_global_generator_is_left_alone(digits, image_set):
    before = torch.random.get_rng_state()
    Trainer(digits, image_set, replace(SHORT, steps=1, warmup_steps=0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_does_not_fit_is_refused(digits, full, image_set, tmp_path):
    path = tmp_path / "a.training"
    Trainer(digits, image_set, SHORT).save(path)
    with pytest.raises(UserError, match="other settings"):
        Trainer(digits, image_set, replace(SHORT, seed=1)).load(path)
    other = replace(image_set, train=image_set.test_clean)
    with pytest.raises(UserError, match="other images"):
        Trainer(digits, other, SHORT).load(path)
    with pytest.raises(UserError, match="images of shape"):
        Trainer(full, image_set, SHORT)
    with pytest.raises(UserError, match="batch_size=1000 is more than the 897"):
        Trainer(digits, image_set, replace(SHORT, batch_size=1000))
    tensors, header = load_tensors(path, FORMAT)
    del header["config"]["draw"]  # as before there were several ways
    save_tensors(path, tensors, header)
    Trainer(digits, image_set, SHORT).load(path)
    with pytest.raises(UserError, match="other settings"):
        Trainer(digits, image_set, replace(SHORT, draw="sizes")).load(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot read"):
        Trainer(digits, image_set, SHORT).load(path)


def test_supernets_round_trip(digits, full, nets, tmp_path):
    path = tmp_path / "net.safetensors"
    save_supernet(path, nets["digits"], note="hello")
    again, header = load_supernet(path, digits)
    assert header["note"] == "hello"
    for name, value in nets["digits"].state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    with pytest.raises(UserError, match="another space"):
        load_supernet(path, full)
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    for bad in ("junk.safetensors", "missing.safetensors"):
        with pytest.raises(UserError, match=bad) as error:
            load_supernet(tmp_path / bad, digits)
        assert "\n" not in str(error.value)
