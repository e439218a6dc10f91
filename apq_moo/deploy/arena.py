"""Where the activations of a network lie in memory: an arena as large as its peak.

A layer's input and output lie at opposite ends. Between them lies what a shortcut will add, at the
end where the block's input was; the block's last layer writes in its place. So nothing is lost to
gaps, and the arena is what the objective ``memory`` counts (:mod:`apq_moo.hardware.peak`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from apq_moo.deploy.integers import IntegerNetwork
from apq_moo.space import Layer

IMAGE_BITS = 8
LOGIT_BITS = 32


class Tensor(NamedTuple):
    """An activation in the arena.

    Attributes:
        n_bytes: its size.
        at_top: at which end of the arena it lies.
        distance: bytes between it and that end.
    """

    n_bytes: int
    at_top: bool
    distance: int = 0


@dataclass(frozen=True)
class Arena:
    """Places of all activations.

    Attributes:
        n_bytes: its size.
        inputs: the first byte of each layer's input; of the classifier's before pooling.
        outputs: the first byte of each layer's output; that of the logits is 0.
    """

    n_bytes: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def plan_arena(network: IntegerNetwork) -> Arena:
    """Find a place for every activation of a network."""
    layers = [layer.shape for layer in network.layers]
    steps: list[tuple[Tensor, Tensor]] = []
    entering = Tensor(_bytes(layers[0].c_in * layers[0].size ** 2, IMAGE_BITS), at_top=False)
    held: Tensor | None = None
    peak = 0
    for layer, n_bytes in zip(layers, _output_bytes(layers), strict=True):
        if layer.opens_shortcut:
            held = entering
        beside = held.n_bytes if held is not None and held is not entering else 0
        if layer.closes_shortcut and held is not None:
            leaving, live = held, entering.n_bytes + beside
            held = None
        else:
            leaving = Tensor(n_bytes, not entering.at_top, beside)
            live = entering.n_bytes + beside + n_bytes
        steps.append((entering, leaving))
        entering, peak = leaving, max(peak, live)
    upside_down = entering.at_top  # the logits are to be at the bottom, which is aligned

    def first_byte(tensor: Tensor) -> int:
        above = peak - tensor.distance - tensor.n_bytes
        return above if tensor.at_top != upside_down else tensor.distance

    inputs, outputs = ([first_byte(step[i]) for step in steps] for i in (0, 1))
    return Arena(peak, tuple(inputs), tuple(outputs))


def _output_bytes(layers: Sequence[Layer]) -> list[int]:
    """Bytes of what each layer gives on."""
    found = []
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        bits = layer.between_bits
        if bits is None:
            bits = LOGIT_BITS if following is None else following.a_bits
        found.append(_bytes(layer.c_out * layer.size_out**2, bits))
    return found


def _bytes(values: int, bits: int) -> int:
    return -(-values * bits // 8)
