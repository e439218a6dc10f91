"""What predictors see of a network: the options of its genes, or what they do to it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.space import FIELDS, Block, Space

FEATURES = ("options", "engineered")
"""The option that each gene chooses, or what the choices do to the network."""

PER_BLOCK = 18
"""Engineered features of a block."""


LARGEST = 30.0
"""Standardised features are cut off here, which bounds all products."""

FLAT = 1e-9
"""What deviates by less is constant but for rounding."""


def deviations(values: FloatArray) -> FloatArray:
    """Standard deviations along the first axis; 1 of what is constant."""
    found = values.std(axis=0)
    flat = found <= FLAT * np.maximum(1, np.abs(values).max(axis=0))
    return np.where(flat, 1.0, found)


@lru_cache(maxsize=16)
def _option_table(space: Space) -> NDArray[np.float32]:
    table = np.zeros((space.n_var, int(space.n_options.max())), dtype=np.float32)
    for row, gene in zip(table, space.genes, strict=True):
        row[: len(gene.options)] = gene.options
    return table


def option_values(space: Space, X: IntArray) -> NDArray[np.float32]:
    """The option that each gene chooses, shape ``(n, n_var)``; 0 where it is inactive.

    Depths, kernels, channels and bits are ordered, which a tree can use and a one-hot hides: on
    the same samples, trees over these rank networks better than trees over the one-hot inputs.
    """
    values = _option_table(space)[np.arange(space.n_var), X]
    return np.where(space.active_genes(X), values, np.float32(0))


def n_features(space: Space, kind: str) -> int:
    """How many there are of a network; ``kind`` is one of :data:`FEATURES`."""
    if kind == "options":
        return space.n_var
    return PER_BLOCK * space.n_blocks + len(space.spec.stages) + 2


def features(space: Space, X: IntArray, kind: str) -> NDArray[np.float32]:
    """The features of networks, shape ``(n, n_features(space, kind))``.

    Args:
        space: the search space.
        X: genotypes, shape ``(n, n_var)``.
        kind: one of :data:`FEATURES`.
    """
    if kind == "options":
        return option_values(space, X)
    index = space.block_index(X)
    found = np.empty((len(X), n_features(space, kind)), dtype=np.float32)
    for start in range(0, len(X), _CHUNK):
        part = slice(start, start + _CHUNK)
        found[part] = engineered(space, index[part])
    return found


_CHUNK = 1024
"""Networks whose engineered features are computed at a time."""


@lru_cache(maxsize=16)
def _mac_tables(space: Space) -> tuple[FloatArray, tuple[float, float]]:
    """MACs of a middle channel, and MACs and BitOps of the fixed layers, in billions.

    The first has shape ``(n_blocks, kernels, 2)``, for a block's pointwise layers together and for
    its depthwise layer.
    """
    macs = np.zeros((space.n_blocks, max(len(plan.options["kernel"]) for plan in space.plans), 2))
    for b, plan in enumerate(space.plans):
        for i, kernel in enumerate(plan.options["kernel"]):
            layers = plan.layers(Block(plan.stage, kernel, 1, 1, 1, 1, 1))
            expand, depthwise, project = (layer.macs for layer in layers)
            macs[b, i] = expand + project, depthwise
    fixed = space.fixed_layers()
    bitops = sum(layer.macs * layer.w_bits * layer.a_bits for layer in fixed)
    return macs / 1e9, (sum(layer.macs for layer in fixed) / 1e9, bitops / 1e9)


def engineered(space: Space, index: IntArray) -> FloatArray:
    """What the choices do to a network, shape ``(n, 18 n_blocks + n_stages + 2)``.

    For each block, 0 where it is inactive: 1 for being active, its kernel, log2 of its middle
    channels, the four bit-widths, the noise ``2^-bits`` of a quantiser of each, that over the root
    of the middle channels (what is left of it in a mean over them), log10 of the MACs, and the
    billions of BitOps of the pointwise and of the depthwise layers. Then the depths of the stages,
    and log10 of the network's MACs and BitOps, the fixed layers' included, in billions.

    Args:
        space: the search space.
        index: the networks by their blocks, shape ``(n, n_blocks)``.
    """
    layout, blocks = space.layout, np.arange(space.n_blocks)
    genes = layout.gather(layout.genes, index)
    options = _option_table(space)[space.block_columns, genes].astype(np.float64)
    middle, bits = options[..., FIELDS.index("channels")], options[..., 2:]
    tables, (fixed_macs, fixed_bitops) = _mac_tables(space)
    macs = tables[blocks, genes[..., 0]] * middle[..., None]
    bitops = macs * bits[..., ::2] * bits[..., 1::2]
    active = layout.active(index)
    found = np.empty((*index.shape, PER_BLOCK))
    found[..., 0] = 1
    found[..., 1] = options[..., 0]
    found[..., 2] = np.log2(middle)
    found[..., 3:7] = bits
    found[..., 7:11] = np.exp2(-bits)
    found[..., 11:15] = found[..., 7:11] / np.sqrt(middle)[..., None]
    found[..., 15] = np.log10(macs.sum(axis=2) * 1e9)
    found[..., 16:] = bitops
    found *= active[..., None]
    total_macs = fixed_macs + (macs.sum(axis=2) * active).sum(axis=1)
    total_bitops = fixed_bitops + found[..., 16:].sum(axis=(1, 2))
    totals = np.log10(np.stack([total_macs, total_bitops], axis=1))
    return np.concatenate([found.reshape(len(index), -1), layout.depths(index), totals], axis=1)
