"""Finding devices: the shipped accelerators, plug-ins, and users' own files."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from apq_moo.errors import UserError, shown
from apq_moo.hardware.accelerator import load_accelerator, machines, shipped_accelerator
from apq_moo.hardware.devices import ArrayDevice, Device
from apq_moo.hardware.layer_table import TableDevice
from apq_moo.hardware.table_files import SUFFIXES, read_table
from apq_moo.registry import Registry

DEVICES: Registry[Callable[[], Device]] = Registry("device")
"""Makers of devices by name; they take no arguments. The shipped ones are accelerators."""


def _make_shipped(name: str) -> Device:
    return ArrayDevice(shipped_accelerator(name))


for _name in machines():
    DEVICES.register(_name, partial(_make_shipped, _name))

MISSING = ("error", "infeasible")
"""What may come of a layer that a table lacks."""


@cache
def _named(name: str) -> Device:
    make = DEVICES.get(name)
    try:
        return make()
    except UserError:
        raise
    except Exception as error:  # whatever a plug-in's code does
        raise UserError(
            f"device {name!r} cannot be made: {type(error).__name__}: {error}; repair its plug-in"
        ) from error


def is_device_file(device: str | Path) -> bool:
    """Whether a device is given as a file, rather than by name."""
    return str(device) not in DEVICES and Path(device).suffix in {".toml", *SUFFIXES}


def find_device(device: str | Path | Device, *, missing: str = "error") -> Device:
    """Find a device.

    Args:
        device: the name of one of :data:`DEVICES`; the path of an accelerator (``.toml``) or of a
            table of layer costs (``.json``, ``.npz``, ``.parquet``); or a device, returned as it
            is.
        missing: what comes of a layer that a table lacks: ``error``, or ``infeasible``.

    Raises:
        UserError: there is none, or its file is malformed.
    """
    if isinstance(device, Device):
        return device
    if missing not in MISSING:
        raise UserError(f"missing must be {' or '.join(MISSING)}, not {shown(missing)}")
    if not is_device_file(device):
        if str(device) not in DEVICES:
            raise UserError(
                f"unknown device {shown(str(device))}; known: {', '.join(DEVICES)}, or the path "
                f"of a file that ends in {', '.join(('.toml', *SUFFIXES))}"
            )
        return _named(str(device))
    if Path(device).suffix == ".toml":
        return ArrayDevice(load_accelerator(device))
    return TableDevice(read_table(device), str(device), missing=missing)
