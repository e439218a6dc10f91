"""Reading the dictionaries that the code released with APQ uses for a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apq_moo.errors import UserError, shown
from apq_moo.space.plan import BlockPlan
from apq_moo.space.spec import ROLES, SpaceSpec
from apq_moo.space.subnet import Block, Subnet

_BIT_KEYS = {
    "w_pw": "pw_w_bits_setting",
    "a_pw": "pw_a_bits_setting",
    "w_dw": "dw_w_bits_setting",
    "a_dw": "dw_a_bits_setting",
}

_MAX_NUMBER = 65536


def read_released(data: dict[str, Any], spec: SpaceSpec, plans: Sequence[BlockPlan]) -> Subnet:
    """Turn a released dictionary into a subnet.

    Args:
        data: ``ks`` (kernels), ``e`` (expansion ratios), the four ``*_bits_setting`` lists, one
            entry for each block active or not, and ``d``, the depth of each stage (meaningless
            where a stage offers one depth only).
        spec: the space.
        plans: its blocks.

    Raises:
        UserError: a key is missing, a list has the wrong length or type, or a depth is not offered.
    """
    n_blocks = len(plans)
    ratios = _numbers(data, "e", n_blocks)
    kernels = _integers(data, "ks", n_blocks)
    bits = {role: _integers(data, key, n_blocks) for role, key in _BIT_KEYS.items()}
    depths = _integers(data, "d", len(spec.stages))
    for number, stage in enumerate(spec.stages):
        if len(stage.depths) == 1:
            depths[number] = stage.depths[0]
        elif depths[number] not in stage.depths:
            raise UserError(
                f"a released subnet's d[{number}] must be one of "
                f"{', '.join(map(str, stage.depths))}, not {shown(depths[number])}"
            )
    blocks = []
    for b, plan in enumerate(plans):
        if plan.position < depths[plan.stage]:
            channels = round(ratios[b] * plan.c_in)
            policy = {role: bits[role][b] for role in ROLES}
            blocks.append(Block(plan.stage, kernels[b], channels, **policy))
    return Subnet(spec.name, tuple(blocks))


def _numbers(data: dict[str, Any], key: str, length: int) -> list[float]:
    value = data.get(key)
    good = (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)
        and all(0 <= item <= _MAX_NUMBER for item in value)
    )
    if not good:
        raise UserError(
            f"a released subnet needs {key!r}: a list of {length} numbers from 0 to "
            f"{_MAX_NUMBER}, not {shown(value)}"
        )
    return list(value)  # type: ignore[arg-type]


def _integers(data: dict[str, Any], key: str, length: int) -> list[int]:
    value = _numbers(data, key, length)
    if any(item != int(item) for item in value):
        raise UserError(f"a released subnet's {key!r} must hold integers, not {shown(value)}")
    return [int(item) for item in value]
