"""Collecting D_FP and D_MP: random subnets of a supernet and their accuracies.

Which subnets are drawn depends on the seed alone; measuring them can stop and go on at any time, in
any number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from glob import escape
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from apq_moo.arrays import FloatArray, IntArray, distinct
from apq_moo.data import ImageSet, load_images
from apq_moo.data.samples import SETS, SampleTable, load_samples
from apq_moo.errors import UserError
from apq_moo.files import sha256, with_defaults
from apq_moo.space import SamplingDistribution, Space, SpaceSpec, Subnet, find_distribution
from apq_moo.supernet.backends import evaluator_for
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.devices import torch_device
from apq_moo.supernet.distributed import join
from apq_moo.supernet.evaluation import Evaluator, calibrate
from apq_moo.supernet.network import SlicedLayer, Supernet, forward

_CHUNK, _CHUNK_ON_GPU = 16, 64
"""Rows that a process measures before it waits for the device and reports."""


@dataclass(frozen=True)
class SampleConfig:
    """How many subnets to draw, and how.

    Attributes:
        fp: full-precision samples to fit to.
        mp: mixed-precision samples to fit to.
        fp_held_out: full-precision samples to judge by.
        mp_held_out: mixed-precision samples to judge by.
        finetune_steps: quantisation-aware training steps of each mixed-precision sample.
        seed: of the draw, and of the fine-tuning batches.
        draw: how they are drawn, one of :data:`apq_moo.space.DISTRIBUTIONS`.
    """

    fp: int = 3000
    mp: int = 1500
    fp_held_out: int = 1000
    mp_held_out: int = 1000
    finetune_steps: int = 0
    seed: int = 0
    draw: str = "uniform"

    def __post_init__(self) -> None:
        find_distribution(self.draw)


def draw(space: Space, config: SampleConfig) -> SampleTable:
    """SamplingDistribution the subnets, distinct over all sets, with accuracies still NaN.

    Raises:
        UserError: the space has too few members.
    """
    rng = np.random.default_rng([config.seed, 3])
    parts: list[IntArray] = []
    for quantised in (False, True):
        suffix = "mp" if quantised else "fp"
        sizes = [getattr(config, suffix), getattr(config, f"{suffix}_held_out")]
        limit = space.count() if quantised else space.count_architectures()
        if sum(sizes) > limit // 2:
            raise UserError(
                f"space {space.name!r} has {limit} distinct members; {sum(sizes)} "
                f"{suffix} samples are more than half of them"
            )
        rows = _distinct(
            space, sum(sizes), rng, find_distribution(config.draw), quantised=quantised
        )
        parts += [rows[: sizes[0]], rows[sizes[0] :]]
    ordered = dict(zip(("fp", "fp_held_out", "mp", "mp_held_out"), parts, strict=True))
    group = np.concatenate(
        [np.full(len(ordered[name]), i, dtype=np.int8) for i, name in enumerate(SETS)]
    )
    X = np.vstack([ordered[name] for name in SETS])
    return SampleTable(X, group, np.full(len(X), np.nan))


def _distinct(
    space: Space, n: int, rng: np.random.Generator, method: SamplingDistribution, *, quantised: bool
) -> IntArray:
    rows = np.empty((0, space.n_var), dtype=np.int64)
    while len(rows) < n:
        drawn = method(space, n, rng)
        rows = distinct(np.vstack([rows, drawn if quantised else space.architecture(drawn)]))
    return rows[:n]


class Measurer:
    """Measures the validation accuracy of rows, with an optional fine-tune.

    Args:
        supernet: the weights.
        images: the data set.
        finetune_steps: quantisation-aware steps before a mixed-precision row is scored.
        seed: of the fine-tuning batches.
    """

    def __init__(
        self, supernet: Supernet, images: ImageSet, *, finetune_steps: int = 0, seed: int = 0
    ) -> None:
        self.space = supernet.space
        self.images = images
        self.finetune_steps = finetune_steps
        self.seed = seed
        self.supernet = supernet
        self.device = next(supernet.parameters()).device
        self.calibration = torch.from_numpy(images.calibration.images).to(self.device)
        self.evaluator = evaluator_for(supernet, self.calibration)
        self._splits: dict[str, tuple[Tensor, Any, Tensor]] = {}

    def hits(self, subnet: Subnet, split: str, *, quantised: bool) -> NDArray[np.bool_]:
        """Which images of a split a subnet classifies rightly, shape ``(n,)``."""
        right: NDArray[np.bool_] = self._right(subnet, split, quantised=quantised).cpu().numpy()
        return right

    def _right(self, subnet: Subnet, split: str, *, quantised: bool) -> Tensor:
        """The same on the device, without waiting for it."""
        if split not in self._splits:
            part = self.images.split(split)
            images = torch.from_numpy(part.images).to(self.device)
            labels = torch.from_numpy(part.labels).to(self.device)
            self._splits[split] = (images, self.evaluator.prepare(images), labels)
        images, prepared, labels = self._splits[split]
        if quantised and self.finetune_steps:
            layers = self.finetune(self.supernet.slice(subnet))
            tuned = Evaluator(self.supernet, self.calibration)
            logits = tuned.logits(layers, images, quantised=True)
        else:
            logits = self.evaluator.logits(subnet, prepared, quantised=quantised)
        return logits.argmax(1) == labels

    def accuracy(self, subnet: Subnet, split: str, *, quantised: bool) -> float:
        """Accuracy of a subnet on a split of the images, in percent."""
        return 100.0 * float(self.hits(subnet, split, quantised=quantised).mean())

    def finetune(self, layers: Sequence[SlicedLayer]) -> list[SlicedLayer]:
        """Train a copy of a subnet at its bits for a few steps, ranges and statistics fixed.

        Returns:
            The layers with new weights; the supernet is unchanged.
        """
        recorded = calibrate(layers, self.calibration, quantised=True)
        layers = [_leaf(item) for item in layers]
        weights = [item.weight for item in layers]
        optimiser = torch.optim.SGD(weights, lr=0.005, momentum=0.9)
        train = self.images.train
        rng = np.random.default_rng([self.seed, 4])
        for _ in range(self.finetune_steps):
            chosen = rng.integers(0, len(train), size=min(128, len(train)))
            x = torch.from_numpy(self.images.augment(train.images[chosen], rng)).to(self.device)
            y = torch.from_numpy(train.labels[chosen]).to(self.device)
            optimiser.zero_grad()
            F.cross_entropy(forward(layers, x, recorded, quantised=True), y).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
        return layers

    def measure(self, X: IntArray, quantised: NDArray[np.bool_]) -> list[float]:
        """Validation accuracies of rows, in percent."""
        right = [
            self._right(subnet, "validation", quantised=bool(q)).double().mean()
            for subnet, q in zip(self.space.decode(X), quantised, strict=True)
        ]
        found: list[float] = (100.0 * torch.stack(right)).tolist()
        return found


def _leaf(item: SlicedLayer) -> SlicedLayer:
    weight = item.weight.detach().clone().requires_grad_()
    scale = item.scale.detach() if item.scale is not None else None
    return replace(item, weight=weight, scale=scale, bias=item.bias.detach())


_worker: Measurer | None = None


def _start_worker(
    spec: SpaceSpec, checkpoint: str, images: str, steps: int, seed: int, on: str
) -> None:
    global _worker  # noqa: PLW0603  one measurer per worker process
    torch.set_num_threads(1)
    supernet, _ = load_supernet(checkpoint, Space(spec))
    supernet = supernet.to(torch_device(on))
    _worker = Measurer(supernet, load_images(images), finetune_steps=steps, seed=seed)


def _work(X: IntArray, quantised: NDArray[np.bool_]) -> list[float]:
    assert _worker is not None
    return _worker.measure(X, quantised)


def collect(
    space: Space,
    checkpoint: str | Path,
    images: str,
    config: SampleConfig,
    out: str | Path,
    *,
    jobs: int = 1,
    on: str = "cpu",
    every_s: float = 10.0,
    callback: Callable[[int, int], None] | None = None,
) -> SampleTable:
    """Measure all samples, continuing a table that is already there.

    Under ``torchrun`` each process measures its share, in a file of its own beside ``out``
    (``*.part0`` ...); such files of an interrupted collection are taken up, whoever wrote them.

    Args:
        space: the space.
        checkpoint: the supernet's file.
        images: the name of the data set.
        config: what to draw.
        out: the table's file; it is stored now and then, and read first if it is there.
        jobs: processes.
        on: the device of all of them.
        every_s: seconds between stores.
        callback: told ``(done, total)``.

    Raises:
        UserError: a file is unreadable, ``out`` holds a table of other origin, or there is no such
            device.
    """
    load_supernet(checkpoint, space)  # refused here, before any worker starts
    provenance = {
        "space": space.name,
        "digest": space.digest,
        "images": images,
        "images_sha256": load_images(images).checksum,
        "supernet_sha256": sha256(checkpoint),
        "config": asdict(config),
    }
    group, device = join(on)
    out = Path(out)
    own = out if group.size == 1 else out.with_name(f"{out.name}.part{group.rank}")
    table = draw(space, config)
    acc, spent = _merged(table, out, space, provenance)
    group.wait()  # all have read what there is
    begun = stored = time.perf_counter()

    def snapshot() -> SampleTable:
        seconds = round(spent + time.perf_counter() - begun, 3)
        return replace(table, acc=acc.copy(), provenance={**provenance, "seconds": seconds})

    quantised = np.isin(table.group, [SETS.index("mp"), SETS.index("mp_held_out")])
    todo = np.flatnonzero(np.isnan(acc))
    # Small sets first: an unfinished table has what judges and transfers, and some of the rest.
    todo = todo[np.argsort(np.bincount(table.group)[table.group[todo]], kind="stable")]
    todo = todo[group.rank :: group.size]
    size = _CHUNK if device.type == "cpu" else _CHUNK_ON_GPU
    chunks = [todo[i : i + size] for i in range(0, len(todo), size)]
    start = (space.spec, str(checkpoint), images, config.finetune_steps, config.seed, str(device))
    with _measuring(start, jobs) as submit:
        for chunk, found in submit(chunks, table.X, quantised):
            acc[chunk] = found
            now = time.perf_counter()
            if now - stored > every_s:
                snapshot().save(own)
                stored = now
            if callback is not None:
                callback(int(np.isfinite(acc).sum()), len(acc))
    snapshot().save(own)
    group.wait()
    if group.leads:
        acc, spent = _merged(table, out, space, provenance)
        result = replace(table, acc=acc, provenance={**provenance, "seconds": round(spent, 3)})
        result.save(out)
        for part in _parts(out):
            part.unlink()
    group.wait()
    return load_samples(out, space)


def _parts(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f"{escape(out.name)}.part*"))


def _merged(
    table: SampleTable, out: Path, space: Space, provenance: dict[str, Any]
) -> tuple[FloatArray, float]:
    """Accuracies that are known from a table and its parts, and the seconds they took.

    Raises:
        UserError: a file is unreadable or of other origin.
    """
    acc, spent = table.acc.copy(), 0.0
    for path in (out, *_parts(out)):
        if not path.exists():
            continue
        earlier = load_samples(path, space)
        spent = max(spent, float(earlier.provenance.pop("seconds", 0.0)))
        known = earlier.provenance
        known["config"] = with_defaults(known.get("config"), SampleConfig)
        if known != provenance or not np.array_equal(earlier.X, table.X):
            raise UserError(f"{path} holds samples of another supernet or with other settings")
        acc = np.where(np.isnan(acc), earlier.acc, acc)
    return acc, spent


Submit = Callable[
    [Sequence[IntArray], IntArray, NDArray[np.bool_]], Iterator[tuple[IntArray, list[float]]]
]


@contextmanager
def _measuring(start: tuple[SpaceSpec, str, str, int, int, str], jobs: int) -> Iterator[Submit]:
    """A function that measures chunks of rows and yields each as it is done."""
    pool = ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_start_worker, initargs=start
    )

    def submit(
        chunks: Sequence[IntArray], X: IntArray, quantised: NDArray[np.bool_]
    ) -> Iterator[tuple[IntArray, list[float]]]:
        futures = {pool.submit(_work, X[part], quantised[part]): part for part in chunks}
        for future in as_completed(futures):
            yield futures[future], future.result()

    try:
        yield submit
    finally:
        # Not by a with block: its own shutdown would take the cancelling back.
        pool.shutdown(cancel_futures=True)
