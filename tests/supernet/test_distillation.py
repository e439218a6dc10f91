"""Gradients of what students learn: against autograd, and worked by hand."""

import math

import pytest
import torch

from apq_moo.errors import UserError
from apq_moo.supernet.distillation import BETA, DISTILLATIONS, alpha_gradient
from apq_moo.supernet.gradients import Student, TorchGradients
from apq_moo.supernet.training import TrainConfig


def divergences(soft, logits):
    """The formulas, image by image, for alpha = -1 (not clipped) and alpha = 1."""
    q = logits.softmax(1)
    return (q * (q / soft - 1)).sum(1) / 2, (soft * (soft / q).log()).sum(1)


def test_gradients_are_autograd_s_of_the_formulas():
    generator = torch.Generator().manual_seed(0)
    soft = torch.randn(64, 5, generator=generator, dtype=torch.float64).softmax(1)
    logits = torch.randn(64, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    low, high = divergences(soft, logits)
    clipped = (logits.softmax(1) / soft > BETA).any(1)
    assert (low > high)[~clipped].any()
    assert (low < high)[~clipped].any()
    (wanted,) = torch.autograd.grad(
        torch.maximum(low, high)[~clipped].sum(), logits, retain_graph=True
    )
    found = alpha_gradient(soft, logits.detach())
    assert torch.allclose(64 * found[~clipped], wanted[~clipped])
    (wanted,) = torch.autograd.grad(high.mean(), logits)
    assert torch.allclose(DISTILLATIONS["kl"](soft, logits.detach()), wanted)


@pytest.mark.parametrize(
    ("p", "q", "wanted"),
    [
        # KL is 0.9 ln 1.8 + 0.1 ln 0.2 = 0.368 and the other (0.5 (5/9) + 0.5 x 5 - 1) / 2 = 0.889:
        # -q r = (-5/18, -5/2), and q_1 times its sum less its first is -25/18 + 5/18.
        (0.9, 0.5, -10 / 9),
        # KL is 0.5 ln (0.5/0.9) + 0.5 ln 5 = 0.511, the other (0.9 x 1.8 + 0.1 x 0.2 - 1) / 2 =
        # 0.32: q_1 - p_1.
        (0.5, 0.9, 0.4),
        # A ratio of 0.6 / 0.05 = 12, clipped at 5: (0.6 x 5 + 0.4 (8/19) - 1) / 2 = 1.084 is more
        # than KL, 0.05 ln (1/12) + 0.95 ln (19/8) = 0.698.
        (0.05, 0.6, 0.6 * -(3 + 0.4 * 8 / 19) + 3),
    ],
)
def test_two_classes_worked_by_hand(p, q, wanted):
    soft = torch.tensor([[p, 1 - p]], dtype=torch.float64)
    logits = torch.tensor([[math.log(q / (1 - q)), 0.0]], dtype=torch.float64)
    found = alpha_gradient(soft, logits)
    assert found[0].tolist() == pytest.approx([wanted, -wanted])


def test_probabilities_of_zero_leave_the_gradient_finite():
    soft = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
    logits = torch.tensor([[0.0, 0.0], [-200.0, 0.0], [-200.0, 0.0]])
    found = alpha_gradient(soft, logits)
    # -q r is (-5/2, -1/4) in the first; the student of the second is right, that of the third not.
    expected = [[1.125, -1.125], [0.0, 0.0], [-0.5, 0.5]]
    assert (3 * found).tolist() == [pytest.approx(row) for row in expected]


def test_only_the_others_learn_by_it(full, nets, pictures):
    net, x = nets["full"], pictures["full"][:8]
    y = torch.arange(8) % 7
    largest, smallest = (Student(s) for s in full.decode([full.largest(), full.smallest()]))

    def gradient(distillation, students):
        TorchGradients(net, 0.1, distillation).step(x, y, students)
        return net.classifier.weight.grad.clone()

    alone, other = (gradient(way, [largest]) for way in DISTILLATIONS)
    assert torch.equal(alone, other)
    kl, alpha = (gradient(way, [largest, smallest]) for way in DISTILLATIONS)
    assert not torch.allclose(kl, alpha, rtol=0.05)


def test_an_unknown_divergence_is_refused():
    with pytest.raises(UserError, match="distillation must be one of kl, alpha; not 'js'"):
        TrainConfig(distillation="js")
