"""What a round of NSGA-II spends in which of its parts, beside the predictor.

Run as ``python -m apq_moo.benchmarks.speed.operator_speed``. A stand-in for the predictor looks
accuracies up in one table for each block, and the time that it takes is left out. Counted are the
calls by which genotypes are brought into canonical form, by which they are encoded, and by which
the genes of blocks are numbered, once for each time that pymoo mates: it does so again where
children are duplicates. The floor is pymoo's own part: selection, survival, and the loop around the
operators.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from apq_moo.algorithms.pymoo.nsga2 import QuickNSGA2
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import reported
from apq_moo.problems import APQProblem
from apq_moo.space import Layout, Space, load_space
from apq_moo.versions import versions

_COUNTED = {"canonical": Space, "block_index": Space, "number": Layout}
_PARTS = ("selection", "crossover", "mutation", "repair", "eliminate_duplicates", "survival")


class BlockAccuracy:
    """Accuracies that are sums over blocks, fixed by a seed; counts the time that it takes.

    Args:
        space: the space.

    Attributes:
        space: the space.
        spent_s: processor time of all calls.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        rng = np.random.default_rng(0)
        self._gains = [np.append(np.sort(rng.random(size)), 0.0) for size in space.block_sizes]
        self.spent_s = 0.0

    def predict(self, X: IntArray) -> FloatArray:
        """Percent, shape ``(n,)``."""
        return self.predict_blocks(self.space.block_index(X))

    def predict_blocks(self, index: IntArray) -> FloatArray:
        """The same for block configurations, shape ``(n, n_blocks)``."""
        begun = time.process_time()
        gains = [column[index[:, b]] for b, column in enumerate(self._gains)]
        accuracy: FloatArray = 60.0 + np.sum(gains, axis=0)
        self.spent_s += time.process_time() - begun
        return accuracy


@dataclass(frozen=True)
class Found:
    """What some rounds of NSGA-II took.

    Attributes:
        cpu_s: processor time without the predictor's, of 1,000 evaluations.
        parts_s: the same by part.
        calls: of each of the counted methods, a round.
        checksum: of all objectives, so that what is compared is known to be the same search.
    """

    cpu_s: float
    parts_s: dict[str, float]
    calls: dict[str, float]
    checksum: float


def measure(space: Space, pop_size: int, rounds: int) -> Found:
    """Search by NSGA-II for accuracy and latency, and count.

    Args:
        space: the space.
        pop_size: of NSGA-II; evaluations of a round.
        rounds: after the first, which is not counted.
    """
    accuracy = BlockAccuracy(space)
    problem = APQProblem(space, predictor=accuracy)
    algorithm = QuickNSGA2(pop_size=pop_size, **problem.operators())
    algorithm.setup(problem, termination=("n_gen", rounds + 1), seed=1)
    algorithm.next()
    parts = dict.fromkeys((*_PARTS, "evaluation"), 0.0)
    mating = algorithm.mating
    for name in _PARTS:
        _timed(getattr(algorithm if name == "survival" else mating, name), name, parts)
    _timed(algorithm.evaluator, "evaluation", parts, "eval")
    calls: Counter[str] = Counter()
    originals = {name: getattr(owner, name) for name, owner in _COUNTED.items()}
    accuracy.spent_s = 0.0
    total = 0.0
    begun = time.process_time()
    try:
        for name, owner in _COUNTED.items():
            setattr(owner, name, _counted(originals[name], name, calls))
        while algorithm.has_next():
            algorithm.next()
            total += float(algorithm.pop.get("F").sum())
    finally:
        for name, owner in _COUNTED.items():
            setattr(owner, name, originals[name])
    per_thousand = 1000 / (rounds * pop_size)
    spent = time.process_time() - begun - accuracy.spent_s
    parts["evaluation"] -= accuracy.spent_s
    parts["loop"] = spent - sum(parts.values())
    return Found(
        spent * per_thousand,
        {name: seconds * per_thousand for name, seconds in parts.items()},
        {name: calls[name] / rounds for name in _COUNTED},
        total,
    )


def _timed(thing: Any, name: str, parts: dict[str, float], method: str = "do") -> None:
    """Add up the processor time of an object's method."""
    call = getattr(thing, method)

    def timed(*args: Any, **kwargs: Any) -> Any:
        begun = time.process_time()
        result = call(*args, **kwargs)
        parts[name] += time.process_time() - begun
        return result

    setattr(thing, method, timed)


def _counted(method: Callable[..., Any], name: str, calls: Counter[str]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return method(*args, **kwargs)

    return counted


def main(argv: Sequence[str] | None = None) -> None:
    """Print the medians of some repeats."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--space", default="fashion")
    parser.add_argument("--pop-size", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    if min(args.pop_size, args.rounds, args.repeats) < 1:
        parser.error("--pop-size, --rounds and --repeats must be at least 1")
    space = load_space(args.space)
    found = [measure(space, args.pop_size, args.rounds) for _ in range(args.repeats)]
    assert len({item.checksum for item in found}) == 1
    calls = ", ".join(f"{name} {n:.2f} times" for name, n in found[0].calls.items())
    print(f"a round of {args.pop_size} on {space.name}: {calls}")  # noqa: T201
    spent = median(item.cpu_s for item in found)
    print(  # noqa: T201
        f"{1e3 * spent:.1f} ms of CPU for 1,000 evaluations, without the predictor; objectives "
        f"add up to {found[0].checksum:.6f}; {json.dumps(versions())}"
    )
    for name in (*_PARTS, "evaluation", "loop"):
        part = median(item.parts_s[name] for item in found)
        print(f"  {name}: {1e3 * part:.2f} ms")  # noqa: T201
    own = ("selection", "survival", "loop")
    floor = median(sum(item.parts_s[name] for name in own) for item in found)
    print(f"floor, of pymoo itself: {1e3 * floor:.1f} ms")  # noqa: T201


if __name__ == "__main__":
    with reported():
        main()
