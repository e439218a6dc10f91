"""Do subnets rank by inherited weights as they do when each is trained alone?

Run as ``python -m apq_moo.benchmarks.experiments.fidelity --supernet FILE --out fidelity.json --on
cuda``. Subnets are measured with the weights that they inherit, in full precision, and trained
alone from random weights with the supernet's recipe. Kendall tau between the two accuracies, both
on the validation images, says whether a search on the supernet finds what training would find.

With ``--spread accuracy`` they are the largest, and random subnets equally far apart in rank by
what they inherit; with ``--spread size`` they reach from the smallest to the largest, each with the
same factor more multiply-accumulates than the one before.

An interrupted run goes on where it stopped: finished networks are in the file, unfinished ones in
``*.training`` beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apq_moo.arrays import IntArray
from apq_moo.changes import refuse_other_settings
from apq_moo.data import images_of, load_images
from apq_moo.data.tables import SPLITS
from apq_moo.errors import reported
from apq_moo.files import growing, read_json, sha256, with_defaults, write_json
from apq_moo.pictures import picture_type, save_picture
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.space import Space, Subnet, load_space, refuse_other_space
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.devices import torch_device
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.scoring import Scorer
from apq_moo.supernet.training import TrainConfig, Trainer
from apq_moo.threads import one_torch_thread
from apq_moo.versions import versions
from apq_moo.workers import in_workers


@dataclass(frozen=True)
class Job:
    """One network to be trained alone.

    Attributes:
        space: a preset's name or a file.
        row: its genotype.
        config: the recipe.
        on: the device.
        checkpoint: of its unfinished training.
    """

    space: str
    row: IntArray
    config: TrainConfig
    on: str
    checkpoint: Path


def accuracies(space: Space, supernet: Supernet, rows: IntArray) -> list[dict[str, float]]:
    """Accuracies in full precision on validation and test images, in percent, by split."""
    scorer = Scorer(supernet, load_images(images_of(space)))
    found = scorer.accuracies(space.decode(rows), SPLITS, quantised=False)
    return [dict(zip(SPLITS, row, strict=True)) for row in found.tolist()]


def spread(inherited: Sequence[dict[str, float]], networks: int) -> list[int]:
    """Which rows to train: the first, and others equally far apart in rank by validation."""
    order = 1 + np.argsort([found["validation"] for found in inherited[1:]], kind="stable")
    at = np.linspace(0, len(order) - 1, networks - 1).round().astype(int)
    return [0, *(int(order[i]) for i in at)]


def by_size(space: Space, networks: int, rng: np.random.Generator, pool: int = 20_000) -> IntArray:
    """Networks from the largest to the smallest, nearest to sizes in geometric progression.

    Args:
        space: the space.
        networks: how many.
        rng: draws a pool, half of it between the smallest and random members, half of it between
            these and the largest.
        pool: its size.

    Returns:
        Architectures, shape ``(networks, n_var)``.
    """
    members = space.sample(pool, rng)
    share = rng.random((pool, 1))
    upper = rng.random((pool, 1)) < 0.5
    low = np.where(upper, members, space.smallest())
    high = np.where(upper, space.largest(), members)
    between = space.canonical(low + np.rint(share * (high - low)).astype(int))
    drawn = np.unique(space.architecture(between[space.valid(between)]), axis=0)
    ends = space.architecture(np.vstack([space.largest(), space.smallest()]))
    size = np.log([_macs(space, subnet) for subnet in space.decode(drawn)])
    top, bottom = np.log([_macs(space, subnet) for subnet in space.decode(ends)])
    wanted = np.linspace(top, bottom, networks)[1:-1]
    near = np.abs(size[:, None] - wanted).argmin(axis=0)
    return np.vstack([ends[0], drawn[near], ends[1]])


def _macs(space: Space, subnet: Subnet) -> int:
    return sum(layer.macs for layer in space.layers(subnet))


def train_alone(i: int, job: Job) -> tuple[int, dict[str, Any]]:
    """Train one network and measure it; returns which one with its figures."""
    space = load_space(job.space)
    (subnet,) = space.decode(job.row)
    device = torch_device(job.on)
    # A decorator would not go into another process.
    with one_torch_thread():
        trainer = Trainer(space, load_images(images_of(space)), job.config, device, alone=subnet)
        if job.checkpoint.is_file():
            trainer.load(job.checkpoint)
        supernet = trainer.run(checkpoint=job.checkpoint)
        (found,) = accuracies(space, supernet, job.row[None])
    return i, {**found, "seconds": round(trainer.seconds, 1)}


def main(argv: Sequence[str] | None = None) -> None:
    """Train the networks, print each as it is done, and Kendall tau at the end."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--space", default="fashion")
    parser.add_argument("--supernet", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", type=int, default=17, help="the largest among them")
    parser.add_argument("--spread", choices=("accuracy", "size"), default="accuracy")
    parser.add_argument(
        "--pool", type=int, default=512, help="random subnets to choose from by accuracy"
    )
    parser.add_argument("--steps", type=int, default=9600)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--ramp-steps", type=int, default=200)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="networks trained at a time")
    parser.add_argument("--picture", type=Path, help="a PNG, SVG or PDF file to draw")
    parser.add_argument("--on", default="cpu", help="devices by commas, such as cuda:0,cuda:1")
    args = parser.parse_args(argv)
    if args.picture is not None:
        picture_type(args.picture)
    space = load_space(args.space)
    config = TrainConfig(
        steps=args.steps,
        warmup_steps=0,
        batch_size=args.batch,
        learning_rate=args.learning_rate,
        ramp_steps=args.ramp_steps,
        weight_decay=args.weight_decay,
        label_smoothing=args.label_smoothing,
        seed=args.seed,
    )
    settings = {
        "space": space.name,
        "digest": space.digest,
        "supernet_sha256": sha256(args.supernet),
        "train": asdict(config),
        "networks": args.networks,
        "pool": args.pool,
        "spread": args.spread,
    }
    with growing(args.out):
        state = _train(args, config, _begin(args, space, settings))
    print(f"Kendall tau over {args.networks} networks:", flush=True)
    for pair, tau in state["tau"].items():
        print(f"  {pair}: {tau:.3f}", flush=True)
    if args.picture is not None:
        draw(args.picture, state["networks"])


def _train(args: argparse.Namespace, config: TrainConfig, state: dict[str, Any]) -> dict[str, Any]:
    """Train those networks that are not trained yet; returns the results, kept in ``args.out``."""
    todo = [i for i, network in enumerate(state["networks"]) if "alone" not in network]
    devices = args.on.split(",")
    jobs = {
        i: Job(
            args.space,
            np.array(state["networks"][i]["x"]),
            config,
            devices[number % len(devices)],
            args.out.with_name(f"{args.out.stem}-{i}.training"),
        )
        for number, i in enumerate(todo)
    }
    with closing(in_workers(train_alone, jobs.items(), args.jobs)) as trained:
        for i, alone in trained:
            network = state["networks"][i]
            network["alone"] = alone
            write_json(args.out, state)
            jobs[i].checkpoint.unlink(missing_ok=True)
            print(f"{i}: inherited {network['inherited']}, alone {network['alone']}", flush=True)
    state["tau"] = taus(state["networks"])
    write_json(args.out, state)
    return state


def taus(networks: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Kendall tau between what is inherited and trained alone, on either split of the images.

    The last one is between the two splits for the same trained networks: where it is low, the
    networks hardly differ, and no other ranking can agree with theirs.
    """

    def of(kind: str, split: str) -> list[float]:
        return [network[kind][split] for network in networks]

    return {
        **{
            f"inherited and alone, {split}": kendall_tau(of("inherited", split), of("alone", split))
            for split in SPLITS
        },
        "alone, validation and test": kendall_tau(of("alone", "validation"), of("alone", "test")),
    }


def draw(path: str | Path, networks: Sequence[dict[str, Any]]) -> None:
    """Draw validation accuracies trained alone against inherited ones, sizes as colours.

    Args:
        path: a PNG, SVG or PDF file.
        networks: of the results.

    Raises:
        UserError: it cannot be written, or is of another type.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axis = figure.subplots()
    x, y = ([n[kind]["validation"] for n in networks] for kind in ("inherited", "alone"))
    size = [n["macs"] / 1e6 for n in networks]
    ends = [min(*x, *y), max(*x, *y)]
    axis.plot(ends, ends, color="black", linestyle=":", linewidth=1, label="equal")
    points = axis.scatter(x, y, c=size, norm=LogNorm(), cmap="viridis", edgecolors="black", lw=0.5)
    figure.colorbar(points, label="million multiply-accumulates")
    axis.set_xlabel("inherited validation accuracy, %")
    axis.set_ylabel("trained alone, %")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    save_picture(figure, path)


def _begin(args: argparse.Namespace, space: Space, settings: dict[str, Any]) -> dict[str, Any]:
    if args.out.is_file():
        state: dict[str, Any] = read_json(args.out)
        known = state.get("settings")
        if isinstance(known, dict):
            known["train"] = with_defaults(known.get("train"), TrainConfig)
            refuse_other_space(known, space, args.out)
        refuse_other_settings(args.out, known, settings, "name another file")
        return state
    begun = time.perf_counter()
    device = torch_device(args.on.partition(",")[0])
    supernet = load_supernet(args.supernet, space)[0].to(device)
    rng = np.random.default_rng([args.seed, 11])
    if args.spread == "size":
        rows = by_size(space, args.networks, rng)
    else:
        rows = np.vstack([space.largest(), space.sample(args.pool, rng)])
    inherited = accuracies(space, supernet, rows)
    chosen = list(range(len(rows))) if args.spread == "size" else spread(inherited, args.networks)
    state = {
        "settings": settings,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "versions": versions(),
        "networks": [
            {"x": rows[i].tolist(), "macs": _macs(space, subnet), "inherited": inherited[i]}
            for i, subnet in zip(chosen, space.decode(rows[chosen]), strict=True)
        ],
    }
    write_json(args.out, state)
    print(f"{len(rows)} subnets measured in {time.perf_counter() - begun:.0f} s", flush=True)
    return state


if __name__ == "__main__":
    with reported():
        main()
