"""Checking a file: whether it is whole, what it computes, how well and how fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from apq_moo.data import ImageSource, load_images
from apq_moo.data.images import LabelledImages, Split
from apq_moo.data.pixels import FloatImages
from apq_moo.deploy.executing import execute
from apq_moo.deploy.exporting import format_of
from apq_moo.deploy.integers import IntegerNetwork, Singles
from apq_moo.deploy.parity import Parity, compare, grids
from apq_moo.deploy.storage import digest_of_network, load_network
from apq_moo.errors import UserError

_C_MACS, _QONNX_MACS, _LEAST_IMAGES = 2e10, 2e8, 100
"""Images that a compiled program classifies take about half a minute, those of ``qonnx`` less."""

SPLITS = ("validation", "test")
_COMPARED = 64
_PART = 512
"""Images that the package runs at a time."""

_FLOATS = 2**28
"""Of the test images that are compared."""


@dataclass(frozen=True)
class Ran:
    """A file, run by what is made to run it.

    Attributes:
        runtime: its name and version.
        how: its settings, in words, as they continue its name.
        parity: compared with the package on the test images.
        accuracy: in percent, on these.
        kernels: how many convolutions run as integers, and how many there are; None where unknown.
    """

    runtime: str
    how: str
    parity: Parity
    accuracy: float
    kernels: tuple[int, int] | None = None

    def __str__(self) -> str:
        text = f"{self.runtime}{self.how}: {self.parity}; {self.accuracy:.2f} % right"
        if self.kernels is None:
            return text
        return f"{text}; {self.kernels[0]} of {self.kernels[1]} convolutions run as integers"


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        path: the file.
        form: the format, and for ONNX the arithmetic.
        network: what it computes.
        bytes: of the file.
        accuracy: of the package's own evaluation, by split, in percent.
        runs: by each runtime.
        latency_ms: of one image on one thread: of the file, and of the same network in floats;
            empty where it was not timed.
    """

    path: str
    form: str
    network: IntegerNetwork
    bytes: int
    accuracy: dict[str, float]
    runs: tuple[Ran, ...] = ()
    latency_ms: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {
            "format": self.form,
            "bytes": self.bytes,
            "accuracy": self.accuracy,
            "runs": [asdict(run) for run in self.runs],
            "latency_ms": self.latency_ms,
        }

    def lines(self) -> list[str]:
        """What a user is told."""
        subnet = self.network.subnet
        right = ", ".join(f"{value:.2f} % ({split})" for split, value in self.accuracy.items())
        lines = [
            f"{self.path}: {self.form}, {self.bytes:,} bytes; {len(subnet.blocks)} blocks of "
            f"{subnet.mean_bits:.2g} bits on average, as read back from it",
            f"right: {right}",
            *map(str, self.runs),
        ]
        if self.latency_ms:
            own, floats = self.latency_ms["file"], self.latency_ms["floats"]
            slower = ": integers are slower than floats here" if own > floats else ""
            lines.append(
                f"one image on one thread: {own:.3g} ms, the same in floats {floats:.3g} ms{slower}"
            )
        return lines


def images_for(network: IntegerNetwork, name: str | None = None) -> ImageSource:
    """The images that a network was made for, or others that it is to be checked on.

    Args:
        network: says which.
        name: of others.

    Raises:
        UserError: they are not here; are no longer those that the network was made from; or do not
            fit it.
    """
    wanted = network.origin.get("images")
    if name is None and not isinstance(wanted, str):
        raise UserError("the network does not say which images it was made for; name some")
    images = load_images(str(name or wanted))
    shape = images.shape
    if shape != network.image_shape:
        raise UserError(
            f"image set {images.name!r} has images of shape {shape}, and the network reads "
            f"{network.image_shape}"
        )
    if name is None and images.checksum != network.origin.get("images_sha256"):
        raise UserError(f"image set {images.name!r} is not the one that the network was made from")
    return images


def logits_of(network: IntegerNetwork, images: ImageSource) -> dict[str, Singles]:
    """The package's own logits by split of :data:`SPLITS`.

    They are computed by torch, several times faster, where that gives the bits of numpy's on the
    first images.
    """
    from apq_moo.deploy.torch_program import TorchNetwork, module_logits

    module, few = TorchNetwork(network), images.test[:_COMPARED].images
    same = np.array_equal(module_logits(module, few), execute(network, few))
    run = partial(module_logits, module) if same else partial(execute, network)
    return {split: by_parts(run, images, split) for split in SPLITS}


def by_parts(run: Callable[[FloatImages], Singles], images: ImageSource, split: str) -> Singles:
    """Logits of all images of a split, few of which are floats at a time.

    Args:
        run: gives logits of shape ``(n, classes)`` of images.
        images: the data set.
        split: of it.
    """
    blocks = images.blocks([split])
    return np.concatenate([run(part.images) for block in blocks for part in block.parts(_PART)])


