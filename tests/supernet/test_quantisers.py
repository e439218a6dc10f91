"""Fake quantisation against loops and torch's own operator."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apq_moo.supernet.quantisers import quantise_activation, quantise_weight


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_weights_are_symmetric_integers_per_output_channel(bits):
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(bits))
    top = 2 ** (bits - 1) - 1
    expected = np.empty(weight.shape, dtype=np.float32)
    for c, channel in enumerate(weight.numpy()):
        scale = np.float32(np.abs(channel).max()) / np.float32(top)
        expected[c] = np.clip(np.rint(channel / scale), -top, top) * scale
    found = quantise_weight(weight, bits)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7)
    assert all(len(channel.unique()) <= 2 * top + 1 for channel in found)


def test_gradients_of_weights_pass_straight_through():
    weight = torch.randn(4, 2, 1, 1, requires_grad=True)
    quantise_weight(weight, 3).sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(-5, 0), high=st.floats(0.01, 8), bits=st.integers(2, 8), seed=st.integers(0, 99)
)
def test_the_fast_path_is_torchs_operator_bit_for_bit(low, high, bits, seed):
    x = 4 * torch.randn(400, generator=torch.Generator().manual_seed(seed))
    scale = max(high - low, 1e-8) / (2**bits - 1)
    expected = torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale), 0, 2**bits - 1)
    assert torch.equal(quantise_activation(x, low, high, bits), expected)


def test_activations_hand_worked():
    x = torch.tensor([-1.0, 0.0, 0.4, 0.6, 1.6, 3.0, 9.0])
    expected = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 3.0])
    assert torch.equal(quantise_activation(x, 0.0, 3.0, 2), expected)


def test_gradients_of_activations_stop_outside_the_range():
    x = torch.tensor([-1.0, 0.5, 2.9, 9.0], requires_grad=True)
    quantise_activation(x, 0.0, 3.0, 2).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
