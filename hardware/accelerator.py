"""Accelerators as data: array, memories and energy constants of a BitFusion-like machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.files import read_toml, shipped_toml
from apq_moo.reading import Must, ascending, integer, number, read

PRECISIONS = (2, 4, 8, 16)
"""Operand widths that an array can be built for, in bits."""

_BITS_PER_HALF_KIB = 4096

_LINE = Must("one line of text", lambda text: isinstance(text, str) and text.isprintable())
_SHORT = Must("at most 500 letters long", lambda text: len(text) <= 500)
_WIDTHS = Must(
    f"a non-empty, ascending list of {', '.join(map(str, PRECISIONS))}",
    lambda widths: ascending(2, 16).holds(widths) and set(widths) <= set(PRECISIONS),
)
_Capacity = Annotated[float, number(1 / 64, 2**20)]
_Energy = Annotated[
    float, number(0, 1e6), Must("0 or at least 1e-30", lambda value: value == 0 or value >= 1e-30)
]


@dataclass(frozen=True)
class _Memory:
    activation_kib: _Capacity
    weight_kib: _Capacity
    output_kib: _Capacity
    dram_bits_per_cycle: Annotated[int, integer(1, 65_536)]


@dataclass(frozen=True)
class _Energies:
    core_cycle: _Energy
    static_cycle: _Energy
    dram_bit: _Energy
    weight_read_bit: _Energy
    weight_write_bit: _Energy
    activation_read_bit: _Energy
    activation_write_bit: _Energy
    output_bit: _Energy


@dataclass(frozen=True, kw_only=True)
class _File:
    name: Annotated[str, _LINE, _SHORT, Must("one line of text", bool)]
    description: Annotated[str, _LINE, _SHORT] = ""
    rows: Annotated[int, integer(1, 4096)]
    columns: Annotated[int, integer(1, 4096)]
    precisions: Annotated[tuple[int, ...], _WIDTHS]
    accumulator_bits: Annotated[int, integer(8, 64)]
    clock_mhz: Annotated[float, number(0.001, 100_000)]
    memory: _Memory
    energy_nj: _Energies


@dataclass(frozen=True)
class Accelerator:
    """A bit-flexible systolic array with three double-buffered SRAMs and a DRAM interface.

    Attributes:
        name: its name.
        description: one line.
        rows: rows of the array (the reduction axis), at the widest operands.
        columns: columns of the array (the output-channel axis).
        precisions: operand widths on chip, ascending; operands of other widths take the next wider.
        accumulator_bits: width of outputs and partial sums, in DRAM too.
        clock_khz: clock; cycles divided by it are milliseconds.
        activation_bits: usable capacity of the activation SRAM, half of the whole.
        weight_bits: usable capacity of the weight SRAM.
        output_bits: usable capacity of the output SRAM.
        dram_bits: DRAM interface, bits a cycle.
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
    description: str
    rows: int
    columns: int
    precisions: tuple[int, ...]
    accumulator_bits: int
    clock_khz: float
    activation_bits: int
    weight_bits: int
    output_bits: int
    dram_bits: int
    core_nj: float
    static_nj: float
    dram_nj: float
    weight_read_nj: float
    weight_write_nj: float
    activation_read_nj: float
    activation_write_nj: float
    output_nj: float

    @property
    def widest_bits(self) -> int:
        """Widest operand."""
        return self.precisions[-1]

    def operand_bits(self, bits: NDArray[np.int64]) -> NDArray[np.int64]:
        """Width that operands take on chip; they must be no wider than :attr:`widest_bits`."""
        widths = np.array(self.precisions, dtype=np.int64)
        taken: NDArray[np.int64] = widths[np.searchsorted(widths, bits)]
        return taken

    def parallelism(self, w: NDArray[np.int64], a: NDArray[np.int64]) -> NDArray[np.int64]:
        """Products a processing element makes at once, for weight and activation bits."""
        widest = self.widest_bits
        factor: NDArray[np.int64] = (widest // self.operand_bits(w)) * (
            widest // self.operand_bits(a)
        )
        return factor

    @classmethod
    def from_dict(cls, data: Any, *, source: str = "accelerator") -> Accelerator:
        """Check and build a description from parsed TOML.

        Args:
            data: the tables of the file; those in ``hardware/machines`` are examples.
            source: how messages name it.

        Raises:
            UserError: a key is missing, unknown, of the wrong type or out of range.
        """
        file = read(_File, data, source)
        memory, energy = file.memory, file.energy_nj
        return cls(
            name=file.name,
            description=file.description,
            rows=file.rows,
            columns=file.columns,
            precisions=file.precisions,
            accumulator_bits=file.accumulator_bits,
            clock_khz=1000 * file.clock_mhz,
            activation_bits=int(memory.activation_kib * _BITS_PER_HALF_KIB),
            weight_bits=int(memory.weight_kib * _BITS_PER_HALF_KIB),
            output_bits=int(memory.output_kib * _BITS_PER_HALF_KIB),
            dram_bits=memory.dram_bits_per_cycle,
            core_nj=energy.core_cycle,
            static_nj=energy.static_cycle,
            dram_nj=energy.dram_bit,
            weight_read_nj=energy.weight_read_bit,
            weight_write_nj=energy.weight_write_bit,
            activation_read_nj=energy.activation_read_bit,
            activation_write_nj=energy.activation_write_bit,
            output_nj=energy.output_bit,
        )


def machines() -> list[str]:
    """Names of the shipped accelerators."""
    return list(shipped_toml("apq_moo.hardware", "machines"))


@cache
def shipped_accelerator(name: str) -> Accelerator:
    """One of :func:`machines`."""
    return load_accelerator(shipped_toml("apq_moo.hardware", "machines")[name])


def load_accelerator(path: str | Path) -> Accelerator:
    """Read an accelerator's TOML file.

    Raises:
        UserError: it is missing, unreadable or malformed.
    """
    return Accelerator.from_dict(read_toml(path), source=" ".join(str(path).splitlines()))
