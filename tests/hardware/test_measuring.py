"""Measuring layers and networks: timing rules by fake clocks, files by kills."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from apq_moo.errors import UserError
from apq_moo.hardware import cost_table, feasible_options, read_table
from apq_moo.hardware.measuring.backends import BACKENDS
from apq_moo.hardware.measuring.campaign import Campaign, CampaignFile
from apq_moo.hardware.measuring.layers import ROUNDS as VISITS
from apq_moo.hardware.measuring.layers import layers_of, measure_layers
from apq_moo.hardware.measuring.networks import fit, measure_networks
from apq_moo.hardware.measuring.timing import Rule, half_width, observe
from apq_moo.problems import APQProblem
from apq_moo.space import Layer, load_space


class Stopped(Exception):  # noqa: N818
    """Raised in the middle of a measurement."""


ROUNDS = 3
QUICK = Rule(precision=0.3, observations=6, max_s=0.002, warm_up_s=0, block_ms=0.02)


# -- timing ----------------------------------------------------------------------------------------


def test_half_width_covers_the_median_19_times_in_20():
    rng = np.random.default_rng(0)
    for n in (12, 25, 80):
        hits = 0
        for _ in range(2000):
            sample = rng.exponential(size=n)
            reach = 0.98 * np.sqrt(n)
            ordered = np.sort(sample)
            low = ordered[max(int(np.floor(n / 2 - reach)), 1) - 1]
            high = ordered[min(int(np.ceil(n / 2 + 1 + reach)), n) - 1]
            assert half_width(sample) == pytest.approx((high - low) / 2 / np.median(sample))
            hits += low <= np.log(2) <= high
        assert 0.94 < hits / 2000 < 0.995
    assert half_width(np.ones(5)) == np.inf


class Clock:
    """A runner of known times, and a clock that they move."""

    def __init__(self, monkeypatch, times_ms):
        self.now = 0.0
        self.calls = []
        self._times = iter(times_ms)
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def __call__(self, times):
        ms = next(self._times)
        self.calls.append(times)
        self.now += times * ms / 1000
        return ms


def test_steady_times_need_the_fewest_observations(monkeypatch):
    clock = Clock(monkeypatch, iter(lambda: 0.1, None))
    rule = Rule(warm_up_s=0.001, block_ms=0.25, observations=12)
    found = observe(clock, rule)
    np.testing.assert_array_equal(found, np.full(12, 0.1))
    warm_up, counted = clock.calls[:-12], clock.calls[-12:]
    assert set(counted) == {3}  # 0.25 ms hold three runs of 0.1 ms, rounded up
    assert warm_up == [1] * (1 + 10)


def test_unsteady_times_end_by_the_clock(monkeypatch):
    rng = np.random.default_rng(0)
    clock = Clock(monkeypatch, iter(lambda: float(rng.choice([1.0, 3.0])), None))
    found = observe(clock, Rule(max_s=0.4, warm_up_s=0))
    assert half_width(found) > 0.02
    assert 0.4 <= clock.now < 0.42
    assert len(found) > 100


# -- campaigns -------------------------------------------------------------------------------------


def fake(times, log, thing, speed):
    """A preparer whose visits take what ``speed(thing, visit)`` says."""

    def prepare():
        log.append(thing)
        ms = speed(thing, log.count(thing) - 1)
        return lambda _times: ms

    return prepare


def campaign(speed, n=5, seed=0, rule=QUICK):
    log = []
    return Campaign([fake(None, log, i, speed) for i in range(n)], rule, seed, ROUNDS), log


def test_settled_things_are_visited_three_times_in_random_order():
    found, log = campaign(lambda thing, _visit: 1.0 + thing)
    found.run()
    assert [log.count(i) for i in range(5)] == [ROUNDS] * 5
    rounds = [log[5 * i : 5 * i + 5] for i in range(ROUNDS)]
    assert all(sorted(part) == list(range(5)) for part in rounds)
    assert len({tuple(part) for part in rounds}) == ROUNDS
    np.testing.assert_array_equal(found.medians(), np.arange(1.0, 6.0))


def test_slow_spells_do_not_count():
    """Two of three visits are disturbed: a fourth agrees with the quiet one and settles it."""
    times = {0: [9.0, 1.0, 5.0, 1.01]}
    found, log = campaign(lambda thing, visit: times.get(thing, [2.0] * 9)[visit], rule=Rule(
        precision=0.02, observations=6, max_s=0.001, warm_up_s=0, block_ms=0.02))  # fmt: skip
    found.run()
    assert log.count(0) == 4
    assert log.count(1) == 3
    assert found.medians()[0] == 1.0
    assert found.settled(0)


def test_what_never_settles_is_given_up():
    found, log = campaign(lambda _thing, visit: 2.0**visit, n=2)
    found.run()
    assert log.count(0) == log.count(1) == 2 * ROUNDS
    assert not found.settled(0)


def test_progress_counts_visits_up_to_what_is_needed():
    told = []
    found, _ = campaign(lambda thing, visit: 1.0 if thing else float(10**visit), n=3)
    found.run(callback=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == list(range(1, 3 * ROUNDS + ROUNDS + 1))
    assert told[0] == (1, 9)
    assert told[8] == (9, 9)
    assert told[-1] == (12, 12)


def test_an_interrupted_campaign_continues_with_what_is_left(tmp_path):
    whole, order = campaign(lambda thing, _visit: 1.0 + thing)
    whole.run()

    def stop(done, _total):
        if done in (4, 7, 8):
            raise Stopped

    path, log = tmp_path / "x.partial", []
    for _ in range(4):
        part = Campaign(
            [fake(None, log, i, lambda t, _v: 1.0 + t) for i in range(5)], QUICK, 0, ROUNDS
        )
        try:
            part.run(CampaignFile(path, {"a": 1}), stop)
        except Stopped:
            continue
    assert log == order
    assert [len(visits) for visits in part.visits] == [ROUNDS] * 5
    np.testing.assert_array_equal(part.medians(), whole.medians())
    with pytest.raises(UserError, match=r"a was 1, is 2\); repeat those, or remove"):
        CampaignFile(path, {"a": 2}).load(part)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"is damaged .*; remove it to begin anew"):
        CampaignFile(path, {"a": 1}).load(part)


# -- layers ----------------------------------------------------------------------------------------


def test_every_distinct_layer_is_measured_once(small):
    space = small()
    layers = layers_of(space, (8, 32))
    assert len({(layer.component, layer.key) for layer in layers}) == len(layers)
    needed = set()
    for subnet in space.decode(space.sample(3000, np.random.default_rng(0))):
        needed |= {
            replace(layer, w_bits=bits, a_bits=bits).key
            for layer in space.layers(subnet)
            for bits in (8, 32)
        }
    assert {layer.key for layer in layers} == needed


class FakeBackend:
    """Takes 0.01 ms a run, 0.001 ms a trivial operator, 2e-6 ms a multiply-accumulate, and logs."""

    bits = (8, 32)

    def __init__(self, scale=1.0, version=1):
        self.scale, self.version = scale, version
        self.measured = []

    def describe(self):
        return {"backend": "fake", "on": "cpu", "threads": 1, "version": self.version}

    def _cost(self, layer):
        return layer.macs * 2e-6 * (1 if layer.w_bits == 8 else 3)

    def trivial(self, operators):
        return lambda _times: 0.01 + 0.001 * operators

    def layer(self, layer):
        self.measured.append(layer.key)
        return lambda _times: 0.01 + self._cost(layer)

    def network(self, space, subnet):
        total = sum(self._cost(layer) for layer in space.layers(subnet))
        return lambda _times: self.scale * (0.01 + total) + 0.5 * (self.scale - 1)


def test_measured_tables_hold_what_was_measured(tmp_path, small):
    space, backend = small(), FakeBackend()
    told = []
    path = tmp_path / "mine.npz"
    table = measure_layers(
        space, backend, path, rule=QUICK, callback=lambda done, total: told.append((done, total))
    )
    n = len(layers_of(space, (8, 32)))
    assert told[-1] == (VISITS * (n + 2), VISITS * (n + 2))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]
    read = read_table(path)
    assert read.names == table.names
    np.testing.assert_array_equal(read.values["latency"], table.values["latency"])
    for layer in layers_of(space, (8, 32)):
        assert read.values["latency"][read.row(layer)] == pytest.approx(backend._cost(layer))
    assert read.constant["latency"] == pytest.approx(0.01)
    assert read.bit_pairs == {(8, 8), (32, 32)}
    assert (read.repeats >= VISITS * QUICK.observations).all()
    assert read.provenance["measured"] == backend.describe()
    assert read.provenance["unsettled"] == 0
    with pytest.raises(UserError, match="exists; remove it or name another file"):
        measure_layers(space, backend, path, rule=QUICK)
    with pytest.raises(UserError, match="no place for spread and provenance"):
        measure_layers(space, backend, tmp_path / "mine.json", rule=QUICK)


def test_searches_are_offered_the_bits_that_run(tmp_path, small):
    space = small()
    measure_layers(space, FakeBackend(), tmp_path / "mine.npz", rule=QUICK)
    problem = APQProblem(space, ("latency", "params"), device=tmp_path / "mine.npz")
    X = problem.region.sample(300, np.random.default_rng(0))
    blocks = [block for subnet in space.decode(X) for block in subnet.blocks]
    assert {(block.w_pw, block.a_pw) for block in blocks} == {(8, 8), (32, 32)}
    assert {(block.w_dw, block.a_dw) for block in blocks} == {(8, 8), (32, 32)}
    latency = problem.evaluate_raw(X)["latency"]
    backend = FakeBackend()
    expected = [backend.network(space, subnet)(1) for subnet in space.decode(X)]
    np.testing.assert_allclose(latency, expected, rtol=1e-9)
    # Of the digits' bits only 8 run there.
    digits = load_space("digits")
    measure_layers(digits, FakeBackend(), tmp_path / "digits.npz", rule=QUICK)
    table = cost_table(digits, "latency", tmp_path / "digits.npz")
    for b, mask in enumerate(feasible_options(digits, [table])):
        genes = digits.block_genes(b, np.flatnonzero(mask))
        assert (genes[:, 2:] == 3).all()
        assert len(genes) == digits.plans[b].shape[0] * digits.plans[b].shape[1]


def test_an_interrupted_measurement_continues(tmp_path, small):
    space, path = small(), tmp_path / "mine.npz"

    def stop(done, _total):
        if done == 20:
            raise Stopped

    first = FakeBackend()
    with pytest.raises(Stopped):
        measure_layers(space, first, path, rule=QUICK, callback=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz.partial"]
    with pytest.raises(UserError, match=r"begun with other settings \(version was 1, is 2\)"):
        measure_layers(space, FakeBackend(version=2), path, rule=QUICK)
    with pytest.raises(
        UserError, match=r"begun with other settings \(seed was 0, is 1\); repeat those, or"
    ):
        measure_layers(space, FakeBackend(), path, rule=QUICK, seed=1)
    second = FakeBackend()
    measure_layers(space, second, path, rule=QUICK)
    n = len(layers_of(space, (8, 32)))
    assert len(first.measured) + len(second.measured) == VISITS * n
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]


# -- networks --------------------------------------------------------------------------------------


def test_fits_by_hand():
    """An exact line is found; leaving one of them out changes nothing."""
    summed = np.array([1.0, 2.0, 4.0, 5.0, 9.0])
    found = fit(summed, 1.5 * summed + 0.25)
    assert (found.scale, found.offset) == pytest.approx((1.5, 0.25))
    assert found.kendall_tau == pytest.approx(1.0)
    assert found.mape_after == pytest.approx(0, abs=1e-9)
    measured = 1.5 * summed + 0.25
    assert found.mape_before == pytest.approx(100 * np.mean((measured - summed) / measured))


def test_fits_minimise_relative_errors():
    rng = np.random.default_rng(0)
    summed = rng.uniform(1, 10, 40)
    measured = (1.2 * summed + 0.5) * rng.normal(1, 0.05, 40)
    found = fit(summed, measured)

    def loss(scale, offset):
        return np.sum(((scale * summed + offset - measured) / measured) ** 2)

    best = loss(found.scale, found.offset)
    for scale, offset in rng.normal([found.scale, found.offset], [0.02, 0.1], (200, 2)):
        assert loss(scale, offset) >= best
    assert 2 < found.mape_after < 7


@pytest.mark.parametrize("measured", [[5.0, 4.0, 3.0, 2.0, 1.0], [0.1, 1.0, 2.0, 3.0, 4.0]])
def test_corrections_never_make_latencies_negative(measured):
    summed = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = fit(summed, np.array(measured))
    assert found.scale > 0
    assert (found.scale * summed + found.offset > 0).all()


def test_networks_are_predicted_and_corrected(tmp_path, small):
    space, path = small(), tmp_path / "mine.npz"
    table = measure_layers(space, FakeBackend(), path, rule=QUICK)
    found = measure_networks(space, table, "mine", 12, backend=FakeBackend(1.3), rule=QUICK)
    assert len(np.unique(found.X, axis=0)) == 12
    np.testing.assert_allclose(found.measured_ms, 1.3 * found.summed_ms + 0.15, rtol=1e-9)
    assert found.correction.scale == pytest.approx(1.3)
    assert found.correction.offset == pytest.approx(0.15)
    corrected = replace(table, corrections={"latency": found.correction})
    from apq_moo.hardware import TableDevice

    latency = cost_table(space, "latency", TableDevice(corrected, "mine"))
    np.testing.assert_allclose(latency(found.X), found.measured_ms, rtol=1e-9)
    with pytest.raises(UserError, match="at least 5 networks are needed"):
        measure_networks(space, table, "mine", 4, backend=FakeBackend())
    with pytest.raises(UserError, match="unknown backend 'fake'; known: onnxruntime, torch"):
        measure_networks(space, table, "mine", 6)


# -- real backends ---------------------------------------------------------------------------------

TIMED = Rule(precision=0.1, observations=8, max_s=0.02, warm_up_s=0.001, block_ms=0.1)


@pytest.mark.parametrize(("name", "bits"), [("onnxruntime", (8, 32)), ("torch", (32,))])
def test_real_backends_time_layers_and_networks(name, bits, tmp_path, small):
    backend = BACKENDS.get(name)(1, "cpu")
    assert backend.bits == bits
    space = small((8, 32) if 8 in bits else (32,))
    path = tmp_path / "mine.npz"
    table = measure_layers(space, backend, path, rule=TIMED)
    assert (table.values["latency"] > 0).all()
    found = measure_networks(space, table, str(path), 8, rule=TIMED)
    assert (found.measured_ms > table.constant["latency"]).all()
    assert table.provenance["measured"]["threads"] == 1
    # Much more work takes more time.
    layers = [Layer("block", c, c, 28, 1, 1, 1, bits[-1], bits[-1]) for c in (8, 256)]
    few, many = (np.median(observe(backend.layer(layer), TIMED)) for layer in layers)
    assert many > 4 * few


def test_torch_networks_are_the_spaces_networks(small):
    from torch.utils.flop_counter import FlopCounterMode

    from apq_moo.hardware.measuring.torch_backend import _Network

    space = small((32,))
    X = space.sample(5, np.random.default_rng(0))
    for subnet, macs in zip(space.decode(X), cost_table(space, "macs")(X), strict=True):
        net = _Network(space, subnet)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            assert net(torch.rand(1, 3, 10, 10)).shape == (1, 5, 1, 1)
        assert counter.get_total_flops() / 2e6 == pytest.approx(macs)
        blocks = space.active(space.encode([subnet]))[0]
        adds = 1 + sum(space.plans[b].has_shortcut for b in np.flatnonzero(blocks))
        assert sum(layer.closes_shortcut for layer in net.layers) == adds


@pytest.mark.parametrize(
    ("name", "on", "words"),
    [
        ("onnxruntime", "cuda", "measures processors"),
        ("torch", "tpu", "use cpu, cuda or cuda:0"),
        ("torch", "cuda:99", "torch sees"),
        ("abacus", "cpu", "unknown backend 'abacus'; known: onnxruntime, torch"),
    ],
)
def test_impossible_backends_are_refused(name, on, words):
    with pytest.raises(UserError, match=words) as caught:
        BACKENDS.get(name)(1, on)
    assert len(str(caught.value).splitlines()) == 1


def test_a_killed_measurement_continues(tmp_path):
    """A real kill -9 in the middle; the same command goes on from what was saved."""
    command = [sys.executable, "-m", "apq_moo", "lut", "measure", "--space", "digits"]
    command += ["--precision", "0.05", "-o", str(tmp_path / "mine.npz")]
    environment = os.environ | {"APQ_MOO_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
    first = subprocess.Popen(  # noqa: S603
        command, env=environment, stderr=subprocess.PIPE
    )
    partial_file = tmp_path / "mine.npz.partial"
    deadline = time.monotonic() + 60
    while not partial_file.exists() and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.02)
    if first.poll() is None:
        first.send_signal(signal.SIGKILL)
        first.wait()
        with np.load(partial_file) as data:
            saved = data["observations"]
        assert len(saved) > 100
        assert json.loads(np.load(partial_file)["header"].tobytes())["backend"] == "onnxruntime"
        second = subprocess.run(  # noqa: S603
            command, check=False, env=environment, capture_output=True, text=True
        )
        assert second.returncode == 0, second.stderr
    assert not partial_file.exists()
    table = read_table(tmp_path / "mine.npz")
    assert set(table.bit_pairs) == {(8, 8), (32, 32)}
