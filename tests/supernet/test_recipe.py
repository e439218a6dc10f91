"""Learning rates by hand, and the precision of gradients."""

import math
from dataclasses import replace

import pytest
import torch

from apq_moo.errors import UserError
from apq_moo.supernet import training
from apq_moo.supernet.gradients import Student, TorchGradients
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.range_fitting import fit_ranges
from apq_moo.supernet.training import TrainConfig, Trainer


@pytest.mark.parametrize(("how", "peak"), [("none", 0.1), ("linear", 0.8), ("sqrt", 0.1 * 8**0.5)])
def test_the_rate_grows_with_the_batch(how, peak):
    """A batch of 2,048 beside one of 256: ramped over four steps, then along half a cosine."""
    config = TrainConfig(
        steps=100, batch_size=2048, learning_rate=0.1, scale_rate=how, ramp_steps=4
    )
    for step, share in ((0, 0.25), (1, 0.5), (3, 1.0), (50, 1.0), (99, 1.0)):
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / 100)
        assert config.rate(step) == pytest.approx(peak * share * cosine)
    same = TrainConfig(batch_size=64, learning_rate=0.1, scale_rate=how, reference_batch=64)
    assert same.peak == pytest.approx(0.1)


def test_a_batch_of_all_images_has_the_rate_of_as_many(digits, image_set, monkeypatch):
    """64 images are half of the default batch, for which the rate is meant here."""
    monkeypatch.setattr(training, "fit_ranges", lambda *_, **__: None)
    few = replace(image_set, train=image_set.train[:64])
    config = TrainConfig(
        steps=2, warmup_steps=0, ramp_steps=0, scale_rate="linear", reference_batch=128,
        learning_rate=0.01, random_subnets=0,
    )  # fmt: skip
    trainer, rates = Trainer(digits, few, config), []
    trainer.run(callback=lambda _: rates.append(trainer.optimisers["opt"].param_groups[0]["lr"]))
    assert rates == pytest.approx([0.005, 0.0025])


def test_unknown_ways_are_refused():
    with pytest.raises(UserError, match="scale_rate must be one of none, linear, sqrt; not 'up'"):
        TrainConfig(scale_rate="up")
    with pytest.raises(UserError, match="precision must be one of float32, bf16; not 'fp8'"):
        TrainConfig(precision="fp8")
    with pytest.raises(UserError, match="reference_batch must be at least 1, not 0"):
        TrainConfig(reference_batch=0)


def grads_of(net, precision, students):
    x = torch.rand(64, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    net.zero_grad()
    way = TorchGradients(net, precision=precision)
    way.step(x, torch.arange(64) % 7, students)
    assert all(logits.dtype == torch.float32 for logits in way.logits)
    grads = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
    assert all(grad.dtype == torch.float32 for grad in grads)
    return torch.cat(grads)


def test_gradients_in_bfloat16_are_near(full):
    """Within 0.3 of their norm, of a network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Supernet(full)
    named = full.decode(full.largest()), full.decode(full.smallest())
    students = [Student(subnet) for (subnet,) in named]
    exact, near = (grads_of(net, precision, students) for precision in ("float32", "bf16"))
    assert 1e-3 < float((near - exact).norm() / exact.norm()) < 0.3
    assert float(torch.cosine_similarity(near, exact, dim=0)) > 0.95


def test_students_at_their_bits_keep_single_precision(full):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Supernet(full)
    (smallest,) = full.decode(full.smallest())
    fit_ranges(net, torch.rand(8, 3, 12, 12), only=smallest)
    student = [Student(smallest, quantised=True)]
    assert torch.equal(grads_of(net, "float32", student), grads_of(net, "bf16", student))


def test_a_training_in_bfloat16_has_weights_in_single_precision(digits, image_set):
    class OneStepError(Exception):
        pass

    def stop(progress):
        raise OneStepError

    found = []
    for name in ("float32", "bf16"):
        config = TrainConfig(steps=2, warmup_steps=1, batch_size=8, precision=name)
        trainer = Trainer(digits, image_set, config)
        with pytest.raises(OneStepError):
            trainer.run(callback=stop)
        found.append(list(trainer.supernet.parameters()))
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in found[1])
    assert not torch.equal(found[0][0], found[1][0])
