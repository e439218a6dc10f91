"""Latency and energy of dense convolutions: a search over tilings and loop orders.

A convolution runs as five loops (batch, width, height, input channels, output channels) over tiles
that fit the three SRAMs. Of all tilings, loop orders and stationarities the one with the fewest
cycles counts; among those, the one with the least energy.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import permutations

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.hardware.accelerator import Accelerator

_CHUNK = 200_000
"""Tilings examined at a time, which bounds memory."""


@dataclass(frozen=True)
class Convolutions:
    """Square dense convolutions on one image each; all arrays of shape ``(n,)``.

    Attributes:
        kernel: kernel size.
        out: height and width of the output.
        stride: stride.
        c_in: input channels.
        c_out: output channels.
        w: bits of the weights.
        a: bits of the input activation.
        im2col: whether kernel positions are folded into the reduction.
    """

    kernel: IntArray
    out: IntArray
    stride: IntArray
    c_in: IntArray
    c_out: IntArray
    w: IntArray
    a: IntArray
    im2col: BoolArray

    def __len__(self) -> int:
        return len(self.kernel)

    def take(self, rows: IntArray) -> Convolutions:
        """Some of them, in the given order."""
        return Convolutions(*(getattr(self, item.name)[rows] for item in fields(self)))


def convolution_costs(machine: Accelerator, convs: Convolutions) -> tuple[FloatArray, FloatArray]:
    """Cycles and nanojoules of each convolution, shape ``(n,)``; inf where no tile fits."""
    cycles, energy = np.full(len(convs), np.inf), np.full(len(convs), np.inf)
    owner, o, ic, oc = _tiles(machine, convs)
    edges = np.flatnonzero(np.diff(owner, prepend=-1))
    first = 0
    while first < len(edges):
        last = int(np.searchsorted(edges, edges[first] + _CHUNK, side="right"))
        last = max(last, first + 1)
        stop = edges[last] if last < len(edges) else len(owner)
        part = slice(edges[first], stop)
        rows = owner[part]
        found = _best_orders(machine, convs.take(rows), o[part], ic[part], oc[part])
        starts = edges[first:last] - edges[first]
        least = np.minimum.reduceat(found[0], starts)
        tied = np.where(found[0] == np.repeat(least, np.diff(starts, append=len(rows))), found[1],
                        np.inf)  # fmt: skip
        cycles[owner[edges[first:last]]] = least
        energy[owner[edges[first:last]]] = np.minimum.reduceat(tied, starts)
        first = last
    return cycles, energy


def _powers(extent: int, unit: int = 1) -> list[int]:
    """``unit * 2^j`` up to the extent, which is the last."""
    sizes = []
    size = unit
    while size < extent:
        sizes.append(size)
        size *= 2
    return [*sizes, extent]


def _tiles(
    machine: Accelerator, convs: Convolutions
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """All tilings that fit: their convolution, output size, input and output channels."""
    shapes: dict[tuple[int, ...], IntArray] = {}
    grids, counts = [], []
    for out, c_in, c_out, im2col in zip(
        convs.out.tolist(), convs.c_in.tolist(), convs.c_out.tolist(), convs.im2col, strict=True
    ):
        key = (out, c_in, c_out, int(im2col))
        if key not in shapes:
            unit = 1 if im2col else machine.columns
            grid = np.meshgrid(_powers(out), _powers(c_in), _powers(c_out, unit), indexing="ij")
            shapes[key] = np.stack([axis.ravel() for axis in grid])
        grids.append(shapes[key])
        counts.append(shapes[key].shape[1])
    if not grids:
        empty = np.empty(0, dtype=np.int64)
        return empty, empty, empty, empty
    owner = np.repeat(np.arange(len(convs)), counts)
    o, ic, oc = np.concatenate(grids, axis=1)
    held = _Tile(machine, convs.take(owner), o, ic, oc).held
    fits = (
        (held[0] <= machine.activation_bits)
        & (held[1] <= machine.weight_bits)
        & (held[2] <= machine.output_bits)
    )
    return owner[fits], o[fits], ic[fits], oc[fits]


class _Tile:
    """What one tile moves, holds and computes.

    Attributes:
        pixels: output pixels P.
        groups: passes over the columns, g_o.
        passes: array passes over the reduction, R.
        moved: useful bits of activations, weights and outputs.
        held: bits that they take in SRAM, padded to the array.
    """

    def __init__(
        self, machine: Accelerator, convs: Convolutions, o: IntArray, ic: IntArray, oc: IntArray
    ) -> None:
        area = convs.kernel**2
        lanes = machine.rows * machine.parallelism(convs.w, convs.a)
        acc = machine.accumulator_bits
        window = ((o - 1) * convs.stride + convs.kernel) ** 2
        folded = -(-area * ic // lanes)
        depth = -(-ic // lanes)
        self.pixels = o * o
        self.groups = -(-oc // machine.columns)
        self.passes = np.where(convs.im2col, folded, area * depth)
        columns = self.groups * machine.columns
        inputs = np.where(convs.im2col, self.pixels * area * ic, window * ic)
        padded = np.where(convs.im2col, self.pixels * folded, window * depth) * lanes
        self.moved = (
            (inputs * convs.a).astype(np.float64),
            (area * ic * oc * convs.w).astype(np.float64),
            (self.pixels * oc * acc).astype(np.float64),
        )
        self.held = (
            (padded * machine.operand_bits(convs.a)).astype(np.float64),
            (self.passes * lanes * columns * machine.operand_bits(convs.w)).astype(np.float64),
            (self.pixels * columns * acc).astype(np.float64),
        )


_DEPENDS = {"W": (True, False, True), "I": (True, True, False), "O": (False, True, True)}
"""Whether activations, weights and outputs depend on a loop; height is as width."""

_ORDERS = sorted(set(permutations("WWIO")))
"""Loop orders, innermost first. There is one image, and width and height are alike."""


def _best_orders(
    machine: Accelerator, convs: Convolutions, o: IntArray, ic: IntArray, oc: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Cycles and nanojoules of each tiling under its best loop order."""
    tile = _Tile(machine, convs, o, ic, oc)
    trips = {
        "W": (-(-convs.out // o)).astype(np.float64),
        "I": (-(-convs.c_in // ic)).astype(np.float64),
        "O": (-(-convs.c_out // oc)).astype(np.float64),
    }
    total = trips["W"] ** 2 * trips["I"] * trips["O"]
    compute = total * tile.pixels * tile.groups * tile.passes
    sram = _sram_energy(machine, convs, tile, total, (ic, oc))
    best_cycles, best_energy = np.full(len(o), np.inf), np.full(len(o), np.inf)
    for order in _ORDERS:
        traffic, peak = _traffic(machine, tile, trips, order)
        read, written = sum(traffic), traffic[2]
        d = machine.dram_bits
        edge = np.ceil(sum(peak) / d) + np.ceil(peak[2] / d)
        cycles = edge + np.maximum(compute, np.ceil(read / d) + np.ceil(written / d) - edge)
        energy = (
            compute * machine.core_nj
            + cycles * machine.static_nj
            + (read + written) * machine.dram_nj
            + traffic[0] * machine.activation_write_nj
            + traffic[1] * machine.weight_write_nj
            + traffic[2] * machine.output_nj
            + sram
        )
        better = (cycles < best_cycles) | ((cycles == best_cycles) & (energy < best_energy))
        best_cycles = np.where(better, cycles, best_cycles)
        best_energy = np.where(better, energy, best_energy)
    return best_cycles, best_energy


def _traffic(
    machine: Accelerator, tile: _Tile, trips: dict[str, FloatArray], order: tuple[str, ...]
) -> tuple[list[FloatArray], list[FloatArray]]:
    """DRAM bits of each operand, and the most of it that stays resident."""
    capacities = (machine.activation_bits, machine.weight_bits, machine.output_bits)
    traffic, peaks = [], []
    for operand, capacity in enumerate(capacities):
        moved, held = tile.moved[operand], tile.held[operand]
        peak = moved
        resident = np.ones(len(moved), dtype=bool)
        for loop in order:
            if _DEPENDS[loop][operand]:
                moved, held = moved * trips[loop], held * trips[loop]
                resident = resident & (held <= capacity)
                peak = np.where(resident, moved, peak)
            else:
                moved = np.where(resident, moved, moved * trips[loop])
        traffic.append(moved)
        peaks.append(peak)
    return traffic, peaks


def _sram_energy(
    machine: Accelerator,
    convs: Convolutions,
    tile: _Tile,
    total: FloatArray,
    channels: tuple[IntArray, IntArray],
) -> FloatArray:
    """Nanojoules of the inner loops' SRAM accesses, output- or weight-stationary."""
    ic, oc = channels
    area = convs.kernel**2
    weights = total * area * ic * oc * convs.w
    inputs = total * tile.pixels * area * ic * tile.groups * convs.a * machine.activation_read_nj
    outputs = total * tile.pixels * oc * machine.accumulator_bits * machine.output_nj
    output_stationary = weights * tile.pixels * machine.weight_read_nj + inputs + outputs
    weight_stationary = weights * machine.weight_read_nj + inputs + outputs * tile.passes
    least: FloatArray = np.minimum(output_stationary, weight_stationary)
    return least
