"""Trainings on streamed images: one that is killed and resumed, and one of two processes.

As a program it trains a small supernet, with a checkpoint as often as one can be written.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from apq_moo.benchmarks.speed.streaming_set import space_of
from apq_moo.data import images_of, load_images
from apq_moo.errors import reported
from apq_moo.space import load_space
from apq_moo.supernet.checkpoint import load_supernet, save_supernet
from apq_moo.supernet.distributed import join
from apq_moo.supernet.training import TrainConfig, Trainer

_SIZE = 8
"""Pixels of the images."""

_BATCH = 64
_CALIBRATION = 64


def trainings(folder: Path, steps: int) -> dict[str, Any]:
    """What is killed and resumed, and what two processes train, beside one undisturbed training.

    Args:
        folder: of the generated set.
        steps: of each training.
    """
    with TemporaryDirectory() as place:
        space = Path(place, "generated.toml")
        space.write_text(space_of(folder, _SIZE))
        files = {name: Path(place, f"{name}.safetensors") for name in ("one", "again", "two", "b")}
        words = {name: _words(space, path, steps) for name, path in files.items()}
        _carry_out(words["one"])
        unfinished = files["again"].with_suffix(".training")
        _kill(words["again"], unfinished)
        killed = unfinished.exists() and not files["again"].exists()
        _carry_out(words["again"])
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        _carry_out([*launcher, *words["two"]])
        _carry_out([*words["b"], "--seed", "1"])
        loaded = load_space(space)
        weights = {
            name: load_supernet(path, loaded)[0].state_dict() for name, path in files.items()
        }
    distance = {
        name: float(sum((weights[name][key] - x).norm() for key, x in weights["one"].items()))
        for name in ("two", "b")
    }
    return {
        "killed_before_its_end": killed,
        "resumed_is_the_same": all(
            torch.equal(weights["again"][name], x) for name, x in weights["one"].items()
        ),
        "two_processes_over_another_seed": round(distance["two"] / distance["b"], 4),
    }


def _words(space: Path, out: Path, steps: int) -> list[str]:
    """A training, as words behind ``python``."""
    module = "apq_moo.benchmarks.speed.streaming_training"
    return ["-m", module, str(space), str(out), "--steps", str(steps)]


def _carry_out(words: Sequence[str]) -> None:
    if subprocess.run([sys.executable, *words], check=False).returncode:  # noqa: S603
        sys.exit("a training failed")


def _kill(words: Sequence[str], unfinished: Path) -> None:
    """Run Python until there is a checkpoint, and kill it."""
    process = subprocess.Popen([sys.executable, *words])  # noqa: S603
    while not unfinished.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def main(argv: Sequence[str] | None = None) -> None:
    """Train, from a checkpoint if there is one."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("space", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    group, device = join("cpu")
    space = load_space(args.space)
    config = TrainConfig(
        steps=args.steps, warmup_steps=5, batch_size=_BATCH, sync_batch_norm=True, seed=args.seed
    )
    images = load_images(images_of(space))
    trainer = Trainer(
        space, images.calibrated_by(images.train[:_CALIBRATION]), config, device, group
    )
    unfinished = args.out.with_suffix(".training")
    if unfinished.is_file():
        trainer.load(unfinished)
        print(f"resumed at step {trainer.step}", flush=True)
    supernet = trainer.run(checkpoint=unfinished, every_s=0.0)
    if group.leads:
        save_supernet(args.out, supernet)
        unfinished.unlink(missing_ok=True)
    group.wait()


if __name__ == "__main__":
    with reported():
        main()
