"""The layers of a network, as cost models see them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer at given bits.

    Attributes:
        name: where it stands, such as ``stem``, ``block3.expand`` or ``classifier``.
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
    """

    name: str
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

        >>> Layer("expand", "block", 96, 456, 14, 1, 1, 1, 4, 4).key
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
