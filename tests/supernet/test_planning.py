"""What a training would cost, against a reckoning by hand."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from apq_moo.errors import UserError
from apq_moo.space import belonging, load_space
from apq_moo.supernet import planning_figures
from apq_moo.supernet.gradients import TorchGradients
from apq_moo.supernet.planning import (
    FORMAT,
    Assumptions,
    Figures,
    phases,
    plan,
    read_figures,
    steps_of,
    students_of,
)
from apq_moo.supernet.planning_figures import measure
from apq_moo.supernet.training import TrainConfig

RECIPE = TrainConfig(steps=1000, warmup_steps=100, quantised_steps=200, batch_size=64)


@pytest.fixture(scope="module")
def figures(digits):
    """0.01 s an image in the warm-up, then 0.04, then 0.08."""
    return Figures(
        format=FORMAT, **belonging(digits), device="a GPU", kind="cuda", batch=8, measured_steps=3,
        seconds={"warm-up": 0.08, "floats": 0.32, "bits": 0.64}, recipe=students_of(RECIPE),
        memory_bytes=3 * 2**29,
    )  # fmt: skip


def test_a_plan_by_hand(figures):
    """100 x 64 x 0.01 + 700 x 64 x 0.04 + 200 x 64 x 0.08 = 2,880 s, on 4 devices of half speed."""
    found = plan(RECIPE, 6400, figures, Assumptions(4, 0.5, watts=500, pue=1.25, kg_per_kwh=0.4))
    assert found.hours == pytest.approx(0.4)
    assert found.gpu_hours == pytest.approx(1.6)
    assert found.images_per_s == pytest.approx(64000 / 1440)
    assert (found.steps, found.epochs, found.batch_size) == (1000, 10, 64)
    assert found.memory_gib == 1.5
    assert found.kwh == pytest.approx(1.0)
    assert found.co2e_kg == pytest.approx(0.4)
    assert found.co2e_kg_published == pytest.approx(1.6 * 56.72 / 200 * 0.45359237, rel=1e-6)


def test_defaults_are_those_of_the_published_rate(figures):
    """At 188 W they give what the paper's tables rest on; one device loses nothing."""
    one = plan(RECIPE, 6400, figures, Assumptions(1, 0.5, watts=188.15))
    assert one.hours == pytest.approx(0.8)
    assert one.co2e_kg == pytest.approx(one.co2e_kg_published, rel=2e-3)
    assert plan(RECIPE, 6400, figures, Assumptions()).kwh == pytest.approx(0.8 / 0.9 * 0.7 * 1.58)
    cpu = replace(figures, kind="cpu", memory_bytes=None)
    assert plan(RECIPE, 6400, cpu, Assumptions(1)).kwh == pytest.approx(0.8 * 0.15 * 1.58)
    assert plan(RECIPE, 6400, cpu, Assumptions(1)).memory_gib is None


def test_epochs_leave_out_what_fills_no_batch():
    assert steps_of(120, 1281167, 2048) == 120 * 625
    assert steps_of(0.5, 1000, 100) == 5
    with pytest.raises(UserError, match="batch_size=64 is more than the 63 training images"):
        steps_of(1, 63, 64)
    with pytest.raises(UserError, match="epochs=0 of 64 images are not one step"):
        steps_of(0, 64, 64)


def test_phases_follow_each_other():
    assert phases(RECIPE) == {
        "warm-up": range(100), "floats": range(100, 800), "bits": range(800, 1000)
    }  # fmt: skip
    assert phases(TrainConfig(steps=9, warmup_steps=0)) == {"floats": range(9)}
    both = TrainConfig(steps=9, warmup_steps=4, quantised_steps=9)
    assert phases(both) == {"warm-up": range(4), "bits": range(4, 9)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gpus": 0}, "gpus=0: at least 1"),
        ({"efficiency": 0.0}, "efficiency=0.0 must be above 0"),
        ({"pue": 0.5}, "pue=0.5"),
        ({"pue": float("nan")}, "pue=nan"),
        ({"pue": float("inf")}, "pue=inf must be a finite number, at least 1"),
        ({"watts": float("inf")}, "watts=inf must be a finite number"),
        ({"kg_per_kwh": -1.0}, "kg_per_kwh=-1.0 must be a finite number"),
    ],
)
def test_odd_assumptions_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        Assumptions(**wrong)


def test_figures_of_other_recipes_are_refused(figures, digits, tmp_path):
    path = tmp_path / "figures.json"
    path.write_text(json.dumps({"plan": {}, "figures": asdict(figures)}))
    wanted = replace(figures, space_content=json.loads(json.dumps(figures.space_content)))
    assert read_figures(path, digits, RECIPE) == wanted
    path.write_text(json.dumps(asdict(figures)))
    assert read_figures(path, digits, replace(RECIPE, steps=7000, batch_size=3)) == wanted
    with pytest.raises(UserError, match=r"other students \(random_subnets was 2, is 4\)"):
        read_figures(path, digits, replace(RECIPE, random_subnets=4))
    with pytest.raises(UserError, match="belongs to"):
        read_figures(path, load_space("fashion"), RECIPE)
    for key, value in (("batch", 0), ("kind", "tpu"), ("seconds", {"floats": 0}), ("format", "x")):
        path.write_text(json.dumps(asdict(figures) | {key: value}))
        with pytest.raises(UserError, match=rf"figures\.json: {key} must be"):
            read_figures(path, digits, RECIPE)
    with pytest.raises(UserError, match="lack the phase 'bits'; they are of floats"):
        plan(RECIPE, 6400, replace(figures, seconds={"floats": 1.0, "warm-up": 1.0}), Assumptions())


def test_each_phase_is_measured_with_its_students(digits, monkeypatch):
    """By a clock that a pass moves on by as many seconds as it has students."""
    clock, passes = [0.0], []

    class Counted(TorchGradients):
        def step(self, x, y, students, soft=None):
            clock[0] += len(students)
            passes.append(len(x))
            return super().step(x, y, students[-1:])

    monkeypatch.setattr(planning_figures, "gradients_on", lambda net, *_, **__: Counted(net))
    monkeypatch.setattr(planning_figures.time, "perf_counter", lambda: clock[0])
    found = measure(digits, RECIPE, on="cpu", gpus=4, measured_steps=2)
    # The largest; with the smallest and two random ones; and with two at their bits.
    assert found.seconds == {"warm-up": 1.0, "floats": 4.0, "bits": 6.0}
    assert (found.batch, found.kind, found.memory_bytes) == (4, "cpu", None)
    assert passes == [4] * 9
    monkeypatch.setattr(planning_figures, "CPU_BATCH", 99)
    parts = replace(RECIPE, accumulation=3)
    assert measure(digits, parts, on="cpu", gpus=4, measured_steps=1).batch == 64 // 4 // 3


def test_what_fits_is_named(digits, monkeypatch):
    class Small(TorchGradients):
        def step(self, x, y, students, soft=None):
            if len(x) > 2:
                raise torch.cuda.OutOfMemoryError
            return super().step(x, y, students, soft)

    monkeypatch.setattr(planning_figures, "gradients_on", lambda net, *_, **__: Small(net))
    with pytest.raises(UserError, match="of 4 images in one pass 2 fit; add accumulation=16 to"):
        measure(digits, replace(RECIPE, quantised_steps=0), on="cpu", gpus=2)
