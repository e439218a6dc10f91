"""Running an exported C program on this machine, as a process of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apq_moo.deploy.c import filled, name_in
from apq_moo.deploy.integers import IntegerNetwork, Singles
from apq_moo.errors import UserError, shown

FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
"""What programs are compiled with."""

_LONGEST_S = 600

Pictures = NDArray[np.uint8]


def compiler_version() -> str | None:
    """What the compiler says of itself first; None where there is none."""
    try:
        command = compiler()
    except UserError:
        return None
    told = _output([*command, "--version"], b"", "run", Path(command[0])).decode(errors="replace")
    return next(iter(told.splitlines()), command[0])


def compiler() -> list[str]:
    """The C compiler of this machine: ``$CC``, or ``cc`` or ``gcc``.

    Raises:
        UserError: there is none.
    """
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [["cc"], ["gcc"]]:
        if shutil.which(command[0]) is not None:
            return command
    raise UserError(f"no C compiler is here ({named[0] if named else 'cc, gcc'}): install gcc")


def run_c(
    path: str | Path, pictures: Pictures, *, levels: bool = False, flags: Sequence[str] = ()
) -> tuple[NDArray[np.int32], Singles]:
    """Compile a program that :func:`apq_moo.deploy.c.write_c` wrote, and classify pictures.

    Args:
        path: of the ``.c`` file, its header beside it.
        pictures: bytes of shape ``(n, height, width, channels)``.
        levels: whether they are levels of the first layer's input already.
        flags: for the compiler, after :data:`FLAGS`.

    Returns:
        Classes of shape ``(n,)``, and logits of shape ``(n, classes)``.

    Raises:
        UserError: there is no compiler, the program does not compile, or it fails.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory() as folder:
        main, program = Path(folder) / "main.c", Path(folder) / "program"
        main.write_text(filled("driver.c", {}, name_in(path)), encoding="utf-8")
        build = [*compiler(), *FLAGS, *flags, f"-I{path.parent.resolve()}"]
        _output([*build, "-o", str(program), str(main), str(path.resolve())], b"", "compile", path)
        command = [str(program), *(["levels"] if levels else [])]
        content = _output(command, pictures.tobytes(), "run", path)
    rows = np.frombuffer(content, dtype=np.int32)
    if len(pictures) == 0 or rows.size % len(pictures) or rows.size < 2 * len(pictures):
        raise UserError(
            f"{path} did not classify {len(pictures)} pictures: its header is another's"
        )
    rows = rows.reshape(len(pictures), -1)
    return rows[:, 0].copy(), np.ascontiguousarray(rows[:, 1:]).view(np.float32)


def _output(command: list[str], given: bytes, what: str, path: Path) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603
            command, input=given, capture_output=True, timeout=_LONGEST_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{path} does not {what}: {shown(str(error))}") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        why = next((line for line in lines if "error" in line.lower()), f"exit {done.returncode}")
        raise UserError(
            f"{path} does not {what}: {shown(why[max(0, why.lower().find('error')) :])}"
        )
    return done.stdout


def as_bytes(images: Singles) -> Pictures:
    """Images as the bytes nearest to them, row by row, a pixel's channels side by side.

    Args:
        images: values in [0, 1], shape ``(n, channels, height, width)``.

    Returns:
        Shape ``(n, height, width, channels)``, 255 for 1.
    """
    found: Pictures = np.rint(np.clip(images, 0, 1) * np.float32(255)).astype(np.uint8)
    return np.ascontiguousarray(found.transpose(0, 2, 3, 1))


def of_bytes(pictures: Pictures) -> Singles:
    """What the bytes of :func:`as_bytes` stand for, shape ``(n, channels, height, width)``."""
    values: Singles = pictures.astype(np.float32) / np.float32(255)
    return values.transpose(0, 3, 1, 2)


def as_levels(network: IntegerNetwork, images: Singles) -> Pictures:
    """Images as levels of a network's first input, in the form of :func:`as_bytes`."""
    grid = network.layers[0].input
    levels = grid.levels(images.transpose(0, 2, 3, 1)) - np.float32(grid.low)
    return np.ascontiguousarray(levels.astype(np.uint8))
