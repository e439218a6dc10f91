"""Tables of what a device costs, compiled for a space and kept on disk."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.caching import cache_folder
from apq_moo.errors import UserError
from apq_moo.files import digest_of, replacing, sha256
from apq_moo.hardware import layer_set as layer_set_module
from apq_moo.hardware.devices import Device
from apq_moo.hardware.layer_set import layer_set
from apq_moo.hardware.tables import CostTable
from apq_moo.npz import read_arrays
from apq_moo.space import Space
from apq_moo.space import layout as layout_module

_Costs = tuple[float, tuple[FloatArray, ...]]
"""The fixed part, and each block's table."""


@lru_cache(maxsize=16)
def device_tables(space: Space, device: Device) -> dict[str, CostTable]:
    """All costs that a device gives, compiled for a space.

    Those of a device with a digest are kept under :func:`apq_moo.caching.cache_folder`, by the
    digests of device and space and the code that lays them out; damaged or stale files are made
    anew, and a cache that cannot be written is no error.

    Raises:
        UserError: the device cannot cost some layer of the space.
    """
    path = _cache_file(space, device)
    found = _read(path, space, list(device.units)) if path is not None else None
    if found is None:
        found = _compile(space, device)
        if path is not None:
            _write(path, space, found)
    return {
        name: CostTable(name, device.units[name], space, fixed, blocks)
        for name, (fixed, blocks) in found.items()
    }


def _compile(space: Space, device: Device) -> dict[str, _Costs]:
    layers = layer_set(space)
    needed = layers.needed()
    costs = device.layer_costs([layers.distinct[i] for i in np.flatnonzero(needed)])
    parts = device.fixed_parts(space).values()
    result = {}
    for name in device.units:
        values = np.full(len(needed), np.inf)
        values[needed] = costs[name]
        fixed = sum((part[name] for part in parts), 0.0)
        result[name] = (fixed, layers.block_tables(values))
    return result


def _cache_file(space: Space, device: Device) -> Path | None:
    if device.digest is None:
        return None
    code = [sha256(path) for path in (__file__, layer_set_module.__file__, layout_module.__file__)]
    key = digest_of([device.digest, space.digest, code])
    try:
        return cache_folder() / "tables" / f"{key[:32]}.npz"
    except UserError:
        return None


def _write(path: Path, space: Space, found: dict[str, _Costs]) -> None:
    arrays = {
        name: np.append(space.layout.table(blocks), fixed)
        for name, (fixed, blocks) in found.items()
    }
    try:
        with replacing(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **arrays)  # type: ignore[arg-type]
    except UserError:
        return


def _read(path: Path, space: Space, names: list[str]) -> dict[str, _Costs] | None:
    try:
        arrays = read_arrays(path, dict.fromkeys(names, ("f", 1)))
    except UserError:
        return None
    shape = (space.layout.length + 1,)
    if any(a.shape != shape or a.dtype != np.float64 for a in arrays.values()):
        return None
    return {
        name: (float(a[-1]), tuple(part[:-1] for part in space.layout.split(a[:-1])))
        for name, a in arrays.items()
    }
