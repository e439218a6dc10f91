"""A generated set of JPEGs, and what reads it with torch's loader and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from apq_moo.data.loading import AHEAD
from apq_moo.workers import in_workers

CLASSES = 10
_TEST = 20
"""Every how many images one is a test image."""

_TOGETHER = 500


def make_set(folder: Path, n: int, pixels: int, jobs: int) -> None:
    """Make ``n`` square JPEGs of smooth noise; those that are there stay.

    Args:
        folder: gets ``train`` and ``test``, with a folder for each of :data:`CLASSES` classes.
        n: images in all.
        pixels: their side.
        jobs: processes.
    """
    for split in ("train", "test"):
        for label in range(CLASSES):
            (folder / split / f"class{label}").mkdir(parents=True, exist_ok=True)
    parts = (
        (folder, range(first, min(n, first + _TOGETHER)), pixels)
        for first in range(0, n, _TOGETHER)
    )
    with closing(in_workers(_make, parts, jobs)) as made:
        for _ in made:
            pass


def _make(folder: Path, numbers: range, pixels: int) -> None:
    for i in numbers:
        split = "test" if i % _TEST == 0 else "train"
        path = folder / split / f"class{i // _TEST % CLASSES}" / f"{i:07}.jpg"
        if path.exists():
            continue
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        image = np.asarray(coarse.resize((pixels, pixels))).astype(np.int64)
        image = image + rng.integers(-16, 17, image.shape)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, quality=85)


def space_of(folder: Path, size: int) -> str:
    """A space whose images are such a set, as TOML: that of digits, at another size."""
    text = (Path(str(files("apq_moo.space"))) / "presets" / "digits.toml").read_text()
    for old, new in (
        ('name = "digits"', 'name = "generated"'),
        ('images = "digits"', f'images = "folder:{folder}@{size}-stream"'),
        ("input_size = 8", f"input_size = {size}"),
        ("input_channels = 1", "input_channels = 3"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


class Bare(Dataset[Tensor]):
    """Images as they are in their files.

    Args:
        paths: of square images of one size.
    """

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __getitem__(self, row: int) -> Tensor:
        """Bytes of shape ``(height, width, 3)``."""
        with Image.open(self.paths[row]) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))

    def __len__(self) -> int:
        return len(self.paths)


def bare_batches(paths: list[str], rows: list[int], together: int, n: int) -> Iterator[Any]:
    """Bytes of images by a plain ``DataLoader``.

    Args:
        paths: of all images.
        rows: which ones, in order.
        together: images that a worker hands over at a time.
        n: workers.
    """
    loader = DataLoader(Bare(paths), together, sampler=rows, num_workers=n, prefetch_factor=AHEAD)
    return iter(loader)
