"""What breaks an integer network for the tools that read QONNX: FINN and hls4ml.

Only conditions that these tools document, or check themselves, are told here:

* Zero points other than 0: FINN's handlers of Quant nodes (``qonnx_activation_handlers``,
  ``fold_quant_weights``) raise errors; hls4ml makes fixed-point types of quantisers with zero
  point 0 and one scale that is a power of two, anything else is scaled explicitly and "has
  generally been tested less" (hls4ml pull request 832, ``passes/quant_opt.py``).
* A Clip: FINN makes thresholds of a Quant behind a Relu, a batch norm or another affine node;
  hls4ml's reader of ONNX has no Clip.
* Floats between blocks: FINN's layers for sums and pooling skip floats (``InferAddStreamsLayer``,
  ``InferGlobalAccPoolLayer``), hls4ml's reader has no Cast, and without a quantiser knows no type.
* Sums: FINN takes a factor out of a sum if both operands have the same one
  (``MoveLinearPastEltwiseAdd``, pull request 110; compare issue 954).
* Exact ties: FINN's thresholds take the upper level, all others here the even one (pull request
  1675 is about that). They occur where a quantiser reads whole multiples of another one's step:
  what another one gave, a sum of two, or a mean, and then as a rule where steps are powers of two.
* Gains of 0: only positive factors are absorbed into thresholds (``AbsorbMulIntoMultiThreshold``).
* Depthwise layers with more output than input channels: ``LowerConvsToMatMul`` of the ``qonnx``
  package, which FINN uses, knows depthwise convolutions with as many.

Both take weights of any bits with a scale of 1, batch norms, and global average pooling. FINN turns
quantisers of up to 8 bits into thresholds, more than integer networks have; unsigned ones that are
not behind a Relu, as that of the image is not, since August 2026 (pull request 1653).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from apq_moo.deploy.integers import MOST_BITS, Grid, IntegerNetwork
from apq_moo.deploy.parity import grids
from apq_moo.deploy.qonnx_graph import clipped, zero_point
from apq_moo.deploy.steps import is_power_of_two

_FITS = {"FINN": "fits", "hls4ml": "fits, as apq_moo.deploy.hls4ml_model reads the file"}


def misfits(network: IntegerNetwork) -> Mapping[str, tuple[str, ...]]:
    """What breaks a network, by the reader's name: nothing where it fits.

    Args:
        network: as it is exported.
    """
    steps = {place: grid.step for place, grid in grids(network).items()}
    odd = _some("scale", [p for p, step in steps.items() if not is_power_of_two(step)])
    shared = _shared(network)
    return MappingProxyType(
        {
            "FINN": (*shared, *_sums(network), *_ties(network), *_gains(network)),
            "hls4ml": (*shared, *(f"{text} no power of two" for text in odd)),
        }
    )


def reader_lines(network: IntegerNetwork) -> list[str]:
    """What a user is told of each reader."""
    return [
        f"{name}: {'; '.join(found) or _FITS[name]}" for name, found in misfits(network).items()
    ]


def _shared(network: IntegerNetwork) -> list[str]:
    """What breaks it for both."""
    zeros = [place for place, grid in grids(network).items() if zero_point(grid)]
    found = [f"{text} a zero point other than 0" for text in _some("quantiser", zeros, "has")]
    found += [f"{text} a Clip at 6" for text in _some("ReLU6", clipped(network), "needs")]
    if network.between_bits != MOST_BITS:
        found.append(f"blocks store floats of {network.between_bits} bits")
    shapes = [layer.shape for layer in network.layers]
    wider = [shape.name for shape in shapes if shape.groups > 1 and shape.c_out != shape.c_in]
    return found + [f"{text} more channels out than in" for text in _some("layer", wider, "has")]


def _sums(network: IntegerNetwork) -> list[str]:
    """Shortcuts whose two operands have different scales."""
    stored: Grid | None = None
    held: Grid | None = None
    unequal = []
    for layer in network.layers:
        if layer.shape.opens_shortcut:
            held = stored
        both = (layer.output, held) if layer.shape.closes_shortcut else ()
        if len({grid.step for grid in both if grid is not None}) > 1:
            unequal.append(layer.shape.part)
        if layer.output is not None:
            stored = layer.total or layer.output
    return [f"{text} operands of different scales" for text in _some("sum", unequal, "has")]


def _ties(network: IntegerNetwork) -> list[str]:
    """Quantisers that meet values right between two levels, the lower one of which is even."""
    stored: Grid | None = None
    held: Grid | None = None
    tied: list[str] = []
    for before, layer in zip((None, *network.layers), network.layers, strict=False):
        if layer.shape.opens_shortcut:
            held = stored
        if stored is not None and before is not None:
            pixels = before.shape.size_out**2 if layer.shape.bias else 1
            values = np.arange(stored.low * pixels, stored.high * pixels + 1)
            if _meets_tie(values, stored.step, layer.input, pixels):
                tied.append(layer.name)
        output, total = layer.output, layer.total
        if output is not None and total is not None and held is not None:
            values = np.arange(output.low + held.low, output.high + held.high + 1)
            if output.step == held.step and _meets_tie(values, held.step, total):
                tied.append(f"{layer.shape.part}.total")
        stored = total or output
    clause = "exact ties, which it rounds up and not to even"
    return [f"{text} {clause}" for text in _some("quantiser", tied, "meets")]


def _meets_tie(levels: NDArray[np.int64], step: float, grid: Grid, pixels: int = 1) -> bool:
    """Whether some ``level * step / pixels`` is a tie of a grid above an even level of it."""
    twice = 2 * levels * step  # exact: products of 24 bits and a few more
    units = np.rint(twice / (grid.step * pixels))
    exact = units * (grid.step * pixels) == twice
    below = (units - 1) / 2
    inside = (below >= grid.low) & (below < grid.high)
    return bool((exact & inside & (units % 4 == 1)).any())


def _gains(network: IntegerNetwork) -> list[str]:
    """Layers with channels that give nothing but a bias."""
    names = [layer.name for layer in network.layers[:-1] if (layer.gain == 0).any()]
    return [f"{text} channels with a gain of 0" for text in _some("layer", names, "has")]


def _some(what: str, names: Sequence[str], verb: str = "is") -> list[str]:
    """How a clause about some places begins: how many there are, and the first."""
    if not names:
        return []
    one = len(names) == 1
    several = {"is": "are", "has": "have", "needs": "need", "meets": "meet"}[verb]
    noun = what if one else f"{what}s"
    where = names[0] if one else f"{names[0]} and others"
    return [f"{len(names)} {noun} ({where}) {verb if one else several}"]
