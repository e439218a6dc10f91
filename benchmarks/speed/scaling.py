"""Images a second that a supernet is trained on, by one process or by several.

Run as ``torchrun --nproc-per-node 2 -m apq_moo.benchmarks.speed.scaling --batch 8192``, once for
each number of processes. The first steps, in which kernels are compiled, are not counted. Every
step trains the largest, the smallest and two random subnets.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import torch

from apq_moo.data import images_of, load_images
from apq_moo.errors import reported
from apq_moo.space import Space, load_space
from apq_moo.supernet.distributed import Group, join
from apq_moo.supernet.training import SPLITS, Progress, TrainConfig, Trainer
from apq_moo.versions import versions


def images_a_second(
    space: Space,
    batch: int,
    *,
    warmup: int,
    steps: int,
    group: Group,
    device: torch.device,
    split: str = "images",
) -> float:
    """Images of all processes together that a second of training takes in.

    Args:
        space: the space, with its images.
        batch: images a step, over all processes.
        warmup: steps that are not counted.
        steps: steps that are.
        group: this process among the others.
        device: where this one trains.
        split: what of a step they share.
    """
    config = TrainConfig(steps=warmup + steps, warmup_steps=0, batch_size=batch)
    trainer = Trainer(space, load_images(images_of(space)), config, device, group, split=split)
    at: dict[int, float] = {}

    def clock(progress: Progress) -> None:
        if progress.step in (warmup, warmup + steps):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            at[progress.step] = time.perf_counter()

    trainer.run(callback=clock)
    return batch * steps / (at[warmup + steps] - at[warmup])


def main(argv: Sequence[str] | None = None) -> None:
    """Print images a second."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--space", default="fashion")
    parser.add_argument("--batch", type=int, default=8192, help="images a step, of all processes")
    parser.add_argument("--warmup", type=int, default=120, help="steps that are not counted")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--split", default=SPLITS[0], choices=SPLITS, help="what they share")
    parser.add_argument("--on", default="cuda")
    args = parser.parse_args(argv)
    if min(args.warmup, args.steps) < 1:
        parser.error("--warmup and --steps must be at least 1")
    group, device = join(args.on)
    found = images_a_second(
        load_space(args.space),
        args.batch,
        warmup=args.warmup,
        steps=args.steps,
        group=group,
        device=device,
        split=args.split,
    )
    if group.leads:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
        shared = f", {args.split} shared" if group.size > 1 else ""
        print(
            f"{group.size} x {name}, batch {args.batch}{shared}: {found:,.0f} images/s, "
            f"{1e3 * args.batch / found:.1f} ms a step; {json.dumps(versions())}"
        )


if __name__ == "__main__":
    with reported():
        main()
