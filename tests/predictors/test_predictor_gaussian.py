"""Gaussian processes: their features, mathematics and predictions against slow truths."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from apq_moo.data.assets import SAMPLES, find_assets
from apq_moo.data.samples import load_samples
from apq_moo.errors import UserError
from apq_moo.predictors import GPPredictor, ScratchGPPredictor, create_predictor, load_predictor
from apq_moo.predictors.features import PER_BLOCK, engineered
from apq_moo.predictors.gaussian import Kernel, Process, learn_kernel, log_likelihood
from apq_moo.predictors.metrics import pairwise_accuracy
from apq_moo.predictors.storage import read_state, write_state
from apq_moo.space import load_space


def described(space, subnet):
    """The features of one network, written from their description."""
    row, depths, blocks = [], [0] * len(space.spec.stages), list(subnet.blocks)
    layers = space.layers(subnet)
    for plan in space.plans:
        if not blocks or blocks[0].stage != plan.stage:
            row += [0.0] * PER_BLOCK
            continue
        block = blocks.pop(0)
        depths[plan.stage] += 1
        bits = block.w_pw, block.a_pw, block.w_dw, block.a_dw
        own = [layer for layer in layers if layer.block == plan.block]
        row += [1, block.kernel, math.log2(block.channels), *bits]
        row += [2.0**-b for b in bits]
        row += [2.0**-b / block.channels**0.5 for b in bits]
        row += [math.log10(sum(layer.macs for layer in own))]
        for places in (("expand", "project"), ("depthwise",)):
            of = [layer for layer in own if layer.place in places]
            row += [sum(layer.macs * layer.w_bits * layer.a_bits for layer in of) / 1e9]
    macs = sum(layer.macs for layer in layers)
    bitops = sum(layer.macs * layer.w_bits * layer.a_bits for layer in layers)
    return [*row, *depths, math.log10(macs / 1e9), math.log10(bitops / 1e9)]


@pytest.mark.parametrize("name", ["digits", "fashion", "imagenet", "mobilenet"])
def test_engineered_features(name):
    space = load_space(name)
    ends = [space.smallest(), space.largest()]
    X = np.concatenate([space.sample(30, np.random.default_rng(0)), ends])
    index = space.block_index(X)
    found = engineered(space, index)
    expected = np.array([described(space, subnet) for subnet in space.decode(X)])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    by_block = found[:, : PER_BLOCK * space.n_blocks].reshape(len(X), space.n_blocks, PER_BLOCK)
    inactive = ~space.active(X)
    assert inactive.any()
    assert (by_block[inactive] == 0).all()


KERNEL = Kernel(0.5, 0.3, 2.0, 0.1, np.array([1.5, 4.0]))


def covariances(a, b, kernel=KERNEL):
    r = np.sqrt(5 * (((a[:, None] - b) / kernel.lengths) ** 2).sum(axis=2))
    linear = kernel.linear * (a[:, None] * b).mean(axis=2)
    return kernel.constant + linear + kernel.matern * (1 + r + r**2 / 3) * np.exp(-r)


def test_two_samples_by_hand():
    """All that is 0 drops out: (k1, k2) M^-1 y with the 2x2 inverse written out."""
    kernel = Kernel(0.0, 0.0, 1.0, 0.25, np.array([np.sqrt(5)]))
    process = Process(kernel, np.array([[0.0], [1.0]]), y=np.array([1.0, -0.5]))
    near, far = (1 + 1 + 1 / 3) / math.e, (1 + 2 + 4 / 3) / math.e**2  # at distances 1 and 2
    determinant = 1.25**2 - near**2
    alpha = np.array([1.25 * 1 + near * 0.5, -near * 1 - 1.25 * 0.5]) / determinant
    np.testing.assert_allclose(process.alpha, alpha, rtol=1e-6)
    x = np.array([[2.0]])
    np.testing.assert_allclose(process.mean(x), far * alpha[0] + near * alpha[1], rtol=1e-6)
    explained = (1.25 * far**2 - 2 * near * far * near + 1.25 * near**2) / determinant
    mean, variance = process.mean_and_variance(x)
    np.testing.assert_array_equal(mean, process.mean(x))
    np.testing.assert_allclose(variance, 1 - explained, rtol=1e-4)


def test_many_samples_by_the_definition():
    """Over several chunks and pieces, with a noise so small that much cancels."""
    rng = np.random.default_rng(0)
    kernel = dataclasses.replace(KERNEL, noise=0.01)
    x, at = rng.normal(size=(700, 2)), 2 * rng.normal(size=(60, 2))
    y = np.sin(x[:, 0]) + 0.1 * rng.normal(size=700)
    process = Process(kernel, x, y=y)
    inverse = np.linalg.inv(covariances(x, x) + 0.01 * np.eye(700))
    cross = covariances(at, x)
    np.testing.assert_allclose(process.mean(at), cross @ inverse @ y, atol=3e-4)
    expected = np.diag(covariances(at, at)) - np.einsum("ij,jk,ik->i", cross, inverse, cross)
    mean, variance = process.mean_and_variance(at)
    np.testing.assert_allclose(variance, expected, atol=3e-4, rtol=1e-3)
    np.testing.assert_array_equal(process.mean(at), mean)
    order = rng.permutation(60)[:7]
    few = process.mean_and_variance(at[order])
    np.testing.assert_array_equal(few, (mean[order], variance[order]))


def test_the_likelihood_and_its_gradient():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    x[1] = x[0]  # a distance of 0
    at = np.log([0.5, 0.3, 2.0, 0.1, 1.5, 4.0, 0.7])
    value, gradient = log_likelihood(at, x, y)
    total = covariances(x, x, Kernel.of(at)) + 0.1 * np.eye(40)
    _, determinant = np.linalg.slogdet(2 * np.pi * total)
    assert value == pytest.approx(-(y @ np.linalg.solve(total, y) + determinant) / 2)
    found = approx_fprime(at, lambda t: log_likelihood(t, x, y)[0], 1e-6)
    np.testing.assert_allclose(gradient, found, rtol=1e-4, atol=1e-4)


def test_learning_finds_what_matters():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 4))
    y = np.sin(2 * x[:, 0]) + 0.1 * rng.normal(size=150)
    kernel = learn_kernel(x, y / y.std(), steps=150, learning_rate=0.06)
    assert kernel.lengths[0] < 3
    assert (kernel.lengths[1:] > 6 * kernel.lengths[0]).all()
    assert kernel.noise * y.var() == pytest.approx(0.01, rel=0.5)


def test_deviations_grow_away_from_samples(digits):
    """And are those of the accuracies themselves, which held-out ones confirm."""
    samples = load_samples(find_assets(digits).path(SAMPLES), digits)
    (X, y), (held_out, accuracies) = samples.rows("mp"), samples.rows("mp_held_out")
    predictor = ScratchGPPredictor(digits, steps=15).fit(X[:300], y[:300])
    _, at_samples = predictor.predict(X[:300], return_std=True)
    mean, elsewhere = predictor.predict(held_out, return_std=True)
    assert np.median(elsewhere) > 1.2 * np.median(at_samples)
    _, (smallest, *_) = predictor.predict([digits.smallest(), X[0]], return_std=True)
    assert smallest > 2 * np.median(elsewhere)
    noise = predictor._spread * np.sqrt(predictor._process.kernel.noise) * (101 - mean)
    z = (accuracies - mean) / np.hypot(elsewhere, noise)
    assert 0.7 < z.std() < 1.4


def test_ranks_networks_as_boosted_trees_do_or_better(digits):
    samples = load_samples(find_assets(digits).path(SAMPLES), digits)
    (X, y), (X_fp, y_fp) = samples.rows("mp"), samples.rows("fp")
    held_out, accuracies = samples.rows("mp_held_out")
    found = {}
    for name in ("gp", "xgboost-stacked"):
        predictor = create_predictor(name, digits).fit(X[:500], y[:500], X_fp=X_fp, y_fp=y_fp)
        found[name] = pairwise_accuracy(accuracies, predictor.predict(held_out))
    assert found["gp"] >= found["xgboost-stacked"] - 0.005
    assert found["gp"] > 0.915


def test_no_more_rows_than_asked_for(digits, digits_samples):
    X, y = digits_samples.mp
    few = ScratchGPPredictor(digits, steps=2, max_rows=100, seed=3).fit(X, y)
    assert len(few._process.alpha) == 100
    other = ScratchGPPredictor(digits, steps=2, max_rows=100, seed=4).fit(X, y)
    assert not np.array_equal(other._index, few._index)
    known = {tuple(row): accuracy for row, accuracy in zip(digits.block_index(X), y, strict=True)}
    chosen = digits.from_block_index(few._index), [known[tuple(row)] for row in few._index]
    again = ScratchGPPredictor(digits, steps=2).fit(*chosen)
    np.testing.assert_array_equal(again.predict(X), few.predict(X))
    for name in ("max_rows", "likelihood_rows"):
        with pytest.raises(UserError, match=rf"{name} must be from 2 to 20,000, not 1$"):
            ScratchGPPredictor(digits, **{name: 1}).fit(X, y)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("index", lambda a: a.astype(np.int64), "samples of 8 blocks each, in int32"),
        ("index", lambda a: a[:1], "2 to 20,000 samples"),
        ("index", lambda a: a + np.int32(10**6), "a configuration that its block has not"),
        ("index", lambda a: a - np.int32(10**6), "a configuration that its block has not"),
        ("alpha", lambda a: a[1:], "it needs 40 float64 numbers alpha"),
        ("alpha", lambda a: a * np.nan, "its alpha must be numbers of -1e"),
        ("center", lambda a: a + 1e30, "its center must be numbers"),
        ("scale", lambda a: a * 0, "its scale must be numbers of 1e-09"),
        ("lengths", lambda a: a * 0, "its lengths must be numbers of 0.0999"),
        ("lengths", lambda a: a.astype(np.float32), "float64 numbers lengths"),
        ("noise", lambda _: 0.0, "its noise must lie between 0.000999 and 1001, not be 0|not 0"),
        ("matern", lambda _: float("nan"), "matern must lie between"),
        ("spread", lambda _: -1.0, "its spread must lie between 1e-09"),
        ("level", lambda _: 1e30, "level must lie between"),
    ],
)
def test_damaged_files(name, change, message, digits, digits_samples, tmp_path):
    X, y = digits_samples.mp[0][:40], digits_samples.mp[1][:40]
    path = tmp_path / "gp.safetensors"
    GPPredictor(digits, steps=1, rounds=3).fit(X, y, X_fp=X, y_fp=y).save(path)
    arrays, header = read_state(path, digits)
    held = arrays if name in arrays else header["settings"]
    held[name] = change(held[name])
    write_state(path, digits, arrays, header)
    with pytest.raises(UserError, match=message):
        load_predictor(path, digits)
