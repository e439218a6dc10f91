"""How fast searches are, against the predictor's plain forward passes in the same run.

``python -m apq_moo.benchmarks.speed.search_speed`` searches the ``imagenet`` space as the paper
did: population 100, 501 rounds, 50,200 evaluations by a network of 630,801 weights, under 12.80 ms.
The yardstick is 502 forward passes of the same network in torch, on dense batches of 100, with the
same number of threads. What is compared agrees first: the predictor with torch, and the accuracies
of the archive with torch's. Weights are random, since none ship for that space, and the time does
not depend on them. A sweep of 20 limits is compared with forward passes of 2,000, and NSGA-II with
a population of 10,000 is timed by the generation, in a process whose memory is watched.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

POP_SIZE = 100
ROUNDS = 501
BUDGET = POP_SIZE * (ROUNDS + 1)
LIMIT_MS = 12.80
SWEEP = 20
LARGE = 10_000
RELEASED_S = 22.7
"""What the authors' code takes for such a search on a quiet machine of this kind."""

_AGREEMENT = 2e-3  # percentage points


def main() -> None:
    """Print all comparisons."""
    parser = argparse.ArgumentParser(description="Time searches of the published size.")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of BLAS")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each search")
    parser.add_argument("--generations", type=int, default=20, help="of the large population")
    parser.add_argument("--large", type=int, default=LARGE, help="the large population")
    parser.add_argument("--only", choices=("search", "sweep", "large"), help="one of the three")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    if given.child:
        print(json.dumps(_large(given.child, given.large, given.generations)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "predictor.safetensors")
        forward = _prepare(file, given.threads)
        if given.only in (None, "search"):
            _compare("one search", file, forward, given.rounds, 1, given.repeats)
        if given.only in (None, "sweep"):
            repeats = max(1, given.repeats // 2)
            _compare(f"a sweep of {SWEEP}", file, forward, given.rounds, SWEEP, repeats)
        if given.only in (None, "large"):
            _report_large(file, given)


def _say(text: str) -> None:
    print(text, flush=True)


Forward = Callable[[NDArray[np.int64]], NDArray[np.float64]]


def _prepare(file: str, threads: int) -> Forward:
    """Store a predictor with random weights; return the same as a plain module of torch."""
    import torch

    from apq_moo.predictors.mlp import MLPPredictor
    from apq_moo.predictors.network import weight_shapes
    from apq_moo.space import load_space

    torch.set_num_threads(threads)
    space = load_space("imagenet")
    rng = np.random.default_rng(0)
    weights = {
        name: (rng.uniform(-1, 1, shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in weight_shapes(space).items()
    }
    predictor = MLPPredictor(space)
    predictor.set_network(weights, center=0.0, scale=100.0)
    predictor.save(file)
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    split = space.n_architecture_inputs
    linear, relu = torch.nn.functional.linear, torch.nn.functional.relu

    def layer(x: torch.Tensor, name: str) -> torch.Tensor:
        return linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def dense(Z: torch.Tensor) -> torch.Tensor:
        h = relu(layer(Z[:, :split], "layers.0.0")) + layer(Z[:, split:], "quantize_fc")
        return layer(relu(layer(relu(layer(h, "layers.1.0")), "layers.2.0")), "regressor")[:, 0]

    def forward(X: NDArray[np.int64]) -> NDArray[np.float64]:
        with torch.inference_mode():
            return 100.0 * dense(torch.from_numpy(space.one_hot(X))).numpy().astype(np.float64)

    forward.dense = dense  # type: ignore[attr-defined]
    X = space.sample(2000, rng)
    gap = float(np.abs(predictor.predict(X) - forward(X)).max())
    assert gap < _AGREEMENT, f"the predictor differs from torch by {gap}"
    n = sum(array.size for array in weights.values())
    _say(f"predictor of {n:,} weights: within {gap:.1e} percentage points of torch")
    return forward


def _search(file: str, sweep: int, rounds: int) -> Any:
    from apq_moo.study.config import RunConfig
    from apq_moo.study.search import Search

    config = RunConfig(
        algo="apq-ga",
        objectives=("acc",) if sweep == 1 else ("acc", "latency"),
        space="imagenet",
        predictor=file,
        limits={"latency": LIMIT_MS},
        budget=POP_SIZE * (rounds + 1) * sweep,
        sweep=sweep,
        pop_size=POP_SIZE,
    )
    return Search(config)


def _compare(name: str, file: str, forward: Forward, rounds: int, sweep: int, repeats: int) -> None:
    """Time a search, archive and checkpoints included, and the forward passes in turn."""
    import torch

    space = _search(file, 1, rounds).problem.space
    batch = space.sample(POP_SIZE * sweep, np.random.default_rng(1))
    Z = torch.from_numpy(space.one_hot(batch))
    dense = forward.dense  # type: ignore[attr-defined]
    passes: list[float] = []
    searches: list[float] = []
    for _ in range(repeats):
        begun = time.perf_counter()
        with torch.inference_mode():
            for _ in range(rounds + 1):
                dense(Z)
        passes.append(time.perf_counter() - begun)
        search = _search(file, sweep, rounds)
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            archive = search.run(folder=Path(folder))
            searches.append(time.perf_counter() - begun)
    assert len(archive) == POP_SIZE * (rounds + 1) * sweep
    some = np.linspace(0, len(archive) - 1, 1000).astype(int)
    gap = np.abs(-archive.F[some, 0] - forward(archive.X[some].astype(np.int64))).max()
    assert gap < _AGREEMENT, f"the archive differs from torch by {gap}"
    ratio = median(searches) / median(passes)
    _say(
        f"{name}: {len(archive):,} evaluations in {median(searches):.2f} s "
        f"({min(searches):.2f} to {max(searches):.2f}), {rounds + 1} dense forward passes of "
        f"{len(batch):,} in {median(passes):.2f} s: ratio {ratio:.2f} (medians of {repeats})"
    )
    if sweep == 1 and rounds == ROUNDS:
        _say(f"  the authors' code, {RELEASED_S} s: {RELEASED_S / median(searches):.0f} times")


def _report_large(file: str, given: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "apq_moo.benchmarks.speed.search_speed", "--child", file]
    for name in ("generations", "threads", "large"):
        command += [f"--{name}", str(getattr(given, name))]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    found = json.loads(answer.stdout.splitlines()[-1])
    _say(
        f"nsga2, population {given.large:,}: {found['seconds']:.2f} s a generation (median of "
        f"{given.generations}), memory {found['growth_mib']:.0f} MiB beyond the imports"
    )


def _large(file: str, pop_size: int, generations: int) -> dict[str, float]:
    import torch

    from apq_moo.study.config import RunConfig
    from apq_moo.study.search import Search

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    imported = _memory("VmRSS")
    config = RunConfig(
        algo="nsga2",
        space="imagenet",
        predictor=file,
        limits={"latency": LIMIT_MS},
        budget=pop_size * (generations + 1),
        pop_size=pop_size,
    )
    moments: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        Search(config).run(
            folder=Path(folder), callback=lambda _done, _all: moments.append(time.perf_counter())
        )
    growth = _memory("VmHWM") - imported
    return {"seconds": median(np.diff(moments).tolist()), "growth_mib": growth}


def _memory(entry: str) -> float:
    """Memory of this process in MiB: ``VmRSS`` now, or ``VmHWM`` at its peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(entry))


if __name__ == "__main__":
    main()
