"""What is particular to the additive and the boosted predictors, and the comparison of all."""

import csv
import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from apq_moo.errors import UserError
from apq_moo.predictors import AdditivePredictor, compare, create_predictor, metrics
from apq_moo.predictors.curves import draw_curves, mean_and_band, write_curves
from apq_moo.predictors.features import option_values


def test_additive_is_ridge_regression_at_the_least_gcv_score(digits, digits_samples):
    X, y = digits_samples.mp[0][:120], digits_samples.mp[1][:120]
    Z = digits.one_hot(X).astype(float)
    centred, target = Z - Z.mean(axis=0), y - y.mean()
    best = None
    for penalty in np.logspace(-3, 5, 33):
        inverse = np.linalg.inv(centred.T @ centred + penalty * np.eye(Z.shape[1]))
        hat = centred @ inverse @ centred.T
        residual = target - hat @ target
        score = residual @ residual / (len(y) - 1 - np.trace(hat)) ** 2
        if best is None or score < best[0]:
            best = score, inverse @ centred.T @ target
    predictor = AdditivePredictor(digits).fit(X, y)
    np.testing.assert_allclose(predictor.coefficients, best[1], atol=1e-6)
    expected = y.mean() + (Z - Z.mean(axis=0)) @ best[1]
    np.testing.assert_allclose(predictor.predict(X), expected, atol=1e-6)


def test_additive_recovers_an_additive_accuracy(imagenet):
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.3, imagenet.n_inputs)
    X, held_out = imagenet.sample(2000, rng), imagenet.sample(200, rng)
    predictor = AdditivePredictor(imagenet).fit(X, 60 + imagenet.one_hot(X) @ truth)
    expected = 60 + imagenet.one_hot(held_out) @ truth
    np.testing.assert_allclose(predictor.predict(held_out), expected, atol=0.01)


