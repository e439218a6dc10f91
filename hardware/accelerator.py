"""Accelerators as data: array, memories and energy constants of a BitFusion-like machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Accelerator:
    """A bit-flexible systolic array with three SRAMs and a DRAM interface.

    The defaults are the machine behind APQ's published hardware table. Capacities are the usable
    halves of double-buffered memories.

    Attributes:
        name: its name.
        rows: rows of the array (the reduction axis), at the widest operands.
        columns: columns of the array (the output-channel axis).
        activation_bits: capacity of the activation SRAM.
        weight_bits: capacity of the weight SRAM.
        output_bits: capacity of the output SRAM.
        dram_bits: DRAM interface, bits a cycle.
        clock_khz: clock; cycles divided by it are milliseconds.
        accumulator_bits: width of outputs and partial sums, in DRAM too.
        core_nj: energy of a compute cycle of the whole array.
        static_nj: energy of any cycle.
        dram_nj: of a bit moved from or to DRAM.
        weight_read_nj: of a bit read from weight SRAM.
        weight_write_nj: of a bit written to it.
        activation_read_nj: of a bit read from activation SRAM.
        activation_write_nj: of a bit written to it.
        output_nj: of a bit read once and written once in output SRAM.
    """

    name: str
    rows: int = 16
    columns: int = 32
    activation_bits: int = 131_072
    weight_bits: int = 262_144
    output_bits: int = 65_536
    dram_bits: int = 192
    clock_khz: float = 500_000.0
    accumulator_bits: int = 32
    core_nj: float = 0.4766518
    static_nj: float = 0.433014704
    dram_nj: float = 0.015
    weight_read_nj: float = 0.000683701 / 32
    weight_write_nj: float = 0.000925317 / 32
    activation_read_nj: float = 0.00190318 / 32
    activation_write_nj: float = 0.00363853 / 32
    output_nj: float = 0.002960047 / 32

    widest_bits = 8
    """Widest operand."""

    def operand_bits(self, bits: NDArray[np.int64]) -> NDArray[np.int64]:
        """Width that operands of given bits take on chip: 2, 4 or 8."""
        return np.where(bits <= 2, 2, np.where(bits <= 4, 4, 8))

    def parallelism(self, w: NDArray[np.int64], a: NDArray[np.int64]) -> NDArray[np.int64]:
        """Products a processing element makes at once, for weight and activation bits."""
        factor: NDArray[np.int64] = (8 // self.operand_bits(w)) * (8 // self.operand_bits(a))
        return factor


BITFUSION = Accelerator("bitfusion")
"""The accelerator of APQ's published table: BitFusion (Sharma et al., ISCA 2018), 16x32."""
