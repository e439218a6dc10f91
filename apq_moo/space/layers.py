"""The layers of a network, as cost models, supernets and exporters see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer at given bits, and how it stands in the network.

    Attributes:
        component: ``stem``, ``first_block``, ``block``, ``feature_mix`` or ``classifier``.
        c_in: input channels.
        c_out: output channels.
        size: height and width of the input.
        kernel: kernel size.
        stride: stride.
        groups: 1, or ``c_in`` for a depthwise layer.
        w_bits: bits of the weights.
        a_bits: bits of the input activation.
        bias: whether it has a bias (the classifier) in place of a batch norm behind it.
        block: its searchable block, from 0; None outside these.
        place: ``expand``, ``depthwise`` or ``project``, within a block or the first block; else
            empty.
        activation: ``relu6``, or None where none follows.
        opens_shortcut: whether its input is kept, to be added where the shortcut closes.
        closes_shortcut: whether what was kept is added to its output.
        between_bits: in which its output is stored between blocks: 8 for integers, 16 or 32 for
            floats; None where the output stays within one, and of the classifier.
        signed: whether its input has both signs: it does not behind a ReLU6, and images do not.
    """

    component: str
    c_in: int
    c_out: int
    size: int
    kernel: int
    stride: int
    groups: int
    w_bits: int
    a_bits: int
    bias: bool = False
    block: int | None = None
    place: str = ""
    activation: Literal["relu6"] | None = "relu6"
    opens_shortcut: bool = False
    closes_shortcut: bool = False
    between_bits: int | None = None
    signed: bool = False

    @property
    def part(self) -> str:
        """The part of the network that it belongs to, such as ``stem`` or ``block3``."""
        return self.component if self.block is None else f"block{self.block}"

    @property
    def name(self) -> str:
        """Where it stands, such as ``stem``, ``block3.expand`` or ``classifier``."""
        return f"{self.part}.{self.place}" if self.place else self.part

    @property
    def leaves_block(self) -> bool:
        """Whether its output is stored between blocks."""
        return self.between_bits is not None

    @property
    def padding(self) -> int:
        """Zero padding on each side ("same" for odd kernels)."""
        return (self.kernel - 1) // 2

    @property
    def size_out(self) -> int:
        """Height and width of the output."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        per_output = self.kernel**2 * (self.c_in // self.groups)
        return per_output * self.c_out * self.size_out**2

    @property
    def weights(self) -> int:
        """Weights, without bias and batch norm."""
        return self.kernel**2 * (self.c_in // self.groups) * self.c_out

    @property
    def key(self) -> str:
        """Its name in the published table's format.

        >>> Layer("block", 96, 456, 14, 1, 1, 1, 4, 4).key
        '(96, 456, 14, 1, 1, 0, 1)-W4A4'
        """
        shape = (
            self.c_in,
            self.c_out,
            self.size,
            self.kernel,
            self.stride,
            self.padding,
            self.groups,
        )
        return f"{shape}-W{self.w_bits}A{self.a_bits}"
