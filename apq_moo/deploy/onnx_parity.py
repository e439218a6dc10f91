"""What ONNX Runtime makes of an exported network, compared with the network itself."""

from __future__ import annotations

from apq_moo.deploy.integers import IntegerNetwork, Singles
from apq_moo.deploy.onnx_runtime import Level, run
from apq_moo.deploy.parity import Parity, compare, compare_levels, grids, levels_of

LEVEL_IMAGES = 64
"""On how many images all levels are compared."""


def onnx_parity(
    network: IntegerNetwork,
    model: bytes,
    images: Singles,
    level: Level,
    wanted: Singles,
) -> tuple[Parity, Singles]:
    """Compare the classes of all images, and all levels of the first :data:`LEVEL_IMAGES`.

    Args:
        network: what is wanted.
        model: an exported one.
        images: shape ``(n, c, h, w)``.
        level: of the runtime's optimisation. Values from within a graph keep it from fusing, so
            that levels are compared without optimisation only.
        wanted: logits of the network.

    Returns:
        The comparison, and the logits that the runtime gives.

    Raises:
        UserError: the runtime is missing, too old, or refuses the model.
    """
    (found,) = run(model, images, level)
    if level != "none":
        return compare(wanted, found), found
    _, levels = levels_of(network, images[:LEVEL_IMAGES])
    places = list(levels)
    _, *values = run(model, images[:LEVEL_IMAGES], level, places)
    lows = grids(network)
    inside = {
        place: value.transpose(0, 2, 3, 1).astype("float32") + lows[place].low
        for place, value in zip(places, values, strict=True)
    }
    return compare(wanted, found, compare_levels(levels, inside)), found
