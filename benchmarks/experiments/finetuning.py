"""Do bit policies rank by a quantisation-aware supernet's weights as they do when fine-tuned?

Run as ``python -m apq_moo.benchmarks.experiments.finetuning --out finetuning.json --on cuda``. APQ
fine-tunes every sampled policy for a fifth of an epoch before its accuracy is taken (Wang et al.,
CVPR 2020, section 3.2). A supernet whose last training steps ran at random bits may not need that.
Two sets of policies are measured with inherited weights, and again after each has been fine-tuned
alone: random policies on random architectures, and random policies on one architecture, which
differ in nothing but bits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apq_moo.arrays import IntArray
from apq_moo.data import images_of, load_images
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.errors import reported
from apq_moo.files import sha256, write_json
from apq_moo.predictors.metrics import kendall_tau, pairwise_accuracy
from apq_moo.space import Space, Subnet, load_space
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.devices import torch_device
from apq_moo.supernet.finetuning import FineTunedScorer, FineTuning
from apq_moo.supernet.scoring import Scorer
from apq_moo.versions import versions


def policies(space: Space, n: int, seed: int) -> dict[str, IntArray]:
    """Rows of both sets, shape ``(n, n_var)`` each."""
    rng = np.random.default_rng([seed, 13])
    scattered = space.sample(n, rng)
    # The median by size of random architectures, so that it is neither extreme.
    pool = space.sample(101, rng)
    order = np.argsort(space.one_hot(pool).sum(axis=1), kind="stable")
    one = np.repeat(pool[order[50]][None], n, axis=0)
    one[:, space.bit_columns] = space.sample(n, rng)[:, space.bit_columns]
    return {"random architectures": scattered, "one architecture": space.canonical(one)}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print rank correlations, and write all figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--space", default="fashion")
    parser.add_argument("--supernet", type=Path, help="its weights; default: shipped")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--policies", type=int, default=64, help="of each set")
    parser.add_argument("--steps", default="10,49", help="fine-tuning steps, by commas")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--on", default="cpu")
    args = parser.parse_args(argv)
    space = load_space(args.space)
    path = args.supernet or find_assets(space).path(SUPERNET)
    device = torch_device(args.on)
    supernet = load_supernet(path, space)[0].to(device)
    images = load_images(images_of(space))
    scorer = Scorer(supernet, images)
    results: dict[str, Any] = {
        "space": space.name,
        "supernet_sha256": sha256(path),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "versions": versions(),
        "settings": {
            name: value for name, value in vars(args).items() if name not in ("out", "supernet")
        },
    }
    for name, rows in policies(space, args.policies, args.seed).items():
        subnets = space.decode(rows)
        inherited = _accuracies(scorer, subnets)
        of: dict[str, Any] = {"x": rows.tolist(), "inherited": inherited}
        for steps in (int(text) for text in args.steps.split(",")):
            begun = time.perf_counter()
            tuning = FineTuning(steps, args.batch, args.learning_rate, args.label_smoothing, 1)
            tuned = _accuracies(FineTunedScorer(supernet, images, tuning), subnets)
            tau = kendall_tau(tuned, inherited)
            pairs = pairwise_accuracy(np.array(tuned), np.array(inherited))
            gain = float(np.mean(tuned) - np.mean(inherited))
            of[f"tuned for {steps} steps"] = {
                "accuracy": tuned, "tau": tau, "pairwise": pairs, "gain": gain,
            }  # fmt: skip
            print(
                f"{name}, {steps} steps: tau {tau:.3f}, pairwise {pairs:.3f}, gain {gain:.2f} "
                f"points, spread {np.std(inherited):.2f} before and {np.std(tuned):.2f} after, "
                f"{time.perf_counter() - begun:.0f} s",
                flush=True,
            )
        results[name] = of
        write_json(args.out, results)


def _accuracies(scorer: Scorer, subnets: Sequence[Subnet]) -> list[float]:
    found: list[float] = scorer.accuracies(subnets, ["validation"], quantised=True)[:, 0].tolist()
    return found


if __name__ == "__main__":
    with reported():
        main()
