"""What an export to QONNX says: whether readers take the network, and what powers of two cost."""

from __future__ import annotations

from apq_moo.data import ImageSet
from apq_moo.deploy.checking import images_for, right
from apq_moo.deploy.integers import IntegerNetwork
from apq_moo.deploy.power_of_two import power_of_two as with_powers
from apq_moo.deploy.qonnx_readers import reader_lines
from apq_moo.deploy.torch_program import TorchNetwork, module_logits
from apq_moo.errors import UserError


def export_lines(
    network: IntegerNetwork, *, power_of_two: bool, images: ImageSet | None = None
) -> list[str]:
    """What a user is told.

    Args:
        network: before scales are rounded.
        power_of_two: whether they are.
        images: instead of those that the network was made for.
    """
    if not power_of_two:
        return reader_lines(network)
    changed = with_powers(network)
    try:
        test = (images or images_for(network)).test
    except UserError as error:
        cost = f"not compared on images: {error}"
    else:
        before, after = (
            right(module_logits(TorchNetwork(each), test.images), test)
            for each in (network, changed)
        )
        cost = f"{before:.2f} % of the test images right before, {after:.2f} % now"
    return [f"powers of two as scales: {cost}", *reader_lines(changed)]
