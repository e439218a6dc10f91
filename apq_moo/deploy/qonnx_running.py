"""Running QONNX models node by node by the ``qonnx`` package, and what it says they cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from apq_moo.deploy.integers import IntegerNetwork, Singles
from apq_moo.deploy.parity import Parity, compare, compare_levels, grids, levels_of
from apq_moo.errors import UserError

LEVEL_IMAGES = 64
"""On how many images all levels are compared."""

_BATCH = 200


def version() -> str | None:
    """The version of ``qonnx``; None where it is not installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    try:
        return version_of("qonnx")
    except PackageNotFoundError:
        return None


def wrapped(model: onnx.ModelProto) -> Any:
    """A model as the ``qonnx`` package has it.

    Raises:
        UserError: it is not installed.
    """
    try:
        from qonnx.core.modelwrapper import ModelWrapper
    except ImportError as error:
        raise UserError(
            f"running QONNX models needs qonnx ({error}): pip install 'apq-moo[qonnx]'"
        ) from error
    return ModelWrapper(model)


def run_qonnx(
    model: bytes, images: Singles, values: Sequence[str] = ()
) -> tuple[Singles, dict[str, NDArray[Any]]]:
    """Logits of images, and other values of a graph, each of its nodes run on its own.

    Args:
        model: serialised.
        images: shape ``(n, c, h, w)``; the graph's single one becomes as many.
        values: names of others.

    Raises:
        UserError: ``qonnx`` is not installed.
    """
    parts: list[dict[str, NDArray[Any]]] = []
    for first in range(0, len(images), _BATCH):
        some = images[first : first + _BATCH]
        whole = wrapped(_with_batch(model, len(some)))
        from qonnx.core.onnx_exec import execute_onnx

        found = execute_onnx(whole, {"image": some}, return_full_exec_context=True)
        parts.append({name: found[name] for name in ("logits", *values)})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return whole.pop("logits"), whole


def _with_batch(model: bytes, n: int) -> onnx.ModelProto:
    """A model of one image for more of them."""
    found = onnx.ModelProto.FromString(model)
    graph = found.graph
    constants = {item.name for item in graph.initializer}
    weights = {node.output[0] for node in graph.node if node.input[0] in constants}
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.name not in weights:
            info.type.tensor_type.shape.dim[0].dim_value = n
    return found


def qonnx_parity(
    network: IntegerNetwork, model: bytes, images: Singles, wanted: Singles
) -> tuple[Parity, Singles]:
    """Compare the classes of all images, and all levels of the first :data:`LEVEL_IMAGES`.

    Args:
        network: what is wanted.
        model: an exported one.
        images: shape ``(n, c, h, w)``.
        wanted: logits of the network.

    Returns:
        The comparison, and the logits that ``qonnx`` gives.

    Raises:
        UserError: it is not installed.
    """
    found, _ = run_qonnx(model, images)
    few = images[:LEVEL_IMAGES]
    _, levels = levels_of(network, few)
    return compare(wanted, found, compare_levels(levels, qonnx_levels(network, model, few))), found


def qonnx_levels(network: IntegerNetwork, model: bytes, images: Singles) -> dict[str, Singles]:
    """The levels of every activation by its place, shape ``(n, height, width, c)``.

    Raises:
        UserError: ``qonnx`` is not installed.
    """
    places = grids(network)
    _, values = run_qonnx(model, images, list(places))
    found = {}
    for place, grid in places.items():
        value = values[place] if values[place].ndim > 2 else values[place][:, :, None, None]
        levels: Singles = np.rint(value / np.float32(grid.step)).astype(np.float32)
        found[place] = levels.transpose(0, 2, 3, 1)
    return found


def bit_operations(model: bytes) -> float:
    """Bit operations of one image by ``qonnx``'s analysis of its cost.

    They are multiply-accumulates times bits of weights times bits of activations, as the objective
    ``bitops`` counts them in billions. Weights of 0 count; the analysis leaves them out where
    ``discount_sparsity`` is not switched off.

    Raises:
        UserError: ``qonnx`` is not installed.
    """
    whole = wrapped(onnx.ModelProto.FromString(model))
    from qonnx.util.inference_cost import inference_cost

    costs = inference_cost(whole, discount_sparsity=False)
    return float(costs["total_cost"]["total_bops"])
