"""The declarative description of a search space, as read from TOML."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from apq_moo.errors import shown
from apq_moo.files import digest_of
from apq_moo.reading import TableReader, is_integer

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

_KEYS = (
    *("name", "images", "input_size", "input_channels", "classes", "channel_step", "kernels"),
    *("expand", "bits", "stem", "first_block", "stages", "feature_mix", "table_omits", "forbidden"),
    "part_of",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


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

    width: int
    stride: int
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expand: tuple[float, float]


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
        between_bits: bits of the floats between blocks, from which the next block's first quantiser
            and the residual sum read: 32, or 16 (half precision), as accelerators store them.
        stem: ``(channels, kernel, stride)`` of the first convolution.
        first_block: ``(channels, kernel, stride)`` of a fixed block without expansion, or None.
        feature_mix: channels of the 1x1 convolution before pooling, or None.
        stages: the searchable stages.
        table_omits: components of :data:`COMPONENTS` that a device's latency and energy leave out.
        forbidden: rules; a block that matches every field of one is not a member of the space.
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

    @property
    def digest(self) -> str:
        """SHA-256 of everything but the name."""
        value = asdict(self)
        del value["name"]
        if self.between_bits == FLOAT_BITS:  # as before there was a choice
            del value["between_bits"]
        if not self.part_of:
            del value["part_of"]
        return digest_of(value)

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, source: str = "space") -> SpaceSpec:
        """Check and build a description from parsed TOML.

        Args:
            data: the tables of the file; presets in ``apq_moo/space/presets`` are examples.
            source: how messages name it.

        Raises:
            UserError: a key is missing, unknown, of the wrong type or out of range.
        """
        return _Reader(data, source).spec()


class _Reader(TableReader):
    """Reads the tables of a space's file."""

    def __init__(self, data: Any, source: str) -> None:
        super().__init__(source)
        self.data = self.table(data, _KEYS, "the file")

    def items(self, key: str) -> list[Any]:
        if not isinstance(self.data.get(key, []), list):
            raise self.wrong(self.data, key, "", "a list")
        return list(self.data.get(key, []))

    def kernel(self, table: dict[str, Any], where: str) -> int:
        kernel = self.integer(table, "kernel", where, 1, _MAX_KERNEL, 3)
        if kernel % 2 == 0:
            raise self.wrong(table, "kernel", where, "odd")
        return kernel

    def options(
        self, table: dict[str, Any], key: str, where: str, low: int, high: int
    ) -> tuple[int, ...]:
        value = table.get(key)
        if (
            not isinstance(value, list)
            or not value
            or not all(is_integer(item, low, high) for item in value)
            or any(a >= b for a, b in pairwise(value))
        ):
            wanted = f"a non-empty, ascending list of integers from {low} to {high}"
            raise self.wrong(table, key, where, wanted)
        return tuple(value)

    def bits(self, table: dict[str, Any], key: str) -> tuple[int, ...]:
        options = self.options(table, key, "bits.", 2, FLOAT_BITS)
        if any(_MAX_BITS < item < FLOAT_BITS for item in options):
            wanted = f"a list of 2 to {_MAX_BITS}, or {FLOAT_BITS} for floating point"
            raise self.wrong(table, key, "bits.", wanted)
        return options

    def fixed_bits(self, table: dict[str, Any]) -> int:
        if table.get("fixed") == FLOAT_BITS:
            return FLOAT_BITS
        return self.integer(table, "fixed", "bits.", 2, _MAX_BITS, 8)

    def between_bits(self, table: dict[str, Any]) -> int:
        value = table.get("between", FLOAT_BITS)
        if not isinstance(value, int) or value not in (16, FLOAT_BITS):
            raise self.wrong(table, "between", "bits.", f"16 or {FLOAT_BITS}")
        return value

    def kernels(self, table: dict[str, Any], where: str) -> tuple[int, ...]:
        kernels = self.options(table, "kernels", where, 1, _MAX_KERNEL)
        if any(kernel % 2 == 0 for kernel in kernels):
            raise self.wrong(table, "kernels", where, "a list of odd integers")
        return kernels

    def expand(self, table: dict[str, Any], where: str) -> tuple[float, float]:
        value = table.get("expand")
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not all(isinstance(item, int | float) for item in value)
            or any(isinstance(item, bool) for item in value)
            or not 0 < value[0] <= value[1] <= _MAX_EXPAND
        ):
            wanted = f"[smallest, largest] ratio, above 0 and at most {_MAX_EXPAND}"
            raise self.wrong(table, "expand", where, wanted)
        return float(value[0]), float(value[1])

    def layer(self, key: str) -> tuple[int, int, int]:
        table = self.table(self.data[key], ("channels", "kernel", "stride"), f"[{key}]")
        return (
            self.integer(table, "channels", f"{key}.", 1, _MAX_CHANNELS),
            self.kernel(table, f"{key}."),
            self.integer(table, "stride", f"{key}.", 1, _MAX_STRIDE, 1),
        )

    def feature_mix(self) -> int:
        table = self.table(self.data["feature_mix"], ("channels",), "[feature_mix]")
        return self.integer(table, "channels", "feature_mix.", 1, _MAX_CHANNELS)

    def stage(self, number: int, value: Any) -> Stage:
        where = f"stages[{number}]"
        table = self.table(value, ("width", "stride", "depths", "kernels", "expand"), where)
        shared = {key: self.data[key] for key in ("kernels", "expand") if key in self.data}
        table = shared | table
        where += "."
        return Stage(
            width=self.integer(table, "width", where, 1, _MAX_CHANNELS),
            stride=self.integer(table, "stride", where, 1, _MAX_STRIDE, 1),
            depths=self.options(table, "depths", where, 1, _MAX_DEPTH),
            kernels=self.kernels(table, where),
            expand=self.expand(table, where),
        )

    def rule(self, number: int, value: Any) -> dict[str, tuple[int, ...]]:
        where = f"forbidden[{number}]"
        table = self.table(value, FIELDS, where)
        if not table:
            raise self.fail(f"{where} is empty: name at least one of {', '.join(FIELDS)}")
        lists = {key: item if isinstance(item, list) else [item] for key, item in table.items()}
        return {key: self.options(lists, key, f"{where}.", 1, _MAX_CHANNELS) for key in lists}

    def name(self) -> str:
        value = self.data.get("name")
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            wanted = "up to 64 letters, digits, '_', '-' and '.', beginning with a letter or digit"
            raise self.wrong(self.data, "name", "", wanted)
        return value

    def images(self) -> str:
        value = self.data.get("images", "")
        if not isinstance(value, str):
            raise self.wrong(self.data, "images", "", "a text")
        return value

    def part_of(self) -> str:
        value = self.data.get("part_of", "")
        if not isinstance(value, str):
            raise self.wrong(self.data, "part_of", "", "the name of a space or a TOML file")
        return value

    def table_omits(self) -> tuple[str, ...]:
        omits = self.items("table_omits")
        unknown = [name for name in omits if name not in COMPONENTS]
        if unknown:
            known = ", ".join(COMPONENTS)
            raise self.fail(f"table_omits: unknown {shown(unknown[0])}; known: {known}")
        return tuple(name for name in COMPONENTS if name in omits)

    def spec(self) -> SpaceSpec:
        data = self.data
        if "stem" not in data:
            raise self.fail("a [stem] table is needed")
        if not self.items("stages"):
            raise self.fail("stages: at least one [[stages]] table is needed")
        bits = self.table(data.get("bits", {}), (*ROLES, "fixed", "between"), "[bits]")
        return SpaceSpec(
            name=self.name(),
            images=self.images(),
            input_size=self.integer(data, "input_size", "", 1, _MAX_SIZE),
            input_channels=self.integer(data, "input_channels", "", 1, _MAX_CHANNELS),
            classes=self.integer(data, "classes", "", 2, _MAX_CLASSES),
            channel_step=self.integer(data, "channel_step", "", 1, _MAX_CHANNELS, 8),
            bits={role: self.bits(bits, role) for role in ROLES},
            fixed_bits=self.fixed_bits(bits),
            between_bits=self.between_bits(bits),
            stem=self.layer("stem"),
            first_block=self.layer("first_block") if "first_block" in data else None,
            feature_mix=self.feature_mix() if "feature_mix" in data else None,
            stages=tuple(self.stage(i, item) for i, item in enumerate(self.items("stages"))),
            part_of=self.part_of(),
            table_omits=self.table_omits(),
            forbidden=tuple(self.rule(i, item) for i, item in enumerate(self.items("forbidden"))),
        )
