"""One member of a space: its active blocks and their policy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from apq_moo.reading import read
from apq_moo.space.spec import ROLES


@dataclass(frozen=True)
class Block:
    """One active inverted-bottleneck block.

    Attributes:
        stage: its stage, from 0.
        kernel: depthwise kernel size.
        channels: middle (expanded) channels.
        w_pw: bits of the pointwise weights (both 1x1 layers).
        a_pw: bits of the pointwise layers' input activations.
        w_dw: bits of the depthwise weights.
        a_dw: bits of the depthwise layer's input activation.
    """

    stage: int
    kernel: int
    channels: int
    w_pw: int
    a_pw: int
    w_dw: int
    a_dw: int


@dataclass(frozen=True)
class Subnet:
    """A network of a space: the active blocks, in order."""

    space: str
    blocks: tuple[Block, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: ``{"space": ..., "blocks": [{"stage": 0, "kernel": 3, ...}, ...]}``."""
        return {"space": self.space, "blocks": [asdict(block) for block in self.blocks]}

    @classmethod
    def from_dict(cls, data: Any) -> Subnet:
        """Read the JSON form.

        Raises:
            UserError: a key is missing, unknown or not an integer.
        """
        return read(cls, data, "a subnet", "its JSON")

    @property
    def mean_bits(self) -> float:
        """Mean of the four bit-widths over the active blocks."""
        bits: list[int] = [getattr(block, role) for block in self.blocks for role in ROLES]
        return sum(bits) / len(bits) if bits else 0.0