def check(
    path: str | Path,
    images: ImageSource | str | None = None,
    known: tuple[IntegerNetwork, dict[str, Singles]] | None = None,
) -> Checked:
    """Check a file of any format.

    Args:
        path: the file.
        images: instead of those that the network was made for, or their name.
        known: a network and what :func:`logits_of` gave of it, if that is known already.

    Raises:
        UserError: it is damaged, altered or of other origin; its graph shows another policy than it
            says; the images are not here; or the runtime is missing or too old.
    """
    path = Path(path)
    form = format_of(path)
    policy = form.policy(path)
    network, runner = _RUNNERS[form.suffix](path)
    if policy != network.subnet:
        raise UserError(f"{path} has been altered: its graph has another policy than it says")
    if images is None or isinstance(images, str):
        images = images_for(network, images)
    if known is not None and digest_of_network(known[0]) == digest_of_network(network):
        logits = known[1]
    else:
        logits = logits_of(network, images)
    accuracy = {split: right(logits[split], images.split(split)) for split in SPLITS}
    few = images.test[: max(1, _FLOATS // int(np.prod(images.shape)))]
    name, runs, latency = runner(few, logits["test"][: len(few)])
    return Checked(str(path), name, network, path.stat().st_size, accuracy, runs, latency)


def right(logits: Singles, split: LabelledImages) -> float:
    """Percent of rightly classified images."""
    return float(100 * np.mean(logits.argmax(1) == split.labels))


Found = tuple[str, tuple[Ran, ...], dict[str, float]]
"""What a runner says: the form's name, runs, and times."""


def _network(path: Path) -> tuple[IntegerNetwork, Any]:
    return load_network(path), lambda _split, _logits: ("network of integers", (), {})


def _c(path: Path) -> tuple[IntegerNetwork, Any]:
    from apq_moo.deploy.c import c_source
    from apq_moo.deploy.c_program import as_levels, compiler_version, run_c
    from apq_moo.deploy.c_reading import read_c

    network, name = read_c(path), compiler_version()
    made = c_source(network)
    form = f"C with weights of {made.weight_bytes:,} bytes and activations of {made.arena_bytes:,}"

    def run(split: Split, wanted: Singles) -> Found:
        if name is None:
            return f"{form}, not run, since no C compiler is here", (), {}
        some = max(_LEAST_IMAGES, int(_C_MACS / sum(x.shape.macs for x in network.layers)))
        part = split[:some]
        _, found = run_c(path, as_levels(network, part.images), levels=True)
        ran = Ran(name, "-O2", compare(wanted[:some], found), right(found, part))
        return form, (ran,), {}

    return network, run


def _torch(path: Path) -> tuple[IntegerNetwork, Any]:
    import torch

    from apq_moo.deploy.torch_program import load_torch, torch_logits

    file = load_torch(path)

    def run(split: Split, wanted: Singles) -> Found:
        found = torch_logits(file, split.images)
        ran = Ran(f"torch {torch.__version__}", "", compare(wanted, found), right(found, split))
        return "torch program", (ran,), {}

    return file.network, run


def _onnx(path: Path) -> tuple[IntegerNetwork, Any]:
    from apq_moo.deploy.onnx_files import load_onnx
    from apq_moo.deploy.onnx_runtime import runtime

    runtime()  # refused here, before anything is computed
    file = load_onnx(path)

    def run(split: Split, wanted: Singles) -> Found:
        form = f"ONNX, {file.arithmetic}" + (", 4-bit integers" if file.native_int4 else "")
        return form, *_by_onnxruntime(file.network, file.model, split, wanted)

    return file.network, run


def _qonnx(path: Path) -> tuple[IntegerNetwork, Any]:
    from apq_moo.deploy.qonnx_files import load_qonnx
    from apq_moo.deploy.qonnx_running import qonnx_parity, version
    from apq_moo.deploy.steps import is_power_of_two

    file = load_qonnx(path)
    network, name = file.network, version()
    whole = all(is_power_of_two(grid.step) for grid in grids(network).values())
    form = "QONNX with scales that are powers of two" if whole else "QONNX"

    def run(split: Split, wanted: Singles) -> Found:
        if name is None:
            return f"{form}, not run, since qonnx is not here: pip install 'apq-moo[qonnx]'", (), {}
        some = max(_LEAST_IMAGES, int(_QONNX_MACS / sum(x.shape.macs for x in network.layers)))
        part = split[:some]
        parity, found = qonnx_parity(network, file.model, part.images, wanted[:some])
        return form, (Ran(f"qonnx {name}", " node by node", parity, right(found, part)),), {}

    return network, run


def _by_onnxruntime(
    network: IntegerNetwork, model: bytes, split: Split, wanted: Singles
) -> tuple[tuple[Ran, ...], dict[str, float]]:
    from apq_moo.deploy.onnx_files import float_model
    from apq_moo.deploy.onnx_parity import onnx_parity
    from apq_moo.deploy.onnx_runtime import Level, kernels, latency_ms, runtime

    runs, name = [], f"onnxruntime {runtime().__version__}"
    levels: dict[Level, str] = {"none": " without optimisation", "all": " with all optimisations"}
    for level, words in levels.items():
        parity, found = onnx_parity(network, model, split.images, level, wanted)
        fused = None
        if level == "all":
            run = kernels(model)
            integers = run["QLinearConv"] + run["ConvInteger"]
            fused = integers, integers + run["Conv"] + run["FusedConv"]
        runs.append(Ran(name, words, parity, right(found, split), fused))
    image = split[:1].images
    times = {"file": latency_ms(model, image), "floats": latency_ms(float_model(network), image)}
    return tuple(runs), times


_RUNNERS: Mapping[str, Any] = {
    ".safetensors": _network,
    ".c": _c,
    ".pt2": _torch,
    ".onnx": _onnx,
    ".qonnx.onnx": _qonnx,
}
