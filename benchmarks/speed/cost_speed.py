"""How fast populations are costed, against a plain sum over layers.

Run as ``python -m apq_moo.benchmarks.speed.cost_speed``. Latency and energy of random networks of
the imagenet space on the published accelerator are gathered from block tables, together; and added
up layer by layer in plain Python from a dictionary of the same layers, as the published code does.
The two must agree before anything is timed.

The floor is reading the genotypes once: ``n * n_var * 8`` bytes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from apq_moo.arrays import IntArray
from apq_moo.errors import reported
from apq_moo.hardware import CostBatch, cost_table, find_device
from apq_moo.hardware.compiled import device_tables
from apq_moo.hardware.layer_set import layer_set
from apq_moo.hardware.layer_table import build
from apq_moo.space import Block, BlockPlan, Space, load_space

_COSTS = ("latency", "energy")
_PLAIN = 300
"""Networks that are added up in plain Python; one takes as long as some hundred gathered."""


class PlainSum:
    """Costs as plain Python adds them up."""

    def __init__(self, space: Space) -> None:
        device = find_device("bitfusion")
        table = build(space, device, {})
        self._costs = {
            name: tuple(float(table.values[cost][i]) for cost in _COSTS)
            for i, name in enumerate(table.names)
            if table.components[i] == "block"
        }
        parts = device.fixed_parts(space).values()
        self._fixed = [sum(part[cost] for part in parts) for cost in _COSTS]

    def __call__(self, blocks: Sequence[tuple[BlockPlan, Block]]) -> tuple[float, float]:
        """Latency in ms and energy in mJ of a network's active blocks."""
        latency, energy = self._fixed
        for plan, block in blocks:
            mid, size, after, k = block.channels, plan.size, plan.size_out, block.kernel
            pw, dw = f"W{block.w_pw}A{block.a_pw}", f"W{block.w_dw}A{block.a_dw}"
            for key in (
                f"({plan.c_in}, {mid}, {size}, 1, 1, 0, 1)-{pw}",
                f"({mid}, {mid}, {size}, {k}, {plan.stride}, {k // 2}, {mid})-{dw}",
                f"({mid}, {plan.c_out}, {after}, 1, 1, 0, 1)-{pw}",
            ):
                costs = self._costs[key]
                latency += costs[0]
                energy += costs[1]
        return latency, energy


def _networks(space: Space, X: IntArray) -> list[list[tuple[BlockPlan, Block]]]:
    """The active blocks of networks, each with its place."""
    return [
        [(space.plans[b], block) for b, block in zip(np.flatnonzero(row), net.blocks, strict=True)]
        for row, net in zip(space.active(X), space.decode(X), strict=True)
    ]


def _seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call."""
    spent = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begun)
    return float(np.median(spent))


def _cold_seconds(space_name: str) -> tuple[float, float]:
    """Wall times of compiling the tables anew, and of reading them back from the disk."""
    times = []
    for _ in range(2):
        layer_set.cache_clear()
        device_tables.cache_clear()
        space = Space(load_space(space_name).spec)
        begun = time.perf_counter()
        cost_table(space, "latency")
        times.append(time.perf_counter() - begun)
    return times[0], times[1]


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--space", default="imagenet")
    parser.add_argument("--batch", type=int, default=100_000, help="networks costed together")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        os.environ["APQ_MOO_CACHE"] = str(Path(folder))
        cold, warm = _cold_seconds(args.space)
    space = load_space(args.space)
    batch = CostBatch([cost_table(space, name) for name in _COSTS])
    X = space.sample(args.batch, np.random.default_rng(0))
    some = _networks(space, X[:_PLAIN])
    plain = PlainSum(space)
    np.testing.assert_allclose(batch(X[:_PLAIN]), [plain(network) for network in some], rtol=1e-12)

    gathered = _seconds(lambda: batch(X), args.repeats)
    added = _seconds(lambda: [plain(network) for network in some], 5) / len(some) * args.batch
    read = _seconds(X.sum, args.repeats)
    rate = args.batch / gathered
    print(f"tables of {args.space}: {cold:.2f} s cold, {warm:.3f} s from the disk")
    print(
        f"latency and energy of {args.batch:,} networks: {1000 * gathered:.1f} ms, "
        f"{rate / 1e6:.2f} million a second; {added / gathered:,.0f} times plain Python's "
        f"{args.batch / added:,.0f} a second; {gathered / read:.1f} times reading the genotypes "
        "once"
    )


if __name__ == "__main__":
    with reported():
        main()
