"""Steps in parts: the gradients of one piece where statistics do not differ, else their mean."""

from dataclasses import replace

import pytest
import torch

from apq_moo.errors import UserError
from apq_moo.space import Space
from apq_moo.supernet.accumulation import Accumulated
from apq_moo.supernet.distributed import Group
from apq_moo.supernet.gradients import Student, TorchGradients
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.training import TrainConfig, Trainer


def students(space):
    named = space.decode(space.largest()), space.decode(space.smallest())
    (largest,), (smallest,) = named
    return [Student(largest), Student(smallest), Student(smallest, quantised=True)]


def gradients(net):
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()]


def distance(found, wanted):
    """Of gradients, relative to their norm."""
    a, b = (torch.cat([part.flatten() for part in each]) for each in (found, wanted))
    return float((a - b).norm() / b.norm())


@pytest.fixture(scope="module")
def net(full):
    """In double precision; smaller kernels, which are derived in single, are left out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Supernet(Space(replace(full.spec, between_bits=32))).double()


@pytest.mark.parametrize("distillation", ["kl", "alpha"])
def test_parts_of_equal_statistics_are_one_step(net, distillation):
    """Each part has the same images, in another order and with other labels."""
    rng = torch.Generator().manual_seed(3)
    images = torch.rand(16, 3, 12, 12, generator=rng, dtype=torch.float64)
    x = torch.cat([images[torch.randperm(16, generator=rng)] for _ in range(3)])
    y = torch.randint(7, (48,), generator=rng)
    first, second, _ = students(net.space)
    blocks = tuple(replace(block, kernel=7) for block in second.subnet.blocks)
    floats = [first, Student(replace(second.subnet, blocks=blocks))]
    whole = TorchGradients(net, 0.1, distillation)
    loss = whole.step(x, y, floats)
    wanted = gradients(net)
    parts = Accumulated(TorchGradients(net, 0.1, distillation), net, 3)
    assert float(parts.step(x, y, floats)) == pytest.approx(float(loss))
    assert distance(gradients(net), wanted) < 1e-9
    for a, b in zip(parts.logits, whole.logits, strict=True):
        assert torch.allclose(a, b)
    assert torch.allclose(parts.predict(x, first), whole.predict(x, first))
    whole.step(x[:16], y[:16], floats)
    assert distance(gradients(net), wanted) > 0.1


@pytest.mark.parametrize("taught", [False, True])
def test_parts_count_as_their_images_do(full, nets, pictures, taught):
    """By hand: 20 images in parts of 7, 7 and 6, each with its own statistics."""
    net = nets["full"]
    x, y = pictures["full"][:20], torch.arange(20) % 7
    soft = torch.rand(20, 7).softmax(1) if taught else None
    wanted = [torch.zeros_like(p) for p in net.parameters()]
    loss = 0.0
    for part in (slice(0, 7), slice(7, 14), slice(14, 20)):
        n = len(x[part])
        share = None if soft is None else soft[part]
        loss += n / 20 * TorchGradients(net).step(x[part], y[part], students(full), share)
        wanted = [a + n / 20 * b for a, b in zip(wanted, gradients(net), strict=True)]
    net.zero_grad()
    found = Accumulated(TorchGradients(net), net, 3).step(x, y, students(full), soft)
    assert torch.allclose(found, loss)
    for a, b in zip(gradients(net), wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_training_in_parts(digits, image_set):
    """Its first step descends by the mean of what the parts give, whatever was averaged before."""
    config = TrainConfig(
        steps=3, warmup_steps=0, batch_size=64, accumulation=4, ramp_steps=1, clip_norm=1e9,
        average_decay=0.5,
    )  # fmt: skip
    trainer = Trainer(digits, image_set, config)
    x, y = next(trainer._batches.from_step(0))
    learners = [students(digits)[0], *trainer._drawing.students(0)]
    plain = Trainer(digits, image_set, replace(config, accumulation=1)).supernet
    sums = [torch.zeros_like(p) for p in plain.parameters()]
    for part in range(4):
        some = slice(16 * part, 16 * part + 16)
        TorchGradients(plain).step(x[some], y[some], learners)
        sums = [a + b / 4 for a, b in zip(sums, gradients(plain), strict=True)]

    class OneStepError(Exception):
        pass

    def look(progress):
        raise OneStepError

    with pytest.raises(OneStepError):
        trainer.run(callback=look)
    for weight, wanted in zip(trainer.supernet.parameters(), sums, strict=True):
        assert torch.allclose(weight.grad, wanted, atol=1e-5)


def test_more_parts_than_images_are_refused(digits, image_set):
    config = TrainConfig(batch_size=8, accumulation=5)
    with pytest.raises(UserError, match="accumulation=5 is more than the 4 images that a process"):
        Trainer(digits, image_set, config, "cpu", Group(0, 2))
    with pytest.raises(UserError, match="accumulation must be at least 1, not 0"):
        TrainConfig(accumulation=0)
