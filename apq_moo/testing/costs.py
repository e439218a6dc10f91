"""What every device promises."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from apq_moo.arrays import FloatArray
from apq_moo.hardware import QUANTITIES, ArrayDevice, Device, cost_names, feasible_options
from apq_moo.hardware.accelerator import machines, shipped_accelerator
from apq_moo.hardware.compiled import device_tables
from apq_moo.hardware.layer_set import layer_set
from apq_moo.hardware.tables import random_networks
from apq_moo.problems import APQProblem
from apq_moo.space import Layer, Space
from apq_moo.testing.checks import Suite, missing

DeviceFactory: TypeAlias = Callable[[], Device]
"""Makes the device, as what is registered in :data:`apq_moo.hardware.DEVICES` does."""

_WIDE = 64
"""Bits that most devices do not run."""


class CostModelConformance(Suite):
    """Checks of a device: subclass it and override ``make``.

    Fixtures:
        make: a :data:`DeviceFactory`; has to be overridden.
        device: the device; by default ``make()``.
        others: devices that are not this one, to compare digests with; by default the shipped ones.
            Add some of the same class with other settings.
        space: a space that the device can run; by default the preset ``digits``.
    """

    @pytest.fixture
    def make(self) -> DeviceFactory:
        """Makes the device."""
        raise missing("make")

    @pytest.fixture
    def device(self, make: DeviceFactory) -> Device:
        """The device."""
        return make()

    @pytest.fixture
    def others(self) -> Sequence[Device]:
        """Other devices."""
        return shipped_devices()

    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Compiled tables are not kept."""
        monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))

    def test_names_and_units(self, device: Device) -> None:
        """A name, and costs with units: the package's own, where it knows the cost."""
        assert isinstance(device.name, str)
        assert len(device.name.splitlines()) == 1, f"the name {device.name!r} is not one line"
        assert device.units, "the device gives no costs"
        for name, unit in device.units.items():
            assert name, "a cost has no name"
            assert isinstance(unit, str), f"the unit of {name} is {unit!r}, not text"
            assert unit, f"the unit of {name} is empty"
            known = QUANTITIES.get(name).unit if name in QUANTITIES else unit
            assert unit == known, f"{name} is in {unit}; everywhere else it is in {known}"

    def test_layers_have_costs(self, device: Device, space: Space) -> None:
        """For each unit one number for each layer: not negative, finite or inf, some finite."""
        layers = _layers(space)
        for name, values in _costs(device, layers).items():
            assert np.isfinite(values).any(), f"no layer of {space.name!r} has a finite {name}"

    def test_no_layers_have_no_costs(self, device: Device) -> None:
        """Empty arrays."""
        _costs(device, [])

    def test_equal_layers_cost_the_same(self, device: Device, space: Space) -> None:
        """Also elsewhere in a network, alone, and among other layers."""
        layers = _layers(space)
        together = _costs(device, layers)
        moved = _costs(device, [replace(layer, block=0, place="elsewhere") for layer in layers])
        chosen = np.random.default_rng(0).permutation(len(layers))[:20]
        for name, values in together.items():
            assert (moved[name] == values).all(), f"{name} depends on the place of a layer"
            for i in chosen:
                twice = _costs(device, [layers[i], layers[i]])[name]
                assert (twice == values[i]).all(), f"{name} of {layers[i].key} depends on others"

    def test_the_order_of_layers_does_not_matter(self, device: Device, space: Space) -> None:
        """Bit by bit."""
        layers = _layers(space)
        order = np.random.default_rng(0).permutation(len(layers))
        together = _costs(device, layers)
        shuffled = _costs(device, [layers[i] for i in order])
        for name, values in together.items():
            assert (shuffled[name] == values[order]).all(), f"{name} depends on the order"

    def test_a_digest_tells_devices_apart(
        self, make: DeviceFactory, others: Sequence[Device], space: Space
    ) -> None:
        """Stable, the same for a device made again, and another one where costs differ."""
        device = make()
        digest = device.digest
        if digest is None:
            pytest.skip("the device has no digest, so its tables are not kept")
        assert re.fullmatch("[0-9a-f]{64}", digest), f"the digest {digest!r} is no SHA-256"
        layers = _layers(space)
        costs = _costs(device, layers)
        assert device.digest == digest, "the digest changes with use"
        assert make().digest == digest, "made again, the device has another digest"
        for other in others:
            different = _differ(costs, _costs(other, layers))
            assert other.digest != digest or not different, (
                f"{other.name} costs something else, but has the same digest"
            )

    def test_compiled_tables_are_sums_of_layers(self, device: Device, space: Space) -> None:
        """For random networks: its layers and the fixed parts, added up one by one."""
        _costs(device, _layers(space))
        tables = device_tables(space, device)
        assert set(tables) == set(device.units)
        parts = device.fixed_parts(space)
        for part, values in parts.items():
            finite = all(np.isfinite(values[name]) for name in device.units)
            assert finite, f"the fixed part {part} cannot run; give a space that the device runs"
        feasible = feasible_options(space, list(tables.values()))
        X = random_networks(space, feasible, 40, np.random.default_rng(0))
        assert len(X), f"the device can run no network of {space.name!r}"
        compiled = {name: table(X) for name, table in tables.items()}
        for row, subnet in enumerate(space.decode(X)):
            layers = [layer for layer in space.layers(subnet) if layer.component == "block"]
            costs = _costs(device, layers)
            for name, totals in compiled.items():
                plain = costs[name].sum() + sum(part[name] for part in parts.values())
                assert np.isclose(totals[row], plain, rtol=1e-9, atol=0), (
                    f"{name} of network {row} is {totals[row]}, its layers sum up to {plain}"
                )

    def test_bits_that_it_does_not_run_are_infeasible(self, device: Device, space: Space) -> None:
        """Wide bits beside the space's own are costed or infeasible; searches go on without."""
        bits = {role: (*options, _WIDE) for role, options in space.spec.bits.items()}
        wide = Space(replace(space.spec, name="wide", bits=bits))
        layers = _layers(wide)
        costs = _costs(device, layers)
        names = [name for name in device.units if name in cost_names()]
        if not names:
            pytest.skip("no cost of this device is an objective")
        runs = np.all([np.isfinite(costs[name]) for name in names], axis=0)
        problem = APQProblem(wide, names, device=device)
        rng = np.random.default_rng(0)
        X = np.vstack([wide.sample(100, rng), problem.region.sample(20, rng)])
        F, G = problem.evaluate(X, return_values_of=["F", "G"])
        assert np.isfinite(F).all()
        assert np.isfinite(G).all()
        assert (G[-20:] <= 0).all(), "networks of the feasible region break a constraint"
        known = dict(zip((layer.key for layer in layers), runs, strict=True))
        for row, subnet in enumerate(wide.decode(X)):
            blocks = [layer for layer in wide.layers(subnet) if layer.component == "block"]
            able = all(known[layer.key] for layer in blocks)
            assert able == (G[row] <= 0).all(), f"network {row} is feasible iff its layers run"


