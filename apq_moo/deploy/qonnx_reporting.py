"""What an export to QONNX says: what other steps cost, and whether readers take the network."""

from __future__ import annotations

from functools import partial

from apq_moo.data import ImageSource
from apq_moo.deploy.checking import by_parts, images_for, right
from apq_moo.deploy.integers import IntegerNetwork
from apq_moo.deploy.qonnx_readers import reader_lines
from apq_moo.deploy.steps import changed
from apq_moo.deploy.torch_program import TorchNetwork, module_logits
from apq_moo.errors import UserError


def export_lines(
    network: IntegerNetwork,
    *,
    power_of_two: bool = False,
    equal_sums: bool = False,
    images: ImageSource | None = None,
) -> list[str]:
    """What a user is told.

    Args:
        network: before its steps are changed.
        power_of_two: see :func:`apq_moo.deploy.exporting.export`.
        equal_sums: likewise.
        images: instead of those that the network was made for.
    """
    if not power_of_two and not equal_sums:
        return reader_lines(network)
    found = changed(network, powers=power_of_two, sums=equal_sums)
    what = "powers of two as scales" if power_of_two else "one scale for both operands of a sum"
    try:
        images = images or images_for(network)
    except UserError as error:
        cost = f"not compared on images: {error}"
    else:
        before, after = (
            right(by_parts(partial(module_logits, TorchNetwork(each)), images, "test"), images.test)
            for each in (network, found)
        )
        cost = f"{before:.2f} % of the test images right before, {after:.2f} % now"
    return [f"{what}: {cost}", *reader_lines(found)]
