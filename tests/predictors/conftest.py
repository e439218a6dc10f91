"""Synthetic supernets whose accuracies behave like measured ones."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pytest

from apq_moo.predictors import PREDICTORS, Recipe, create_predictor
from apq_moo.space import FIELDS, load_space


@dataclass(frozen=True)
class Samples:
    fp: tuple
    mp: tuple
    held_out: tuple


class Landscape:
    """Seeded accuracies: saturating in capacity, neighbours interact, few bits cost accuracy.

    The loss to quantisation multiplies the accuracy above chance and is larger in narrow blocks, so
    that neither architecture nor bits can be judged without the other.
    """

    def __init__(self, space, seed=0, noise=0.2):
        rng = np.random.default_rng(seed)
        self.space, self.noise, self.rng = space, noise, rng
        n = space.n_blocks
        self.kernel_gain, self.channel_gain, self.weight = rng.uniform(0.3, 1.0, (3, n))
        self.interaction = rng.normal(0.0, 1.0, n - 1)
        self.sensitivity = rng.gamma(1.5, 1.0, (n, 4))
        probe = space.sample(2000, rng)
        capacity = self._capacity(probe)
        self.mean, self.deviation = capacity.mean(), capacity.std()
        self.severity = 0.12 / self._loss(probe).mean()

    def _options(self, X, field):
        column = self.space.block_columns[:, FIELDS.index(field)]
        options = [np.array(plan.options[field], dtype=float) for plan in self.space.plans]
        return np.stack([o[X[:, c]] for o, c in zip(options, column, strict=True)], axis=1)

    def _strength(self, X):
        width = [plan.c_in for plan in self.space.plans]
        ratio = np.log2(self._options(X, "channels") / width)
        kernel = (self._options(X, "kernel") - 3) / 4
        strength = self.weight * (1 + 0.6 * self.kernel_gain * kernel + self.channel_gain * ratio)
        return np.where(self.space.active(X), strength, 0.0)

    def _capacity(self, X):
        u = self._strength(X)
        z = np.where(self.space.active(X), u - 1, 0.0)
        return u.sum(axis=1) + (z[:, :-1] * z[:, 1:]) @ self.interaction

    def _loss(self, X):
        bits = np.stack([self._options(X, role) for role in FIELDS[2:]], axis=2)
        loss = (self.sensitivity * 4.0 ** (3 - bits)).sum(axis=2)
        loss = loss / (0.5 + np.maximum(self._strength(X), 0.0))
        return (loss * self.space.active(X)).sum(axis=1)

    def full_precision(self, X):
        acc = 70 + 6 * np.tanh((self._capacity(X) - self.mean) / self.deviation / 1.5)
        return np.clip(acc + self.rng.normal(0.0, self.noise, len(X)), 0, 100)

    def mixed_precision(self, X):
        acc = 70 + 6 * np.tanh((self._capacity(X) - self.mean) / self.deviation / 1.5)
        acc = 10 + (acc - 10) * np.exp(-self.severity * self._loss(X))
        return np.clip(acc + self.rng.normal(0.0, self.noise, len(X)), 0, 100)


def make_samples(space, n_fp, n_mp, n_held_out, seed=0):
    landscape = Landscape(space, seed)
    rng = np.random.default_rng(seed + 1)
    X_fp = space.architecture(space.sample(n_fp, rng))
    X, held_out = space.sample(n_mp, rng), space.sample(n_held_out, rng)
    return Samples(
        (X_fp, landscape.full_precision(X_fp)),
        (X, landscape.mixed_precision(X)),
        (held_out, landscape.mixed_precision(held_out)),
    )


@pytest.fixture(scope="session")
def imagenet():
    return load_space("imagenet")


@pytest.fixture(scope="session")
def digits_samples(digits):
    return make_samples(digits, 1500, 900, 1000)


@pytest.fixture(scope="session")
def imagenet_samples(imagenet):
    return make_samples(imagenet, 2000, 200, 1000)


@pytest.fixture(scope="session")
def fitted(digits, digits_samples):
    """Every predictor, fitted to the digits samples when asked for; not to be fitted again."""
    return _Fitted(digits, digits_samples)


class _Fitted(dict):
    """Predictors by name."""

    lighter = MappingProxyType(
        {
            "ensemble": {"members": "gp-scratch/steps=5+xgboost-stacked/rounds=200"},
            "mlp-stacked": dict.fromkeys(
                ["pretraining", "training"], Recipe(batch=64, lr=3e-3, bits_lr=3e-3, min_steps=300)
            ),
        }
    )

    def __init__(self, space, samples):
        self.space, self.samples = space, samples

    def __missing__(self, name):
        (X, y), (X_fp, y_fp) = self.samples.mp, self.samples.fp
        predictor = create_predictor(name, self.space, seed=1)
        predictor.set_params(**self.lighter.get(name, {})).fit(X, y, X_fp=X_fp, y_fp=y_fp)
        self[name] = predictor
        return predictor


@pytest.fixture(scope="session")
def brief():
    """Makes predictors that are fitted quickly, where the quality of the fit does not matter."""
    recipe = Recipe(batch=32, lr=3e-3, bits_lr=3e-3, epochs=1, min_steps=20)
    parameters = {
        "mlp": {"pretraining": recipe, "transfer": recipe},
        "mlp-scratch": {"training": recipe},
        "mlp-stacked": {"pretraining": recipe, "training": recipe},
        "xgboost": {"rounds": 20},
        "xgboost-stacked": {"rounds": 20},
        "gbdt": {"max_iter": 20},
        "gbdt-stacked": {"max_iter": 20},
        "gp": {"steps": 3, "rounds": 20},
        "gp-scratch": {"steps": 3},
        "ensemble": {"members": "0.5*gp-scratch/steps=3+xgboost-stacked/rounds=20"},
    }
    return lambda name, space, seed=0: PREDICTORS.get(name)(
        space, seed=seed, **parameters.get(name, {})
    )
