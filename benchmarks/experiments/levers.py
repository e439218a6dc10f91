"""What does each lever of a supernet's training do to its subnets?

Run as ``python -m apq_moo.benchmarks.experiments.levers --space fashion --steps 9600 --out
levers.json --on cuda``. A supernet is trained with each lever, all with the same seed and as many
images, and its largest, smallest and random subnets, the same for all, are measured in full
precision and at several bits. Random subnets are those of all sizes and those drawn uniformly.

An interrupted run goes on where it stopped: finished levers are in the file, the unfinished one in
``*.training`` beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apq_moo.arrays import IntArray
from apq_moo.changes import refuse_other_settings
from apq_moo.data import images_of, load_images
from apq_moo.data.tables import SPLITS
from apq_moo.errors import UserError, reported
from apq_moo.files import growing, read_json, with_defaults, write_json
from apq_moo.space import Space, load_space, refuse_other_space, sample_sizes
from apq_moo.supernet.devices import torch_device
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.scoring import Scorer
from apq_moo.supernet.training import TrainConfig, Trainer
from apq_moo.texts import by_commas
from apq_moo.versions import versions

_BITS = (8, 4, 3)
_RANDOM = ("sizes", "uniform")
_MEND = "name another file"


def recipe(steps: int, batch_size: int, seed: int) -> TrainConfig:
    """The recipe of the shipped supernet of space ``fashion``, its phases in proportion."""
    return TrainConfig(
        steps=steps,
        warmup_steps=steps // 10,
        batch_size=batch_size,
        random_subnets=4,
        draw="sizes",
        quantised_steps=steps // 4,
        learning_rate=4e-3,
        ramp_steps=min(200, steps // 10),
        weight_decay=0.05,
        label_smoothing=0.1,
        seed=seed,
    )


def levers(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """Changes of a recipe, by name."""
    return {
        "none": {},
        "alpha": {"distillation": "alpha"},
        "average": {"average_decay": 0.995},
        "best-up": {"sampling": "best-up"},
        "worst-up": {"sampling": "worst-up"},
        "bit-phases": {"bit_phases": True},
        "bit-sandwich": {"bit_sandwich": True},
        "half at bits": {"quantised_steps": config.steps // 2},
        "erasing": {"augmentation": "erasing"},
        "momentum-groups": {"momentum_groups": True},
        "shrink": {"shrink": True},
        "alpha and average": {"distillation": "alpha", "average_decay": 0.995},
    }


def at_bits(space: Space, X: IntArray, bits: int) -> IntArray | None:
    """Networks with all bits alike; None where the space does not offer these."""
    options = [space.genes[column].options for column in space.bit_columns]
    if not all(bits in offered for offered in options):
        return None
    result = X.copy()
    result[:, space.bit_columns] = [offered.index(bits) for offered in options]
    return space.canonical(result)


def measured(space: Space, n: int, seed: int) -> dict[str, tuple[IntArray, bool]]:
    """What is measured of each supernet, by name.

    Args:
        space: the space.
        n: random subnets of each kind.
        seed: of these.

    Returns:
        Rows, shape ``(n, n_var)``, and whether they run at their bits.
    """
    rng = np.random.default_rng([seed, 17])
    sets = {
        "largest": space.largest()[None],
        "smallest": space.smallest()[None],
        "sizes": sample_sizes(space, n, rng),
        "uniform": space.sample(n, rng),
    }
    found = {}
    for name, X in sets.items():
        found[f"{name}, full precision"] = (X, False)
        if name in _RANDOM:
            found[f"{name}, random bits"] = (X, True)
        for bits in _BITS:
            if (rows := at_bits(space, X, bits)) is not None:
                found[f"{name}, {bits} bits"] = (rows, True)
    return found


def accuracies(supernet: Supernet, n: int, seed: int) -> dict[str, dict[str, float]]:
    """Mean accuracies, in percent, of what :func:`measured` names, by split."""
    space = supernet.space
    scorer = Scorer(supernet, load_images(images_of(space)))
    sets = measured(space, n, seed)
    rows = np.vstack([X for X, _ in sets.values()])
    quantised = np.repeat([q for _, q in sets.values()], [len(X) for X, _ in sets.values()])
    found = scorer.accuracies(space.decode(rows), SPLITS, quantised=quantised)
    parts = np.split(found, np.cumsum([len(X) for X, _ in sets.values()])[:-1])
    return {
        name: dict(zip(SPLITS, part.mean(axis=0).round(3).tolist(), strict=True))
        for name, part in zip(sets, parts, strict=True)
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Train a supernet with each lever, and print what was measured as each is done."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--space", default="fashion")
    parser.add_argument("--levers", help="names, by commas; default: all")
    parser.add_argument("--steps", type=int, default=9600)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--subnets", type=int, default=32, help="random ones of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--on", default="cpu")
    args = parser.parse_args(argv)
    config = recipe(args.steps, args.batch, args.seed)
    known = levers(config)
    names = by_commas(args.levers) if args.levers else list(known)
    for name in names:
        if name not in known:
            raise UserError(f"unknown lever {name!r}; known: {', '.join(known)}")
    space, device = load_space(args.space), torch_device(args.on)
    configs = {name: replace(config, **known[name]) for name in names}
    with growing(args.out):
        state = _begin(args, space, device)
        for name, of in configs.items():
            if name not in state["levers"]:
                state["levers"][name] = _train(args, space, of, name, device)
                write_json(args.out, state)
            then = with_defaults(state["levers"][name]["train"], TrainConfig)
            refuse_other_settings(f"lever {name!r} of {args.out}", then, asdict(of), _MEND)
            print(_line(name, state["levers"][name]), flush=True)


def _train(
    args: argparse.Namespace, space: Space, config: TrainConfig, name: str, device: torch.device
) -> dict[str, Any]:
    trainer = Trainer(space, load_images(images_of(space)), config, device)
    checkpoint = args.out.with_name(f"{args.out.stem}-{name.replace(' ', '-')}.training")
    if checkpoint.is_file():
        trainer.load(checkpoint)
    supernet = trainer.run(checkpoint=checkpoint)
    found = {
        "train": asdict(config),
        "seconds": round(trainer.seconds, 1),
        "accuracies": accuracies(supernet, args.subnets, args.seed),
    }
    checkpoint.unlink(missing_ok=True)
    return found


def _line(name: str, lever: dict[str, Any]) -> str:
    """A lever's validation accuracies, in the order in which they were measured."""
    parts: dict[str, list[str]] = {}
    for what, found in lever["accuracies"].items():
        subnets, _, kind = what.partition(", ")
        parts.setdefault(subnets, []).append(f"{found['validation']:.2f} {kind}")
    told = "; ".join(f"{subnets} {', '.join(each)}" for subnets, each in parts.items())
    return f"{name} ({lever['seconds']:.0f} s): {told}"


def _begin(args: argparse.Namespace, space: Space, device: torch.device) -> dict[str, Any]:
    settings = {
        "space": space.name,
        "digest": space.digest,
        **{key: getattr(args, key) for key in ("steps", "batch", "subnets", "seed")},
    }
    if args.out.is_file():
        state: dict[str, Any] = read_json(args.out)
        if isinstance(known := state.get("settings"), dict):
            refuse_other_space(known, space, args.out)
        refuse_other_settings(args.out, known, settings, _MEND)
        return state
    return {
        "settings": settings,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "versions": versions(),
        "levers": {},
    }


if __name__ == "__main__":
    with reported():
        main()
