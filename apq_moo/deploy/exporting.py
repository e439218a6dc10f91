"""Writing a network in any format, by name, and reading back what was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from apq_moo.deploy.integers import IntegerNetwork
from apq_moo.deploy.storage import load_network, save_network
from apq_moo.errors import UserError, shown
from apq_moo.space import Subnet


@dataclass(frozen=True)
class Options:
    """How a network is written; other formats than ONNX and QONNX have no options.

    Attributes:
        arithmetic: ``exact`` or ``fused``, see :func:`apq_moo.deploy.onnx_files.onnx_model`.
        native_int4: whether weights of up to 4 bits are stored two a byte, in ONNX.
        power_of_two: whether activations get other steps, in QONNX, which changes what is
            computed; see :func:`apq_moo.deploy.steps.power_of_two`.
        equal_sums: likewise, see :func:`apq_moo.deploy.steps.equal_sums`.
    """

    arithmetic: str = "exact"
    native_int4: bool = False
    power_of_two: bool = False
    equal_sums: bool = False


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        suffix: of its files.
        save: writes a network.
        policy: the policy that a file shows, read from its graph or tables.
    """

    suffix: str
    save: Callable[[Path, IntegerNetwork, Options], None]
    policy: Callable[[Path], Subnet]


def _save_onnx(path: Path, network: IntegerNetwork, options: Options) -> None:
    from apq_moo.deploy.onnx_files import arithmetic_of, save_onnx

    save_onnx(path, network, arithmetic_of(options.arithmetic), native_int4=options.native_int4)


def _onnx_policy(path: Path) -> Subnet:
    from apq_moo.deploy.onnx_files import load_onnx
    from apq_moo.deploy.readback import onnx_policy

    return onnx_policy(load_onnx(path))


def _save_qonnx(path: Path, network: IntegerNetwork, options: Options) -> None:
    from apq_moo.deploy.qonnx_files import save_qonnx
    from apq_moo.deploy.steps import changed

    save_qonnx(
        path,
        changed(network, powers=options.power_of_two, sums=options.equal_sums),
    )


def _qonnx_policy(path: Path) -> Subnet:
    from apq_moo.deploy.qonnx_files import load_qonnx, qonnx_policy

    return qonnx_policy(load_qonnx(path))


def _save_torch(path: Path, network: IntegerNetwork, _options: Options) -> None:
    from apq_moo.deploy.torch_program import save_torch

    save_torch(path, network)


def _torch_policy(path: Path) -> Subnet:
    from apq_moo.deploy.torch_program import load_torch, torch_policy

    return torch_policy(load_torch(path))


def _save_c(path: Path, network: IntegerNetwork, _options: Options) -> None:
    from apq_moo.deploy.c import write_c

    write_c(network, path)


def _c_policy(path: Path) -> Subnet:
    from apq_moo.deploy.c_reading import read_c

    return read_c(path).subnet


FORMATS = {
    "network": Format(
        ".safetensors",
        lambda path, network, _options: save_network(path, network),
        lambda path: load_network(path).subnet,
    ),
    "onnx": Format(".onnx", _save_onnx, _onnx_policy),
    "torch": Format(".pt2", _save_torch, _torch_policy),
    "c": Format(".c", _save_c, _c_policy),
    "qonnx": Format(".qonnx.onnx", _save_qonnx, _qonnx_policy),
}
"""What networks are written as, by name; ``network`` is the package's own."""


def format_of(path: str | Path, name: str | None = None) -> Format:
    """The format of a name, or else of a file's suffix.

    Raises:
        UserError: there is none, or the suffix is that of another one.
    """
    known = {of.suffix: key for key, of in FORMATS.items()}
    fitting = [suffix for suffix in known if Path(path).name.lower().endswith(suffix)]
    suffix = max(fitting, key=len, default="")
    if name is None and not suffix:
        raise UserError(f"{path}: no format is known by this suffix; known: {', '.join(known)}")
    name = known[suffix] if name is None else name
    if name not in FORMATS:
        raise UserError(f"format={shown(name)}: known are {', '.join(FORMATS)}")
    if suffix != FORMATS[name].suffix:
        raise UserError(f"{path}: files of format {name!r} end in {FORMATS[name].suffix}")
    return FORMATS[name]


def export(
    network: IntegerNetwork,
    path: str | Path,
    format: str | None = None,  # noqa: A002
    *,
    arithmetic: str = "exact",
    native_int4: bool = False,
    power_of_two: bool = False,
    equal_sums: bool = False,
) -> None:
    """Write a network, atomically.

    Args:
        network: any.
        path: the file.
        format: of :data:`FORMATS`; by default that of the file's suffix.
        arithmetic: see :class:`Options`.
        native_int4: likewise.
        power_of_two: likewise.
        equal_sums: likewise.

    Raises:
        UserError: no such format; an option is not one of its; the network is none that it can
            hold; or the file cannot be written.
    """
    found = format_of(path, format)
    if found is not FORMATS["onnx"] and (arithmetic, native_int4) != ("exact", False):
        raise UserError(f"{path}: only ONNX has arithmetic={arithmetic}, or 4-bit integers")
    if found is not FORMATS["qonnx"] and (power_of_two or equal_sums):
        option = "power_of_two=True" if power_of_two else "equal_sums=True"
        raise UserError(f"{path}: {option} is for QONNX alone, since it changes a network")
    options = Options(arithmetic, native_int4, power_of_two, equal_sums)
    found.save(Path(path), network, options)
