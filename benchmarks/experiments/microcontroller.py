"""What do a front's networks take on a microcontroller?

Run as ``python -m apq_moo.benchmarks.experiments.microcontroller RUN --out FILE``, where ``RUN`` is
a folder of ``apq-moo run`` on a space whose supernet is shipped (or ``--space`` and ``--supernet``
name others that its networks are members of). Members of the front, evenly
spaced by ``size``, are written as C, cross-compiled for a Cortex-M4 with a floating-point unit and
run by QEMU on Arm's MPS2 board, with test images as bytes. Their classes and logits must be those
of the integer network. It needs Debian's packages ``gcc-arm-none-eabi``,
``libnewlib-arm-none-eabi`` and ``qemu-system-arm``.

QEMU counts instructions, not cycles: its clock advances by 32 ns an instruction, and a timer of the
board, at 25 MHz, is read before and after each image.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.data import Split, images_of, load_images
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.deploy import IntegerNetwork, cut_out, execute
from apq_moo.deploy.c import c_source, write_c
from apq_moo.deploy.c_program import Pictures, as_bytes, of_bytes
from apq_moo.errors import UserError, reported
from apq_moo.files import write_json
from apq_moo.hardware import cost_table, minimised
from apq_moo.results.pick import read_archive
from apq_moo.space import Subnet, load_space
from apq_moo.study.folder import RunFolder
from apq_moo.supernet.checkpoint import load_supernet

COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
PROCESSOR = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")

_MACHINE = (
    *("-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none"),
    *("-semihosting-config", "enable=on,target=native", "-icount", "shift=5,sleep=off"),
)
_INSTRUCTIONS_A_TICK = 40 / 2**5
"""Of nanoseconds; ``shift`` gives those of an instruction."""

_LONGEST_S = 900


@dataclass(frozen=True)
class Emulated:
    """A program on the board.

    Attributes:
        classes: shape ``(n,)``.
        logits: shape ``(n, classes)``.
        instructions: of each image, shape ``(n,)``.
        flash_bytes: code, tables and weights, the board's own code left out.
        arena_bytes: memory that is taken for good.
        stack_bytes: most that was used of the stack.
    """

    classes: NDArray[np.int32]
    logits: NDArray[np.float32]
    instructions: NDArray[np.float64]
    flash_bytes: int
    arena_bytes: int
    stack_bytes: int


def missing() -> list[str]:
    """The tools that are not here."""
    return [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]


def emulate(network: IntegerNetwork, pictures: Pictures, optimise: str = "-O2") -> Emulated:
    """Classify pictures by a network's C program on an emulated Cortex-M4.

    Args:
        network: any whose program fits into 4 MiB.
        pictures: bytes of shape ``(n, height, width, channels)``.
        optimise: the compiler's option.

    Raises:
        UserError: a tool is not here, or fails.
    """
    lacking = missing()
    if lacking:
        raise UserError(f"{' and '.join(lacking)} not here: install Debian's packages of that name")
    with tempfile.TemporaryDirectory() as place, as_file(_shipped("board.ld")) as script:
        folder = Path(place)
        write_c(network, folder / "net.c")
        (folder / "board.c").write_text(_shipped("board.c").read_text(encoding="utf-8"))
        (folder / "pictures.bin").write_bytes(pictures.tobytes())
        sections = ("-ffreestanding", "-ffunction-sections", "-fdata-sections")
        build = [COMPILER, *PROCESSOR, *WARNINGS, optimise, *sections]
        for name in ("net", "board"):
            _run([*build, "-c", f"{name}.c", "-o", f"{name}.o"], folder)
        linking = ["-nostartfiles", "-T", str(script), "-Wl,--gc-sections"]
        _run([*build, *linking, "board.o", "net.o", "-o", "firmware"], folder)
        _run([EMULATOR, *_MACHINE, "-kernel", "firmware"], folder)
        text, data, bss = _sizes("firmware", folder)
        found = np.fromfile(folder / "found.bin", dtype=np.uint32)
        rows = found[:-1].reshape(len(pictures), 2 + len(network.classes))
        return Emulated(
            rows[:, 0].astype(np.int32),
            np.ascontiguousarray(rows[:, 2:]).view(np.float32),
            rows[:, 1].astype(np.float64) * _INSTRUCTIONS_A_TICK,
            text + data - _sizes("board.o", folder)[0],
            bss + data,
            int(found[-1]),
        )


def _shipped(name: str) -> Any:
    return files("apq_moo.benchmarks.experiments") / name


def _sizes(name: str, folder: Path) -> list[int]:
    """Bytes of code and constants, of variables with values, and of others."""
    printed = _run(["arm-none-eabi-size", name], folder)
    return [int(size) for size in printed.splitlines()[1].split()[:3]]


def _run(command: Sequence[str], folder: Path) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            list(command),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} did not end within {_LONGEST_S} s") from None
    if done.returncode:
        why = re.sub(r"\s+", " ", done.stderr)[:200]
        raise UserError(f"{command[0]} failed with {done.returncode}: {why}")
    return done.stdout


def members(folder: RunFolder, n: int) -> list[tuple[Subnet, dict[str, float]]]:
    """Networks of a run's front, evenly spaced by their size, with the run's objectives."""
    space, front = load_space(folder.at_hand.space), read_archive(folder).front()
    order = np.argsort(cost_table(space, "size")(front.genotypes), kind="stable")
    chosen = order[_spread(len(order), n)]
    objectives = folder.config.objectives
    values = minimised(objectives, front.F[chosen]).tolist()
    named = [dict(zip(objectives, row, strict=True)) for row in values]
    return list(zip(space.decode(front.genotypes[chosen]), named, strict=True))


def measure(network: IntegerNetwork, test: Split, n_images: int) -> dict[str, Any]:
    """What a network takes on the board, and how many images, as bytes, it classifies rightly.

    Args:
        network: any.
        test: images.
        n_images: how many of these run on the board.

    Raises:
        UserError: its classes or logits there are not those of the integer network.
    """
    pictures = as_bytes(test.images)
    logits = execute(network, of_bytes(pictures))
    chosen = _spread(len(test), n_images)
    found = emulate(network, pictures[chosen])
    same = np.array_equal(found.logits, logits[chosen])
    if not same or not np.array_equal(found.classes, logits[chosen].argmax(1)):
        raise UserError("the logits on the board are not the network's")
    return {
        "right": float(100 * np.mean(logits.argmax(1) == test.labels)),
        "images": len(test),
        "images_on_board": len(chosen),
        "between_bits": network.between_bits,
        "macs": sum(layer.shape.macs for layer in network.layers),
        "weight_bytes": c_source(network).weight_bytes,
        "flash_bytes": found.flash_bytes,
        "arena_bytes": found.arena_bytes,
        "stack_bytes": found.stack_bytes,
        "instructions": float(found.instructions.mean()),
    }


def _spread(n: int, some: int) -> NDArray[np.intp]:
    """Some of ``n`` numbers, from the first to the last."""
    return np.linspace(0, n - 1, min(some, n)).round().astype(np.intp)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a table of what :func:`measure` gave."""
    lines = [
        "| right | MACs | weights | flash | arena | stack | instructions |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sizes = (row[f"{name}_bytes"] for name in ("weight", "flash", "arena", "stack"))
        cells = [f"{row['right']:.2f} %", f"{row['macs'] / 1e6:.3f} M"]
        cells += [f"{size / 1024:.2f} KiB" for size in sizes]
        cells.append(f"{row['instructions'] / 1e6:.2f} M")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Measure members of a front, and print rows of the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("run", type=Path, help="a folder of apq-moo run")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--images", type=int, default=100, help="how many run on the board")
    parser.add_argument("--test", type=int, default=3600, help="how many tell what is right")
    parser.add_argument("--space", help="instead of the run's")
    parser.add_argument("--supernet", type=Path, help="a file; default: shipped")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    folder = RunFolder.open(args.run)
    space = load_space(args.space or folder.at_hand.space)
    images = load_images(images_of(space))
    supernet, _ = load_supernet(args.supernet or find_assets(space).path(SUPERNET), space)
    some = _spread(len(images.test), args.test)
    test = images.test[some]
    rows = []
    for subnet, values in members(folder, args.members):
        found = measure(cut_out(supernet, subnet, images), test, args.images)
        rows.append({"objectives": values, **found, "subnet": subnet.to_dict()})
        print(table(rows)[-1], flush=True)
    write_json(args.out, {"config": asdict(folder.config), "tools": tools(), "members": rows})


def tools() -> dict[str, str]:
    """First lines of what the tools say of their versions."""
    here = Path()
    return {name: _run([name, "--version"], here).splitlines()[0] for name in (COMPILER, EMULATOR)}


if __name__ == "__main__":
    with reported():
        main()
