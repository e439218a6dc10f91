"""One member of a space: its active blocks and their policy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from apq_moo.errors import UserError
from apq_moo.space.spec import FIELDS


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
        if not isinstance(data, dict) or set(data) != {"space", "blocks"}:
            raise UserError('a subnet is {"space": ..., "blocks": [...]}; got other keys')
        if not isinstance(data["blocks"], list):
            raise UserError("a subnet's blocks must be a list")
        keys = {"stage", *FIELDS}
        blocks = []
        for number, block in enumerate(data["blocks"]):
            if not isinstance(block, dict) or set(block) != keys:
                wanted = ", ".join(("stage", *FIELDS))
                raise UserError(f"block {number} of the subnet must have exactly: {wanted}")
            for key, value in block.items():
                if not isinstance(value, int) or isinstance(value, bool):
                    raise UserError(f"block {number}: {key} must be an integer, not {value!r}")
            blocks.append(Block(**block))
        return cls(space=str(data["space"]), blocks=tuple(blocks))

    @property
    def mean_bits(self) -> float:
        """Mean of the four bit-widths over the active blocks."""
        bits = [
            b for block in self.blocks for b in (block.w_pw, block.a_pw, block.w_dw, block.a_dw)
        ]
        return sum(bits) / len(bits)
