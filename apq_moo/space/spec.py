"""The declarative description of a search space, as read from TOML."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from apq_moo.errors import UserError
from apq_moo.files import digest_of

ROLES = ("w_pw", "a_pw", "w_dw", "a_dw")
"""Bit-width roles, in the order of the genes: weights and input activations of a block's pointwise
layers, then those of its depthwise layer."""

FIELDS = ("kernel", "channels", *ROLES)
"""What is chosen for each block, in the order of the genes."""

COMPONENTS = ("stem", "first_block", "feature_mix", "classifier")
"""The fixed layers around the searchable blocks."""

_MAX_BITS = 16


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
        name: the name of the space.
        images: the data set that its networks classify (see ``apq_moo.data``), or ``""``.
        input_size: height and width of the (square) images.
        input_channels: channels of the images.
        classes: outputs of the classifier.
        channel_step: middle channels are all multiples of this within a stage's ``expand`` range.
        bits: for each role of :data:`ROLES`, the bit-widths on offer, ascending.
        fixed_bits: bits of weights and activations of the layers outside the searchable blocks.
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
    forbidden: tuple[dict[str, tuple[int, ...]], ...] = field(default=())

    @property
    def digest(self) -> str:
        """SHA-256 of everything but the name."""
        value = {key: _plain(item) for key, item in self.__dict__.items() if key != "name"}
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


def _plain(value: Any) -> Any:
    if isinstance(value, Stage):
        return {key: _plain(item) for key, item in value.__dict__.items()}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


class _Reader:
    """Reads the tables, naming the key in every message."""

    def __init__(self, data: dict[str, Any], source: str) -> None:
        self.data = data
        self.source = source

    def fail(self, message: str) -> UserError:
        return UserError(f"{self.source}: {message}")

    def known(self, table: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
        if not isinstance(table, dict):
            raise self.fail(f"{where} must be a table, not {table!r}")
        unknown = sorted(set(table) - set(keys))
        if unknown:
            raise self.fail(f"unknown key {unknown[0]!r} in {where}; known: {', '.join(keys)}")

    def integer(
        self,
        table: dict[str, Any],
        key: str,
        where: str,
        low: int,
        high: int,
        default: int | None = None,
    ) -> int:
        value = table.get(key, default)
        if value is None:
            raise self.fail(f"{where} lacks {key!r}")
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(
                f"{where}: {key} must be an integer from {low} to {high}, not {value!r}"
            )
        return value

    def options(
        self, value: Any, where: str, low: int, high: int, *, odd: bool = False
    ) -> tuple[int, ...]:
        wanted = f"a non-empty, ascending list of {'odd ' * odd}integers from {low} to {high}"
        good = (
            isinstance(value, list)
            and len(value) > 0
            and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
            and all(low <= item <= high and (not odd or item % 2 == 1) for item in value)
            and all(a < b for a, b in pairwise(value))
        )
        if not good:
            raise self.fail(f"{where} must be {wanted}, not {value!r}")
        return tuple(value)

    def expand(self, value: Any, where: str) -> tuple[float, float]:
        good = (
            isinstance(value, list)
            and len(value) == 2
            and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)
            and 0 < value[0] <= value[1] <= 64
        )
        if not good:
            raise self.fail(f"{where} must be [smallest, largest] ratio, 0 to 64, not {value!r}")
        return (float(value[0]), float(value[1]))

    def layer(self, key: str, *, stride: int) -> tuple[int, int, int]:
        table = self.data[key]
        self.known(table, ("channels", "kernel", "stride"), f"[{key}]")
        kernel = self.integer(table, "kernel", f"[{key}]", 1, 31, 3)
        if kernel % 2 == 0:
            raise self.fail(f"[{key}]: kernel must be odd, not {kernel}")
        channels = self.integer(table, "channels", f"[{key}]", 1, 65536)
        return channels, kernel, self.integer(table, "stride", f"[{key}]", 1, 8, stride)

    def stage(self, table: Any, number: int) -> Stage:
        where = f"stage {number}"
        self.known(table, ("width", "stride", "depths", "kernels", "expand"), where)
        return Stage(
            width=self.integer(table, "width", where, 1, 65536),
            stride=self.integer(table, "stride", where, 1, 8, 1),
            depths=self.options(table.get("depths"), f"{where}: depths", 1, 64),
            kernels=self.options(
                table.get("kernels", self.data.get("kernels")), f"{where}: kernels", 1, 31, odd=True
            ),
            expand=self.expand(table.get("expand", self.data.get("expand")), f"{where}: expand"),
        )

    def rule(self, table: Any, number: int) -> dict[str, tuple[int, ...]]:
        where = f"forbidden rule {number}"
        self.known(table, FIELDS, where)
        if not table:
            raise self.fail(f"{where} is empty")
        return {
            key: self.options(
                value if isinstance(value, list) else [value], f"{where}: {key}", 1, 65536
            )
            for key, value in table.items()
        }

    def text(self, key: str, default: str | None = None) -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str) or (default is None and not value):
            raise self.fail(f"{key} must be a text, not {value!r}")
        return value

    def spec(self) -> SpaceSpec:
        data = self.data
        keys = (
            *("name", "images", "input_size", "input_channels", "classes", "kernels", "expand"),
            *("channel_step", "table_omits", "bits", "stem", "first_block", "stages"),
            *("feature_mix", "forbidden"),
        )
        self.known(data, keys, "the file")
        bits = data.get("bits", {})
        self.known(bits, (*ROLES, "fixed"), "[bits]")
        for key in ("stages", "forbidden", "table_omits"):
            if not isinstance(data.get(key, []), list):
                raise self.fail(f"{key} must be a list")
        if not data.get("stages"):
            raise self.fail("at least one [[stages]] table is needed")
        if "stem" not in data:
            raise self.fail("a [stem] table is needed")
        mix = data.get("feature_mix")
        if mix is not None:
            self.known(mix, ("channels",), "[feature_mix]")
        omits = data.get("table_omits", [])
        for name in omits:
            if name not in COMPONENTS:
                raise self.fail(f"table_omits: unknown {name!r}; known: {', '.join(COMPONENTS)}")
        return SpaceSpec(
            name=self.text("name"),
            images=self.text("images", ""),
            input_size=self.integer(data, "input_size", "the file", 1, 4096),
            input_channels=self.integer(data, "input_channels", "the file", 1, 4096),
            classes=self.integer(data, "classes", "the file", 2, 1_000_000),
            channel_step=self.integer(data, "channel_step", "the file", 1, 1024, 8),
            bits={
                role: self.options(bits.get(role), f"[bits]: {role}", 2, _MAX_BITS)
                for role in ROLES
            },
            fixed_bits=self.integer(bits, "fixed", "[bits]", 2, _MAX_BITS, 8),
            stem=self.layer("stem", stride=1),
            first_block=self.layer("first_block", stride=1) if "first_block" in data else None,
            feature_mix=(
                self.integer(mix, "channels", "[feature_mix]", 1, 65536)
                if mix is not None
                else None
            ),
            stages=tuple(self.stage(table, i + 1) for i, table in enumerate(data["stages"])),
            table_omits=tuple(omits),
            forbidden=tuple(
                self.rule(table, i + 1) for i, table in enumerate(data.get("forbidden", []))
            ),
        )
