"""Reading the dictionaries that the code released with APQ uses for a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apq_moo.errors import UserError
from apq_moo.space.spec import ROLES
from apq_moo.space.subnet import Block, Subnet

if TYPE_CHECKING:
    from apq_moo.space.space import BlockPlan

_BIT_KEYS = {
    "w_pw": "pw_w_bits_setting",
    "a_pw": "pw_a_bits_setting",
    "w_dw": "dw_w_bits_setting",
    "a_dw": "dw_a_bits_setting",
}


def read_released(
    data: dict[str, Any], space: str, plans: Sequence[BlockPlan], n_stages: int
) -> Subnet:
    """Turn a released dictionary into a subnet.

    Args:
        data: ``ks`` (kernels), ``e`` (expansion ratios), the four ``*_bits_setting`` lists, one
            entry for each block active or not, and ``d``, the depth of each stage.
        space: the name of the space.
        plans: its blocks.
        n_stages: its number of stages.

    Raises:
        UserError: a key is missing or a list has the wrong length or type.
    """
    lists = {}
    for key in ("ks", "e", *_BIT_KEYS.values()):
        lists[key] = _numbers(data.get(key), key, len(plans))
    depths = _numbers(data.get("d"), "d", n_stages)
    blocks = []
    for b, plan in enumerate(plans):
        if plan.position < depths[plan.stage]:
            bits = {role: int(lists[_BIT_KEYS[role]][b]) for role in ROLES}
            channels = round(lists["e"][b] * plan.c_in)
            blocks.append(Block(plan.stage, int(lists["ks"][b]), channels, **bits))
    return Subnet(space, tuple(blocks))


def _numbers(value: Any, key: str, length: int) -> list[float]:
    good = isinstance(value, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) for item in value
    )
    if not good or len(value) < length:
        raise UserError(f"a released subnet needs {key!r}: a list of {length} numbers")
    return list(value)
