"""Commands from a front to a network that runs: ``deploy``, ``export`` and ``check``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from apq_moo.cli.app import app, check_output, progress, say
from apq_moo.cli.options import LimitOption, OnOption, parse_limits
from apq_moo.errors import UserError
from apq_moo.texts import by_commas

AssetsOption = Annotated[
    str | None, typer.Option(help="Folder made by `apq-moo pipeline`; default: shipped.")
]
SpaceOption = Annotated[
    str | None,
    typer.Option(help="The space of a policy's file; default: the preset that it names."),
]
NativeOption = Annotated[
    bool, typer.Option("--native-int4", help="In ONNX, store weights of up to 4 bits two a byte.")
]


@app.command()
def deploy(
    source: Annotated[
        str, typer.Argument(metavar="RUN|POLICY", help="A run's folder, or a policy as JSON.")
    ],
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the network, its exports and reports.")
    ],
    limit: LimitOption = None,
    knee: Annotated[bool, typer.Option("--knee", help="The knee of the front.")] = False,
    formats: Annotated[
        str, typer.Option("--format", help="Any of onnx, torch, c, qonnx, by commas.")
    ] = "onnx",
    native_int4: NativeOption = False,
    finetune_steps: Annotated[
        int,
        typer.Option(min=0, max=100_000_000, help="Of 128 images, at the network's bits; 0: none."),
    ] = 500,
    space: SpaceOption = None,
    assets: AssetsOption = None,
    on: OnOption = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier network in --out.")] = False,
) -> None:
    """Pick a network of a run, cut it out of the supernet, fine-tune, export and check it."""
    from apq_moo.deploy import TuningConfig, choose
    from apq_moo.deploy import deploy as carry_out
    from apq_moo.deploy.deploying import NETWORK

    if (folder / NETWORK).exists() and not overwrite:
        raise UserError(f"{folder / NETWORK} exists; add --overwrite to replace it")
    chosen = choose(source, parse_limits(limit or ()), knee=knee, space=space, assets=assets)
    tuning = TuningConfig(steps=finetune_steps) if finetune_steps else None
    lines: list[str] = []
    with progress("fine-tuning") if tuning else nullcontext() as tell:
        carry_out(
            chosen, folder, by_commas(formats), native_int4=native_int4, on=on,
            tuning=tuning, callback=tell, say=lines.append,
        )  # fmt: skip
    for line in lines:
        say(line)
    say(f"{folder / 'report.md'}")


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(metavar="NET|POLICY", help="A network's file, or a policy as JSON.")
    ],
    file: Annotated[
        Path,
        typer.Option("--out", "-o", help="The file: .onnx, .pt2, .c, .qonnx.onnx or .safetensors."),
    ],
    name: Annotated[
        str | None,
        typer.Option("--format", help="onnx, torch, c, qonnx or network; default: by the suffix."),
    ] = None,
    arithmetic: Annotated[
        str,
        typer.Option(help="Of ONNX: exact, or fused for integer kernels, which lose a little."),
    ] = "exact",
    native_int4: NativeOption = False,
    power_of_two: Annotated[
        bool,
        typer.Option(
            "--power-of-two", help="In QONNX, round scales to powers of two; changes the network."
        ),
    ] = False,
    equal_sums: Annotated[
        bool,
        typer.Option(
            "--equal-sums", help="In QONNX, one scale for both operands of a sum; likewise."
        ),
    ] = False,
    space: SpaceOption = None,
    assets: AssetsOption = None,
    on: OnOption = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier file.")] = False,
) -> None:
    """Write a network as ONNX, a program of torch, C, QONNX, or the package's own file."""
    from apq_moo.deploy import choose, cut_out_of_assets, load_network
    from apq_moo.deploy import export as write
    from apq_moo.deploy.exporting import FORMATS, format_of

    format_of(file, name)
    check_output("exported", file, overwrite=overwrite)
    if source.suffix == ".safetensors":
        network = load_network(source)
    else:
        chosen = choose(source, space=space, assets=assets)
        network = cut_out_of_assets(chosen.space, chosen.subnet, chosen.assets, on)
    write(
        network, file, name,
        arithmetic=arithmetic, native_int4=native_int4,
        power_of_two=power_of_two, equal_sums=equal_sums,
    )  # fmt: skip
    say(f"{file}: {file.stat().st_size:,} bytes")
    if format_of(file) is FORMATS["qonnx"]:
        from apq_moo.deploy.qonnx_reporting import export_lines

        for line in export_lines(network, power_of_two=power_of_two, equal_sums=equal_sums):
            say(line)


@app.command()
def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What export or deploy wrote, of any format.")
    ],
    images: Annotated[
        str | None, typer.Option(help="Other images than those that the network was made for.")
    ] = None,
) -> None:
    """Check an exported file: whether it is whole, how well and how fast it runs."""
    from apq_moo.deploy import check as examine

    for line in examine(file, images).lines():
        say(line)
