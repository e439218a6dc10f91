"""The declarative description of a search space, as read from TOML."""

from __future__ import annotations

import re
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from apq_moo.errors import UserError, shown
from apq_moo.files import digest_of
from apq_moo.reading import Must, ascending, integer, read

ROLES = ("w_pw", "a_pw", "w_dw", "a_dw")
"""Bit-width roles, in the order of the genes: weights and input activations of a block's pointwise
layers, then those of its depthwise layer."""

FIELDS = ("kernel", "channels", *ROLES)
"""What is chosen for each block, in the order of the genes."""

COMPONENTS = ("stem", "first_block", "feature_mix", "classifier")
"""The fixed layers around the searchable blocks."""

_MAX_BITS = 16
FLOAT_BITS = 32
"""Bits that stand for floating point, not quantised."""

_MAX_CHANNELS = 65536
_MAX_CLASSES = 1_000_000
_MAX_DEPTH = 64
_MAX_EXPAND = 64
_MAX_KERNEL = 31
_MAX_SIZE = 4096
_MAX_STRIDE = 8

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_Channels = Annotated[int, integer(1, _MAX_CHANNELS)]
_Stride = Annotated[int, integer(1, _MAX_STRIDE)]
_Kernel = Annotated[int, integer(1, _MAX_KERNEL), Must("odd", lambda kernel: kernel % 2 == 1)]
_Kernels = Annotated[
    tuple[int, ...],
    ascending(1, _MAX_KERNEL),
    Must("a list of odd integers", lambda kernels: all(kernel % 2 for kernel in kernels)),
]
_Options = Annotated[
    tuple[int, ...],
    ascending(2, FLOAT_BITS),
    Must(
        f"a list of 2 to {_MAX_BITS}, or {FLOAT_BITS} for floating point",
        lambda options: all(not _MAX_BITS < bits < FLOAT_BITS for bits in options),
    ),
]
_FixedBits = Annotated[
    int,
    Must(
        f"an integer from 2 to {_MAX_BITS}",
        lambda bits: type(bits) is int and (2 <= bits <= _MAX_BITS or bits == FLOAT_BITS),
    ),
]
_BetweenBits = Annotated[
    int,
    Must(f"8, 16 or {FLOAT_BITS}", lambda bits: type(bits) is int and bits in (8, 16, FLOAT_BITS)),
]
_Ratios = Annotated[
    tuple[float, float],
    Must(
        f"[smallest, largest] ratio, above 0 and at most {_MAX_EXPAND}",
        lambda pair: (
            isinstance(pair, list)
            and len(pair) == 2
            and all(type(ratio) in (int, float) for ratio in pair)
            and 0 < pair[0] <= pair[1] <= _MAX_EXPAND
        ),
    ),
]
_Choice = Annotated[tuple[int, ...], ascending(1, _MAX_CHANNELS)]
_PartOf = Annotated[
    str, Must("the name of a space or a TOML file", lambda name: isinstance(name, str))
]
_Folder = Annotated[
    str,
    Must(
        "the whole path of a folder",
        lambda path: isinstance(path, str) and Path(path).is_absolute(),
    ),
]
_Name = Annotated[
    str,
    Must(
        "up to 64 letters, digits, '_', '-' and '.', beginning with a letter or digit",
        lambda name: isinstance(name, str) and _NAME.fullmatch(name) is not None,
    ),
]


@dataclass(frozen=True)
class Stage:
    """One stage of inverted-bottleneck blocks.

    Attributes:
        width: output channels of every block.
        stride: stride of the first block; the others have stride 1.
        depths: how many blocks may be active, ascending.
        kernels: depthwise kernel sizes, ascending, odd.
        expand: smallest and largest ratio of middle channels to a block's input width.
    """

    width: _Channels
    stride: _Stride
    depths: Annotated[tuple[int, ...], ascending(1, _MAX_DEPTH)]
    kernels: _Kernels
    expand: _Ratios


@dataclass(frozen=True)
class _Layer:
    channels: _Channels
    kernel: _Kernel = 3
    stride: _Stride = 1


@dataclass(frozen=True)
class _Mix:
    channels: _Channels


@dataclass(frozen=True)
class _Bits:
    w_pw: _Options
    a_pw: _Options
    w_dw: _Options
    a_dw: _Options
    fixed: _FixedBits = 8
    between: _BetweenBits = FLOAT_BITS


@dataclass(frozen=True)
class _Rule:
    kernel: _Choice = ()
    channels: _Choice = ()
    w_pw: _Choice = ()
    a_pw: _Choice = ()
    w_dw: _Choice = ()
    a_dw: _Choice = ()


@dataclass(frozen=True, kw_only=True)
class _File:
    """A space's file; stages take ``kernels`` and ``expand`` from it where they have none."""

    name: _Name
    input_size: Annotated[int, integer(1, _MAX_SIZE)]
    input_channels: _Channels
    classes: Annotated[int, integer(2, _MAX_CLASSES)]
    bits: _Bits
    stem: _Layer
    stages: tuple[Stage, ...] = ()
    images: str = ""
    channel_step: _Channels = 8
    kernels: Any = None
    expand: Any = None
    first_block: _Layer | None = None
    feature_mix: _Mix | None = None
    table_omits: tuple[Any, ...] = ()
    forbidden: tuple[_Rule, ...] = ()
    part_of: _PartOf = ""
    relative_to: _Folder = ""


