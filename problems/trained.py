"""The supernet behind accuracies, for searches that descend by its gradients.

Its weights stay as they are: what such searches train is a distribution over networks, on the
images that the weights were trained on. A step is paid for in evaluations: by the images that are
run forward and backward in it, over those that are run to score a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from apq_moo.arrays import FloatArray
from apq_moo.data import load_images
from apq_moo.data.assets import SUPERNET, Assets, find_assets
from apq_moo.data.images import ImageSource
from apq_moo.errors import UserError
from apq_moo.extras import require
from apq_moo.problems.accuracy import AccuracySource
from apq_moo.space import Subnet, superspace
from apq_moo.threads import one_torch_thread

if TYPE_CHECKING:
    from torch import Tensor

    from apq_moo.supernet.gates import GateGradients, StagePath
    from apq_moo.supernet.mixtures import Mixture
    from apq_moo.supernet.network import Supernet

_CALIBRATION = 3
"""How many classified images an image of a network's calibration takes as long as, about."""

_PASS = 2.3
"""The same of an image that a step runs once, forward or backward, rounded so that gradients pass:
measured on one core for gates and mixtures of two spaces, within a half."""


def supernet_assets(assets: Assets) -> Assets:
    """The assets that hold the supernet of a space: its own, or of the space that it is part of.

    Raises:
        UserError: that has no assets.
    """
    part = bool(assets.space.spec.part_of)
    return find_assets(superspace(assets.space)) if part else assets


def load_trained(assets: Assets) -> tuple[Supernet, ImageSource]:
    """A supernet on the CPU, and the images that it was made from.

    Raises:
        UserError: there is no supernet, or the images differ from those that it was made from.
    """
    from apq_moo.supernet.checkpoint import load_supernet

    supernet, _ = load_supernet(assets.path(SUPERNET), assets.space)
    images = load_images(assets.images)
    if images.checksum != assets.checksums()["images"]:
        raise UserError(
            f"the images {assets.images!r} here are not those that {assets.folder} was made "
            "from; install the same version of their source"
        )
    return supernet, images


def require_trained(source: AccuracySource) -> None:
    """Check, before a search, that a space has a supernet, and that its images and torch are here.

    Raises:
        UserError: it has not, or they are not.
    """
    require("torch", "the supernet")
    assets = supernet_assets(find_assets(source.space, source.assets))
    if not assets.has(SUPERNET):
        raise UserError(f"{assets.folder} has none; name a folder of assets that has one")
    _check_images(assets.images)


@lru_cache(maxsize=8)
def _check_images(name: str) -> None:
    load_images(name)


class TrainedNetwork:
    """The supernet of a space with frozen weights, and its training images.

    Steps are counted by the source (:attr:`AccuracySource.gradient_steps`). On a CPU they run on
    one thread, so that they do not depend on how many there are.

    Args:
        source: of accuracies of the space.

    Attributes:
        evaluation_images: that scoring a network takes as long as.

    Raises:
        UserError: see :func:`load_trained`.
    """

    def __init__(self, source: AccuracySource) -> None:
        from apq_moo.supernet.devices import chosen_device

        self._source = source
        supernet, self._images = load_trained(
            supernet_assets(find_assets(source.space, source.assets))
        )
        self._device = chosen_device(source.on)
        self._supernet = supernet.to(self._device).requires_grad_(False)
        calibration = _CALIBRATION * len(self._images.calibration)
        self.evaluation_images = len(self._images.validation) + calibration

    def price(self, size: int, passes: float) -> float:
        """A step in evaluations.

        Args:
            size: images of its batch; see :meth:`batch`.
            passes: of these through the network, forward or backward.
        """
        return self.batch(size) * passes * _PASS / self.evaluation_images

    def batch(self, size: int) -> int:
        """Images of a batch of at most so many: all, where there are fewer."""
        return min(size, len(self._images.train))

    def batches(self, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented training images and labels, without end.

        Args:
            size: images of a batch; see :meth:`batch`.
            seed: of their order and augmentation.
        """
        from apq_moo.supernet.sources import batches_of

        return batches_of(self._images, self.batch(size), seed, self._device).from_step(0)

    def _count(self) -> None:
        """A step is taken; whoever waits for networks is told that there is none yet."""
        self._source.gradient_steps += 1
        self._source.callback(0)

    def gates(self, batch: tuple[Tensor, Tensor], path: Sequence[StagePath]) -> GateGradients:
        """See :func:`apq_moo.supernet.gates.gate_gradients`."""
        from apq_moo.supernet.gates import gate_gradients

        self._count()
        with one_torch_thread():
            return gate_gradients(self._supernet, *batch, path)

    def mixtures(
        self, batch: tuple[Tensor, Tensor], subnet: Subnet, mixtures: Sequence[Mixture]
    ) -> tuple[float, list[dict[str, FloatArray]]]:
        """See :func:`apq_moo.supernet.mixtures.mixture_gradients`."""
        from apq_moo.supernet.mixtures import mixture_gradients

        self._count()
        with one_torch_thread():
            of = Subnet(self._supernet.space.name, subnet.blocks)
            return mixture_gradients(self._supernet, *batch, of, mixtures)
