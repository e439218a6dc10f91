"""How a set that memory does not hold is streamed: memory, speed, resumption and two processes.

Run as ``python -m apq_moo.benchmarks.speed.streaming_speed --folder DIR``, where a set of JPEGs is
made first. It shows that

* memory stays the same over two epochs: of this process and its workers, as resident sets and as
  proportional ones (pages that processes share count once);
* images are decoded as fast as by a plain ``DataLoader`` with nothing behind it. Both give the same
  bytes, which is checked first. Images are counted for each second of a core, of all processes
  together, which a busy machine changes little, and for each second on the clock;
* a training that is killed and resumed ends with the weights of one that is not;
* two processes that share the images come close to what one does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apq_moo.benchmarks.speed.streaming_set import bare_batches, make_set
from apq_moo.benchmarks.speed.streaming_training import trainings
from apq_moo.data.folders import load_image_folder
from apq_moo.data.loading import AHEAD, workers
from apq_moo.data.streamed import StreamedSet
from apq_moo.errors import reported
from apq_moo.files import write_json
from apq_moo.supernet.distributed import ALONE
from apq_moo.supernet.streaming import StreamedBatches
from apq_moo.versions import processor, versions

_CPU = torch.device("cpu")
_GIB = 2**30
_EVERY = 20
"""Batches between looks at the memory."""

_COMPARED = 4
"""Batches whose bytes are compared."""

_ROUNDS = 3


def memory() -> tuple[int, int]:
    """Bytes of this process and its children: resident, and proportional."""
    totals = {"Rss": 0, "Pss": 0}
    for pid in (os.getpid(), *(child.pid for child in active_children())):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in totals:
                totals[name] += 1024 * int(rest.split()[0])
    return totals["Rss"], totals["Pss"]


def memory_over(batches: StreamedBatches, epochs: int) -> list[dict[str, float]]:
    """The most memory of each epoch, in GiB."""
    most = [[0, 0] for _ in range(epochs)]
    for number, _ in enumerate(islice(batches.read(0), epochs * batches.per_epoch)):
        if number % _EVERY == 0:
            of = most[number // batches.per_epoch]
            of[:] = map(max, of, memory())
    return [{"resident": round(a / _GIB, 3), "proportional": round(b / _GIB, 3)} for a, b in most]


def squares_of(batches: StreamedBatches) -> Iterator[Tensor]:
    """The bytes of all batches."""
    return (pixels for _, pixels in batches.read(0))


def bare_of(images: StreamedSet, batches: StreamedBatches, n: int) -> Iterator[Tensor]:
    """The same bytes by a plain loader, which also reads ahead of them.

    Args:
        images: the set.
        batches: whose order is taken.
        n: of so many batches.
    """
    n_workers = max(1, workers())
    shares = islice(batches._shares(0), n + AHEAD * n_workers)
    rows = np.concatenate([share.rows for share in shares]).tolist()
    loader = bare_batches(images.train.listing.paths(), rows, batches.size, n_workers)
    return islice(loader, n)


def agree(images: StreamedSet, batches: StreamedBatches) -> None:
    """Check that both ways give the same bytes.

    Raises:
        SystemExit: they do not.
    """
    ours = torch.cat(list(islice(squares_of(batches), _COMPARED)))
    theirs = torch.cat(list(bare_of(images, batches, _COMPARED)))
    if not torch.equal(ours, theirs):
        sys.exit("the streamed images differ from those of a plain loader: nothing is timed")


def timed(pieces: Iterator[Tensor]) -> tuple[int, float, float]:
    """Images, seconds on the clock, and seconds of cores of this process and its workers."""
    begun, spent, n = time.perf_counter(), _core_seconds(), 0
    for piece in pieces:
        n += len(piece)
    del pieces  # ends the workers, whose time is known only then
    return n, time.perf_counter() - begun, _core_seconds() - spent


def _core_seconds() -> float:
    found = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        found += usage.ru_utime + usage.ru_stime
    return found


def speed(images: StreamedSet, batches: StreamedBatches, n: int) -> dict[str, Any]:
    """Images a second, streamed and by a plain loader, in turns.

    Args:
        images: the set.
        batches: of it.
        n: batches of each round.
    """
    rounds: dict[str, list[tuple[int, float, float]]] = {"streamed": [], "bare": []}
    for _ in range(_ROUNDS):
        rounds["streamed"].append(timed(islice(squares_of(batches), n)))
        rounds["bare"].append(timed(bare_of(images, batches, n)))
    found: dict[str, Any] = {}
    for place, unit in ((2, "per_core"), (1, "per_second")):
        rates = {
            name: float(np.median([of[0] / of[place] for of in each]))
            for name, each in rounds.items()
        }
        found[unit] = {name: round(rate, 1) for name, rate in rates.items()}
        found[unit]["ratio"] = round(rates["streamed"] / rates["bare"], 3)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Make the set, measure, and print what was found."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the set is made")
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--pixels", type=int, default=256, help="of the JPEGs, square")
    parser.add_argument("--size", type=int, default=224, help="of the images that are read")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2, help="over which memory is watched")
    parser.add_argument("--timed", type=int, default=30, help="batches of a round")
    parser.add_argument("--steps", type=int, default=60, help="of a training; 0: none")
    parser.add_argument("--jobs", type=int, default=2, help="processes that make the set")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    args = parser.parse_args(argv)
    if min(args.images, args.pixels, args.size, args.batch, args.epochs, args.timed) < 1:
        parser.error("all numbers must be at least 1")
    folder = args.folder.absolute()
    make_set(folder, args.images, args.pixels, args.jobs)
    images = load_image_folder(folder, size=args.size, stream=True)
    assert isinstance(images, StreamedSet)
    if args.pixels != images.train.whole_squares().size:
        parser.error("a plain loader gives the same bytes where --size is 0.875 times --pixels")
    batches = StreamedBatches(images, args.batch, 0, _CPU, group=ALONE)
    if batches.per_epoch < max(args.timed, _COMPARED):
        parser.error(f"an epoch has {batches.per_epoch} batches: lower --timed or raise --images")
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "images": args.images,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "workers": workers(),
        "versions": versions(),
    }

    def tell(name: str, value: object) -> None:
        found[name] = value
        print(f"{name}: {json.dumps(value)}", flush=True)

    agree(images, batches)
    tell("memory_gib", memory_over(batches, args.epochs))
    tell("speed", speed(images, batches, args.timed))
    if args.steps:
        tell("training", trainings(folder, args.steps))
    if args.out is not None:
        write_json(args.out, found)


if __name__ == "__main__":
    with reported():
        main()