def test_additive_is_fitted_alike_by_any_number_of_threads():
    """Sums of another order would show in the coefficients of few samples."""
    code = """
import hashlib, numpy as np
from apq_moo.predictors import AdditivePredictor
from apq_moo.space import load_space
for name in ("digits", "fashion"):
    space, rng = load_space(name), np.random.default_rng(0)
    for n in (20, 50, 250):
        X, y = space.sample(n, rng), rng.uniform(60, 80, n)
        fitted = AdditivePredictor(space).fit(X, y).coefficients
        print(name, n, hashlib.sha256(fitted.tobytes()).hexdigest())
"""
    lines = [
        subprocess.run(  # noqa: S603 - runs this interpreter
            [sys.executable, "-c", code],
            env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for threads in ("1", "2")
    ]
    assert lines[0] == lines[1]


def test_option_values(digits):
    X = np.stack([digits.smallest(), digits.largest()])
    values = option_values(digits, X)
    for row, subnet in zip(values, digits.decode(X), strict=True):
        blocks = row[digits.block_columns]
        active = [tuple(block) for block in blocks if block.any()]
        names = ("kernel", "channels", "w_pw", "a_pw", "w_dw", "a_dw")
        assert active == [tuple(getattr(b, name) for name in names) for b in subnet.blocks]
    depths = [stage.depths[-1] for stage in digits.spec.stages]
    assert values[1, list(digits.depth_columns.values())].tolist() == depths


def timeless(rows):
    return [dataclasses.replace(row, fit_seconds=0, predict_seconds=0) for row in rows]


def other_labels(held_out):
    """Of images of their own, and unknown for some networks."""
    labels = held_out[1] + np.random.default_rng(0).normal(0, 1, len(held_out[1]))
    labels[::9] = np.nan
    return labels


def test_compare(digits, digits_samples):
    fp, mp, held_out = digits_samples.fp, digits_samples.mp, digits_samples.held_out
    sizes, seeds, other = [60, 300], [3, 4], other_labels(held_out)
    names = ["additive", "xgboost-stacked:rounds=300"]
    rows = compare(digits, names, fp, mp, held_out, sizes, seeds, test_accuracies=other, k=5)
    assert [(row.predictor, row.seed, row.n_mp) for row in rows] == [
        (name, seed, size) for name in names for seed in seeds for size in sizes
    ]
    assert [row.n_fp for row in rows] == [0] * 4 + [len(fp[1])] * 4
    again = compare(digits, ["additive"], fp, mp, held_out, [300], [4], test_accuracies=other, k=5)
    assert timeless(rows)[3] == timeless(again)[0]
    for small, large in zip(rows[::2], rows[1::2], strict=True):
        assert large.kendall_tau > small.kendall_tau + 0.05

    # The figures are those of a predictor fitted by hand to the same choice of samples.
    chosen = np.random.default_rng(4).permutation(len(mp[1]))[:300]
    predictor = create_predictor("xgboost-stacked", digits, seed=4).set_params(rounds=300)
    predictor.fit(mp[0][chosen], mp[1][chosen], X_fp=fp[0], y_fp=fp[1])
    predicted = predictor.predict(held_out[0])
    row = rows[-1]
    assert row.kendall_tau == metrics.kendall_tau(held_out[1], predicted)
    assert row.spearman == metrics.spearman(held_out[1], predicted)
    assert row.pairwise_accuracy == metrics.pairwise_accuracy(held_out[1], predicted)
    assert row.rmse == metrics.rmse(held_out[1], predicted)
    assert row.top_k_regret == metrics.top_k_regret(held_out[1], predicted, 5)
    known = np.isfinite(other)
    assert row.kendall_tau_test == metrics.kendall_tau(other[known], predicted[known])
    assert row.pairwise_accuracy_test == metrics.pairwise_accuracy(other[known], predicted[known])
    (unknown,) = compare(digits, ["additive"], fp, mp, held_out, [60], [3])
    assert np.isnan(unknown.kendall_tau_test)
    assert np.isnan(unknown.pairwise_accuracy_test)


def test_compare_by_several_processes(digits, digits_samples):
    samples = digits_samples
    arguments = (samples.fp, samples.mp, samples.held_out, [60, 90], [3, 4])
    other, told = other_labels(samples.held_out), []
    alone, shared = (
        compare(
            digits, ["additive", "xgboost:rounds=50"], *arguments,
            test_accuracies=other, jobs=jobs, callback=callback,
        )
        for jobs, callback in ((1, None), (2, lambda *of: told.append(of)))
    )  # fmt: skip
    assert timeless(alone) == timeless(shared)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_curves_are_kept_with_what_is_not_known_left_out(digits, digits_samples, tmp_path):
    fp, mp, held_out = digits_samples.fp, digits_samples.mp, digits_samples.held_out
    rows = compare(digits, ["additive"], fp, mp, held_out, [60], [3, 4])
    write_curves(tmp_path / "c.csv", rows)
    with (tmp_path / "c.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [row["pairwise_accuracy_test"] for row in read] == ["", ""]
    assert [float(row["pairwise_accuracy"]) for row in read] == [r.pairwise_accuracy for r in rows]
    widths = []
    for name, labels in (("one.png", None), ("two.png", other_labels(held_out))):
        rows = compare(digits, ["additive"], fp, mp, held_out, [60], [3], test_accuracies=labels)
        draw_curves(tmp_path / name, rows, ceiling=0.97)
        widths.append(imread(tmp_path / name).shape[1])
    assert widths[1] > 1.5 * widths[0]  # a panel for the labels of other images


def test_bands_hold_the_true_mean_as_often_as_they_say():
    draws = np.random.default_rng(0).normal(size=(4000, 5))
    inside = [abs(mean) <= band for mean, band in map(mean_and_band, draws)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)
    mean, band = mean_and_band([2.5])
    assert mean == 2.5
    assert np.isnan(band)


def test_compare_refuses(digits, digits_samples):
    fp, mp, held_out = digits_samples.fp, digits_samples.mp, digits_samples.held_out
    with pytest.raises(UserError, match="sizes must be from 2 to the 900 samples there are"):
        compare(digits, ["additive"], fp, mp, held_out, [901], [0])
    with pytest.raises(UserError, match="k must be from 1 to the number of values, 1000, not 0"):
        compare(digits, ["additive"], fp, mp, held_out, [100], [0], k=0)
    with pytest.raises(UserError, match="unknown predictor 'oracle'"):
        compare(digits, ["oracle"], fp, mp, held_out, [100], [0])
    with pytest.raises(UserError, match=r"1000 held-out networks, and test accuracies of .*\(3,\)"):
        compare(digits, ["additive"], fp, mp, held_out, [9], [0], test_accuracies=[1, 2, 3])
    leaked = np.concatenate([held_out[0], mp[0][:7]]), np.concatenate([held_out[1], mp[1][:7]])
    with pytest.raises(UserError, match="7 of the 1007 held-out networks"):
        compare(digits, ["additive"], fp, mp, leaked, [100], [0])
