"""Reading what options were given, and naming them where the library names its arguments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Annotated

import typer

from apq_moo.cli.app import err, say
from apq_moo.defaults import MAX_SEED
from apq_moo.errors import UserError
from apq_moo.texts import by_commas

OnOption = Annotated[
    str | None,
    typer.Option(
        "--on", help="Where torch measures: cpu, cuda or cuda:1; default: a GPU if there is one."
    ),
]

DeviceOption = Annotated[
    str, typer.Option(help="The cost model: a name, or an accelerator's or table's file.")
]
MissingOption = Annotated[
    str, typer.Option(help="Layers that a table lacks: error, or infeasible.")
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option("--max", metavar="NAME=VALUE", help="Upper limit (acc: a lower one)."),
]
START_HELP = "The networks a search begins with: sizes (small to large), or uniform."
WarmupOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        show_default="500, at most a sixth of --steps",
        help="Of these, first ones for the largest subnet alone.",
    ),
]
InitOption = Annotated[
    str | None,
    typer.Option(
        metavar="PRESET|FILE",
        show_default="random weights",
        help="Begin with the weights of a supernet that ships, or of a safetensors file.",
    ),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
StreamOption = Annotated[
    bool,
    typer.Option(
        "--stream", help="Leave your own images in their files, however few; many always are."
    ),
]
SkipOption = Annotated[
    bool,
    typer.Option("--skip-unreadable", help="Leave out your own images that cannot be read."),
]

SpaceOption = Annotated[str, typer.Option(help="A preset or a TOML file.")]
DrawOption = Annotated[
    str, typer.Option(help="How random subnets are drawn: `uniform`, or `sizes`: of all sizes.")
]
SeedOption = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of everything random.")]

_OPTIONS = {
    **{name: f"--{name}" for name in ("assets", "backend", "budget", "jobs", "missing", "most")},
    **{name: f"--{name}" for name in ("on", "overwrite", "predictor", "scheduler", "seed")},
    **{name: f"--{name}" for name in ("inner", "measure", "samples", "seeds", "start", "sweep")},
    "accumulation": "--accumulate",
    "arithmetic": "--arithmetic",
    "batch_size": "--batch-size",
    "format": "--format",
    "genotypes": "--genotypes",
    "init": "--init",
    "verify": "--verify",
    "limits": "--max",
    "n": "--end-to-end",
    "part": "--part",
    "pop_size": "--pop-size",
    "pue": "--pue",
    "power_of_two": "--power-of-two",
    "efficiency": "--efficiency",
    "epochs": "--epochs",
    "equal_sums": "--equal-sums",
    "row": "--breakdown",
    "skip_unreadable": "--skip-unreadable",
    "steps": "--steps",
    "stop_after": "--stop-after",
    "targets": "--targets",
    "stream": "--stream",
    "watts": "--watts",
    "warmup_steps": "--warmup-steps",
}
"""The option that stands for an argument of the library."""

_QUOTE = "'"
_ARGUMENT = re.compile(rf"\b({'|'.join(_OPTIONS)})=('[^']*'|[^\s,:;]+)")
_OPENING = re.compile(r"\b(?:RunFolder|Store)\.open\('([^']*)'\)")


def as_options(message: str) -> str:
    """A message of the library, whose arguments stand as in a call, for the command line.

    >>> as_options("lower budget=20 or add overwrite=True")
    'lower --budget 20 or add --overwrite'
    >>> as_options("continue it with RunFolder.open('runs/my run')")
    "continue it with --resume 'runs/my run'"
    """

    def option(match: re.Match[str]) -> str:
        name, value = match.groups()
        return _OPTIONS[name] + ("" if value == "True" else f" {shlex.quote(value.strip(_QUOTE))}")

    message = _OPENING.sub(lambda match: f"--resume {shlex.quote(match[1])}", message)
    return _ARGUMENT.sub(option, message)


def measuring_device(on: str | None) -> str:
    """Where to measure; a GPU that was not asked for is named on the error stream.

    Raises:
        UserError: there is no such device.
    """
    from apq_moo.supernet.devices import chosen_device

    device = str(chosen_device(on))
    if on is None and device != "cpu":
        say(f"measuring on {device}; --on cpu does not", err)
    return device


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers by commas.

    Raises:
        UserError: a part is none.
    """
    try:
        return tuple(int(part) for part in by_commas(text))
    except ValueError:
        raise UserError(f"{option} {text!r}: write whole numbers by commas") from None


def parse_limits(texts: Iterable[str]) -> dict[str, float]:
    """Read ``NAME=VALUE`` limits.

    Raises:
        UserError: one is malformed, not a finite number, or given twice.
    """
    limits: dict[str, float] = {}
    for name, number in each_limit(texts):
        if name in limits:
            raise UserError(f"--max {name} is given twice")
        limits[name] = number
    return limits


def each_limit(texts: Iterable[str]) -> list[tuple[str, float]]:
    """Read ``NAME=VALUE`` limits, perhaps several of one name.

    Raises:
        UserError: one is malformed, or not a finite number.
    """
    limits = []
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not equals or not name or not abs(number) < float("inf"):
            raise UserError(
                f"--max {text!r}: write NAME=VALUE with a finite number, such as latency=0.2"
            )
        limits.append((name, number))
    return limits
