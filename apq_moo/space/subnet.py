"""One member of a space: its active blocks and their policy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from apq_moo.errors import UserError, shown
from apq_moo.space.spec import FIELDS, ROLES


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
            raise UserError(f'a subnet is {{"space": ..., "blocks": [...]}}, not {shown(data)}')
        space, tables = data["space"], data["blocks"]
        if not isinstance(space, str):
            raise UserError(f"a subnet's space must be a name, not {shown(space)}")
        if not isinstance(tables, list):
            raise UserError(f"a subnet's blocks must be a list, not {shown(tables)}")
        keys = ("stage", *FIELDS)
        for number, table in enumerate(tables):
            if not isinstance(table, dict) or set(table) != set(keys):
                wanted = ", ".join(keys)
                raise UserError(f"blocks[{number}] must have exactly {wanted}; not {shown(table)}")
            for key, value in table.items():
                if not isinstance(value, int) or isinstance(value, bool):
                    raise UserError(
                        f"blocks[{number}].{key} must be an integer, not {shown(value)}"
                    )
        return cls(space=space, blocks=tuple(Block(**table) for table in tables))

    @property
    def mean_bits(self) -> float:
        """Mean of the four bit-widths over the active blocks."""
        bits: list[int] = [getattr(block, role) for block in self.blocks for role in ROLES]
        return sum(bits) / len(bits)
