"""Accelerators as data: array, memories and energy constants of a BitFusion-like machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.files import read_toml
from apq_moo.reading import TableReader, is_integer

PRECISIONS = (2, 4, 8, 16)
"""Operand widths that an array can be built for, in bits."""

_MEMORIES = ("activation_kib", "weight_kib", "output_kib")
_ENERGIES = {
    "core_nj": "core_cycle",
    "static_nj": "static_cycle",
    "dram_nj": "dram_bit",
    "weight_read_nj": "weight_read_bit",
    "weight_write_nj": "weight_write_bit",
    "activation_read_nj": "activation_read_bit",
    "activation_write_nj": "activation_write_bit",
    "output_nj": "output_bit",
}
"""Keys of the energy constants in files, by attribute."""

_KEYS = (
    *("name", "description", "rows", "columns", "precisions", "accumulator_bits", "clock_mhz"),
    *("memory", "energy_nj"),
)
_BITS_PER_HALF_KIB = 4096
_MAX_KIB = 2**20


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
        reader = TableReader(source)
        table = reader.table(data, _KEYS, "the file")
        memory = reader.table(
            table.get("memory"), (*_MEMORIES, "dram_bits_per_cycle"), "the table [memory]"
        )
        energies = tuple(_ENERGIES.values())
        energy = reader.table(table.get("energy_nj"), energies, "the table [energy_nj]")
        widths = table.get("precisions")
        if (
            not isinstance(widths, list)
            or not widths
            or not all(is_integer(width, 2, 16) and width in PRECISIONS for width in widths)
            or widths != sorted(set(widths))
        ):
            known = ", ".join(map(str, PRECISIONS))
            raise reader.wrong(table, "precisions", "", f"a non-empty, ascending list of {known}")
        for key in ("name", "description"):
            text = table.get(key, "")
            if not isinstance(text, str) or not text.isprintable() or (key == "name" and not text):
                raise reader.wrong(table, key, "", "one line of text")
        capacities = {
            f"{kind}_bits": reader.number(memory, f"{kind}_kib", "memory.", 1 / 64, _MAX_KIB)
            for kind in ("activation", "weight", "output")
        }
        nanojoules = {
            field: reader.number(energy, key, "energy_nj.", 0, 1e6)
            for field, key in _ENERGIES.items()
        }
        return cls(
            name=table["name"],
            description=table.get("description", ""),
            rows=reader.integer(table, "rows", "", 1, 4096),
            columns=reader.integer(table, "columns", "", 1, 4096),
            precisions=tuple(widths),
            accumulator_bits=reader.integer(table, "accumulator_bits", "", 8, 64),
            clock_khz=1000 * reader.number(table, "clock_mhz", "", 0.001, 100_000),
            dram_bits=reader.integer(memory, "dram_bits_per_cycle", "memory.", 1, 65_536),
            **{field: int(kib * _BITS_PER_HALF_KIB) for field, kib in capacities.items()},
            **nanojoules,  # type: ignore[arg-type]
        )


def machines() -> list[str]:
    """Names of the shipped accelerators."""
    folder = files("apq_moo.hardware") / "machines"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


@cache
def shipped_accelerator(name: str) -> Accelerator:
    """One of :func:`machines`."""
    return load_accelerator(Path(str(files("apq_moo.hardware") / "machines" / f"{name}.toml")))


def load_accelerator(path: str | Path) -> Accelerator:
    """Read an accelerator's TOML file.

    Raises:
        UserError: it is missing, unreadable or malformed.
    """
    return Accelerator.from_dict(read_toml(path), source=" ".join(str(path).splitlines()))
