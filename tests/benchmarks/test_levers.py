"""Supernets trained with one lever each."""

import json
from dataclasses import replace

import numpy as np
import pytest

from apq_moo.benchmarks.experiments import levers
from apq_moo.data import load_images
from apq_moo.errors import UserError
from apq_moo.space import load_space


def test_levers_are_settings():
    config = levers.recipe(9600, 1024, 0)
    assert (config.warmup_steps, config.quantised_steps, config.ramp_steps) == (960, 2400, 200)
    known = levers.levers(config)
    assert not known["none"]
    assert known["half at bits"] == {"quantised_steps": 4800}
    assert all(replace(config, **changes) != config for changes in list(known.values())[1:])


def test_the_same_subnets_are_measured_at_all_bits_that_there_are():
    space = load_space("fashion")
    sets = levers.measured(space, 5, 0)
    assert len(sets) == 2 * 4 + 2 * 5
    for kind in ("sizes", "uniform"):
        rows, quantised = sets[f"{kind}, full precision"]
        random, at_random = sets[f"{kind}, random bits"]
        assert (quantised, at_random) == (False, True)
        assert np.array_equal(rows, random)
        for bits in (8, 4, 3):
            alike, quantised = sets[f"{kind}, {bits} bits"]
            assert quantised
            assert np.array_equal(space.architecture(alike), space.architecture(rows))
            assert {subnet.mean_bits for subnet in space.decode(alike)} == {bits}
    assert levers.at_bits(space, space.largest()[None], 5) is None


@pytest.fixture
def few_images(monkeypatch):
    whole = load_images("digits")
    splits = ("calibration", "validation", "test", "test_clean")
    parts = {name: whole.split(name) for name in splits}
    few = {name: part[:100] for name, part in parts.items()}
    monkeypatch.setattr(levers, "load_images", lambda _: replace(whole, **few))


def test_an_interrupted_run_goes_on(tmp_path, capsys, few_images):
    out = tmp_path / "levers.json"
    arguments = ["--space", "digits", "--out", str(out), "--steps", "6", "--batch", "16"]
    arguments += ["--subnets", "1"]
    levers.main([*arguments, "--levers", "none"])
    first = json.loads(out.read_text())["levers"]
    levers.main([*arguments, "--levers", "none,alpha and average"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[1]
    assert lines[2].startswith("alpha and average (")
    both = json.loads(out.read_text())["levers"]
    assert both["none"] == first["none"]
    a, b = (both[name]["accuracies"] for name in ("none", "alpha and average"))
    assert a.keys() == b.keys()
    assert a != b
    assert f"{a['largest, full precision']['validation']:.2f} full precision" in lines[0]
    assert not list(tmp_path.glob("*.training"))
    with pytest.raises(UserError, match="other settings"):
        levers.main([*arguments, "--seed", "1"])
    with pytest.raises(UserError, match="unknown lever 'beta'"):
        levers.main([*arguments, "--levers", "beta"])