def shipped_devices() -> list[Device]:
    """The devices that come with the package, without plug-ins."""
    return [ArrayDevice(shipped_accelerator(name)) for name in machines()]


def _layers(space: Space) -> list[Layer]:
    """Every distinct layer of a space's blocks that no rule forbids."""
    found = layer_set(space)
    return [found.distinct[i] for i in np.flatnonzero(found.needed())]


def _costs(device: Device, layers: Sequence[Layer]) -> dict[str, FloatArray]:
    """What a device answers, checked.

    Raises:
        AssertionError: it fails, a cost is missing, or a value is no cost.
    """
    try:
        answer = device.layer_costs(layers)
    except Exception as error:
        raise AssertionError(
            f"layer_costs fails, {error!r}; layers that cannot run cost inf"
        ) from error
    assert isinstance(answer, Mapping), f"layer_costs returns {type(answer).__name__}"
    costs = {}
    for name in device.units:
        assert name in answer, f"layer_costs does not give {name}"
        values = np.asarray(answer[name])
        assert values.shape == (len(layers),), (
            f"{name} has shape {values.shape} for {len(layers)} layers"
        )
        assert values.dtype == np.float64, f"{name} has dtype {values.dtype}, not float64"
        bad = np.flatnonzero(~(values >= 0))
        assert not len(bad), f"{layers[bad[0]].key} has {name} {values[bad[0]]}"
        costs[name] = values
    return costs


def _differ(a: Mapping[str, FloatArray], b: Mapping[str, FloatArray]) -> bool:
    """Whether two devices' costs of the same layers differ anywhere."""
    return set(a) != set(b) or any((a[name] != b[name]).any() for name in a)
