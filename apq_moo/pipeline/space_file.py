"""The TOML file of a space that was designed, with comments, and the commands that may follow."""

from __future__ import annotations

import json
import math
import re
import shlex
import tomllib
from pathlib import Path

from apq_moo.data.folders import PREFIX, path_of, seen_from
from apq_moo.errors import UserError, shown
from apq_moo.hardware import find_cost
from apq_moo.pipeline.config import PipelineConfig
from apq_moo.pipeline.designing import Design
from apq_moo.pipeline.family import LARGE, MANY
from apq_moo.space import ROLES, Space, SpaceSpec, presets
from apq_moo.space.plan import size_behind

EPOCHS = 30
"""How often the training that is proposed sees each image, where the default is less."""

MOST_STEPS = 60_000
BATCH = 128
"""Images of a step by default; what says so in ``TrainConfig`` needs torch."""

INIT = "fashion"
"""The supernet that trainings with few images are proposed to begin with."""

_GREY = 1
_LONGEST_NAME = 64


def default_name(images: str) -> str:
    """A name for the space of an image set: that of its folder, if it is one."""
    name = Path(path_of(images)).expanduser().resolve().stem if _own(images) else images
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).lstrip("_.-")[:_LONGEST_NAME] or "mine"
    return f"my-{name}"[:_LONGEST_NAME] if name in presets() else name


def _own(images: str) -> bool:
    return images.startswith(PREFIX)


def space_text(design: Design, images: str, name: str, folder: Path) -> str:
    """The TOML file of a space.

    Args:
        design: the space.
        images: as its user named them.
        name: of the space.
        folder: where the file will lie, from which a relative path begins.

    Raises:
        UserError: the name is none for a space, or that of a preset; or a path cannot be written.
    """
    if name in presets():
        raise UserError(f"a space {name!r} ships with the package; name the file otherwise")
    text = "\n".join(
        [*_head(design, images, name, folder), *_bits(design), *_ahead(design), *_stages(design)]
    )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{shown(images)} is no text of UTF-8; give the folder another name") from (
            None
        )
    return f"{text}\n"


def read_text(text: str, path: Path) -> Space:
    """The space of a file's text, as :func:`apq_moo.space.load_space` will read it.

    Raises:
        UserError: it is no space.
    """
    return Space(SpaceSpec.from_dict(tomllib.loads(text), source=str(path), path=path))


def following(design: Design, images: str, path: Path) -> dict[str, str]:
    """Commands that may follow, filled in, with what each does.

    A pipeline's batches have a fixed size; where there are too few images for one, the stages are
    proposed instead, with smaller batches.
    """
    n, file = design.facts.train, shlex.quote(str(path))
    steps, batch = training_steps(n), BATCH
    while batch > max(1, n):
        batch //= 2
    init = f" --init {INIT}" if n < MANY else ""
    weights, samples, predictor = (
        shlex.quote(str(path.with_name(f"{path.stem}{end}")))
        for end in (".safetensors", "-samples.npz", "-predictor.safetensors")
    )
    limits = "".join(f" --max {name}={limit:g}" for name, limit in design.limits.items())
    costs = ",".join(("acc", *design.limits))
    device = shlex.quote(design.device)
    out = shlex.quote(f"runs/{path.stem}")
    commands = {}
    if _own(images):
        commands[f"apq-moo data check {shlex.quote(path_of(images))}"] = "can all be read?"
    plan = f"--steps {steps} --batch-size {batch} --gpus 1"
    commands[f"apq-moo supernet plan --space {file} {plan}"] = "how long training takes"
    given = f"--space {file} --steps {steps}{init}"
    search = f"--objectives {costs} --device {device}{limits}"
    if batch == BATCH:
        commands[f"apq-moo supernet train {given} -o {weights}"] = "the supernet; or all of it:"
        commands[f"apq-moo pipeline {given} {search} --out {out}"] = "to a verified front"
        return commands
    of = f"--space {file}"
    for command, what in (
        (f"supernet train {given} --batch-size {batch} -o {weights}", "the supernet"),
        (f"samples collect {of} --supernet {weights} -o {samples}", "what subnets are worth"),
        (f"predictor fit xgboost {of} --samples {samples} -o {predictor}", "to predict others"),
        (f"run {of} --predictor {predictor} {search} --out {out}", "a front"),
    ):
        commands[f"apq-moo {command}"] = what
    return commands


