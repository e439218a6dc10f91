"""The dictionaries that the code released with APQ uses for a network, read and written.

That code (https://github.com/mit-han-lab/apq, ``search.py`` and ``test.py``) keeps a network in a
file ``arch``, as a list of two dictionaries: its architecture, and its bits.
"""

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

_ARCHITECTURE = ("wid", "ks", "e", "d")

_MAX_NUMBER = 65536


def is_released(item: Any) -> bool:
    """Whether something is meant as a released dictionary, in one or in two parts."""
    if isinstance(item, list | tuple) and len(item) == 2:
        return all(isinstance(part, dict) for part in item) and "ks" in item[0]
    return isinstance(item, dict) and "ks" in item


def joined(item: Any) -> dict[str, Any]:
    """What :func:`is_released`, in one part."""
    return item if isinstance(item, dict) else {**item[1], **item[0]}


def in_two_parts(released: dict[str, Any]) -> list[dict[str, Any]]:
    """A released dictionary as the file ``arch`` holds it: the architecture, and the bits."""
    return [
        {key: released[key] for key in _ARCHITECTURE},
        {key: released[key] for key in _BIT_KEYS.values()},
    ]


def write_released(subnet: Subnet, spec: SpaceSpec, plans: Sequence[BlockPlan]) -> dict[str, Any]:
    """Turn a subnet into a released dictionary, what :func:`read_released` reads.

    Blocks beyond their stage's depth get the smallest kernel, the fewest channels and the most
    bits, as the released code gives them: it applies the rule on 7x7 kernels to these too.

    Args:
        subnet: a member of the space.
        spec: the space.
        plans: its blocks.
    """
    depths = [0] * len(spec.stages)
    for block in subnet.blocks:
        depths[block.stage] += 1
    chosen = iter(subnet.blocks)
    released: dict[str, Any] = {"wid": None, "ks": [], "e": [], "d": depths}
    released |= {key: [] for key in _BIT_KEYS.values()}
    for plan in plans:
        kernel, channels = (plan.options[name][0] for name in ("kernel", "channels"))
        bits = {role: plan.options[role][-1] for role in ROLES}
        if plan.position < depths[plan.stage]:
            block = next(chosen)
            kernel, channels = block.kernel, block.channels
            bits = {role: getattr(block, role) for role in ROLES}
        released["ks"].append(kernel)
        released["e"].append(channels / plan.c_in)
        for role, key in _BIT_KEYS.items():
            released[key].append(bits[role])
    return released


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