@dataclass(frozen=True)
class SpaceSpec:
    """A search space as data. Equal specs have equal digests.

    Attributes:
        name: the name of the space, fit for a folder: letters, digits, ``_``, ``-`` and ``.``.
        images: the data set that its networks classify (see ``apq_moo.data``), or ``""``.
        input_size: height and width of the (square) images.
        input_channels: channels of the images.
        classes: outputs of the classifier.
        channel_step: middle channels are all multiples of this within a stage's ``expand`` range.
        bits: for each role of :data:`ROLES`, the bit-widths on offer, ascending; 32 is floating
            point.
        fixed_bits: bits of weights and activations of the layers outside the searchable blocks.
        part_of: the space that every network of this one is a member of too, whose supernet they
            share; or ``""``.
        between_bits: what is stored between blocks, from where the next block's first quantiser and
            shortcuts read: floats of 32 or 16 bits, or, in networks at their bits, integers of 8.
        stem: ``(channels, kernel, stride)`` of the first convolution.
        first_block: ``(channels, kernel, stride)`` of a fixed block without expansion, or None.
        feature_mix: channels of the 1x1 convolution before pooling, or None.
        stages: the searchable stages.
        table_omits: components of :data:`COMPONENTS` that a device's latency and energy leave out.
        forbidden: rules; a block that matches every field of one is not a member of the space.
        file: where it was read from, as it was named; or ``""``. No part of what it is.
        relative_to: the folder from which relative paths in ``images`` and ``part_of`` begin, by
            default that of the file. No part of what it is.
    """

    name: str
    images: str
    input_size: int
    input_channels: int
    classes: int
    channel_step: int
    bits: dict[str, tuple[int, ...]]
    fixed_bits: int
    stem: tuple[int, int, int]
    first_block: tuple[int, int, int] | None
    feature_mix: int | None
    stages: tuple[Stage, ...]
    table_omits: tuple[str, ...] = ()
    forbidden: tuple[dict[str, tuple[int, ...]], ...] = ()
    between_bits: int = FLOAT_BITS
    part_of: str = ""
    file: str = field(default="", compare=False)
    relative_to: str = field(default="", compare=False)

    @property
    def content(self) -> dict[str, Any]:
        """Everything but the name and where it lies, fit for JSON."""
        value = asdict(self)
        for name in ("name", "file", "relative_to"):
            del value[name]
        if self.between_bits == FLOAT_BITS:  # as before there was a choice
            del value["between_bits"]
        if not self.part_of:
            del value["part_of"]
        return value

    @property
    def digest(self) -> str:
        """SHA-256 of :attr:`content`."""
        return digest_of(self.content)

    @classmethod
    def from_dict(
        cls, data: dict[str, Any], *, source: str = "space", path: Path | None = None
    ) -> SpaceSpec:
        """Check and build a description from parsed TOML.

        Args:
            data: the tables of the file; presets in ``apq_moo/space/presets`` are examples.
            source: how messages name it.
            path: of the file, where it is a user's.

        Raises:
            UserError: a key is missing, unknown, of the wrong type or out of range.
        """
        file = read(_File, _completed(data), source)
        if not file.stages:
            raise UserError(f"{source}: stages: at least one [[stages]] table is needed")
        if _Rule() in file.forbidden:
            where = f"forbidden[{file.forbidden.index(_Rule())}]"
            raise UserError(f"{source}: {where} is empty: name at least one of {', '.join(FIELDS)}")
        for omitted in file.table_omits:
            if omitted not in COMPONENTS:
                known = ", ".join(COMPONENTS)
                raise UserError(f"{source}: table_omits: unknown {shown(omitted)}; known: {known}")
        first, mix = file.first_block, file.feature_mix
        place = "" if path is None else str(path.parent.resolve())
        return cls(
            name=file.name,
            images=file.images,
            input_size=file.input_size,
            input_channels=file.input_channels,
            classes=file.classes,
            channel_step=file.channel_step,
            bits={role: getattr(file.bits, role) for role in ROLES},
            fixed_bits=file.bits.fixed,
            between_bits=file.bits.between,
            stem=astuple(file.stem),
            first_block=None if first is None else astuple(first),
            feature_mix=None if mix is None else mix.channels,
            stages=file.stages,
            part_of=file.part_of,
            file="" if path is None else str(path),
            relative_to=file.relative_to or place,
            table_omits=tuple(name for name in COMPONENTS if name in file.table_omits),
            forbidden=tuple(
                {name: options for name, options in vars(rule).items() if options}
                for rule in file.forbidden
            ),
        )


def _completed(data: Any) -> Any:
    """The tables of a file, with what stages share in each, and single options as lists."""
    if not isinstance(data, dict):
        return data
    shared = {"stride": 1} | {key: data[key] for key in ("kernels", "expand") if key in data}
    completed = {"bits": {}, **data}
    for key, complete in (("stages", shared.__or__), ("forbidden", _listed)):
        if isinstance(data.get(key), list):
            completed[key] = [complete(x) if isinstance(x, dict) else x for x in data[key]]
    return completed


def _listed(rule: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, list) else [value] for name, value in rule.items()}