def training_steps(n: int) -> int:
    """Steps of a training on ``n`` images: :data:`EPOCHS`, at least the default's, in hundreds."""
    steps = 100 * math.ceil(EPOCHS * n / BATCH / 100)
    return max(PipelineConfig.steps, min(MOST_STEPS, steps))


def _head(design: Design, images: str, name: str, folder: Path) -> list[str]:
    facts = design.facts
    kind = "grey" if facts.channels == _GREY else "colour"
    checked = f"# {facts.validation:,} for validation"
    if _own(images):
        points = 100 * math.sqrt(0.9 * 0.1 / max(1, facts.validation))
        checked += f", by which 90 % are told from {90 + 2 * points:.3g} % (two standard errors)"
    ranges = []
    for of, (low, high) in design.ranges.items():
        unit, limit = find_cost(of).unit, design.limits[of]
        of_device = f" ({design.device})" if of in {"latency", "energy"} else ""
        wish = f"# Wished: {of} of at most {limit:g} {unit}{of_device}."
        ranges.append(f"{wish} Networks here take from about {low:.3g} to {high:.3g} {unit}.")
        if high <= limit:
            ranges.append(f"# So {of} rules out nothing.")
    return [
        f"# For {kind} images of {facts.size}x{facts.size} pixels in {facts.classes:,} classes: "
        f"{facts.train:,} to train on,",
        f"{checked}.",
        *ranges,
        "# Anything may be changed; docs/spaces.md says what each key means and allows.",
        f"name = {_quoted(name)}",
        f"images = {_quoted(seen_from(images, folder))}",
        f"input_size = {facts.size}",
        f"input_channels = {facts.channels}",
        f"classes = {facts.classes}",
        "# Middle channels of a block are multiples of this, from half to six times those of its",
        "# input: narrow blocks are what makes the smallest networks small.",
        f"channel_step = {design.member.channel_step}",
        f"expand = {_list(design.member.expand)}",
        "",
    ]


def _bits(design: Design) -> list[str]:
    of = design.member
    return [
        "# On offer in blocks: for pointwise (pw) and depthwise (dw) weights (w), activations (a).",
        "# Add 3 for smaller networks, which lose more; the device has to run what is offered.",
        "[bits]",
        *(f"{role} = {_list(of.bits[role])}" for role in ROLES),
        "# Of the layers outside the blocks, where 8 bits cost little and lose next to nothing.",
        f"fixed = {of.fixed}",
        "# Integers between blocks, as `apq-moo deploy` needs: a quarter of the memory of floats.",
        f"between = {of.between}",
        "",
    ]


def _ahead(design: Design) -> list[str]:
    of = design.member
    if of.stem_stride == 1:
        why = f"# Keeps all pixels: from {LARGE} on the stem would halve the image."
    else:
        why = f"# Halves the image, as usual from {LARGE} pixels on, where full resolution is dear."
    lines = [why, "[stem]", f"channels = {of.stem}", "kernel = 3", f"stride = {of.stem_stride}", ""]
    if of.first_block:
        lines += [
            "# A block without choices, while the maps are large.",
            "[first_block]",
            f"channels = {of.first_block}",
            "",
        ]
    return lines


def _stages(design: Design) -> list[str]:
    of = design.member
    size = size_behind(of.facts.size, of.stem_stride)
    lines = [
        f"# Widths are {of.width:g} times the usual ones, so that the budget lies within the range",
        "# above. The image is halved while at least 4x4 pixels are left, at most five times;",
        "# kernels are no wider than what a stage puts out and one pixel.",
    ]
    for width, stride, kernels in of.stages:
        behind = size_behind(size, stride)
        lines += [
            "[[stages]]",
            f"# {size}x{size} to {behind}x{behind} pixels",
            f"width = {width}",
            f"stride = {stride}",
            f"depths = {_list(of.depths)}",
            f"kernels = {_list(kernels)}",
            "",
        ]
        size = behind
    if of.feature_mix:
        lines += [
            f"# Mixes features before pooling; left out below {MANY:,} images to train on.",
            "[feature_mix]",
            f"channels = {of.feature_mix}",
            "",
        ]
    return lines[:-1]


def _list(options: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{option:g}' for option in options)}]"


def _quoted(text: str) -> str:
    """A text as TOML writes it; JSON's escapes are TOML's, but for the last control character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
