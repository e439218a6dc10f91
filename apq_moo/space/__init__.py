"""The search space: declarative description, integer encoding, features, layers."""

from apq_moo.arrays import IntArray
from apq_moo.space.belonging import belonging, refuse_other_space
from apq_moo.space.distributions import (
    DISTRIBUTIONS,
    SamplingDistribution,
    find_distribution,
    sample_sizes,
    sample_sizes_and_bits,
)
from apq_moo.space.encoding import Gene
from apq_moo.space.frames import gene_matrix
from apq_moo.space.layers import Layer
from apq_moo.space.layout import Layout
from apq_moo.space.loading import load_space, presets
from apq_moo.space.plan import BlockPlan
from apq_moo.space.space import Space
from apq_moo.space.spec import COMPONENTS, FIELDS, ROLES, SpaceSpec, Stage
from apq_moo.space.subnet import Block, Subnet
from apq_moo.space.subspaces import all_networks, embed, superspace

__all__ = [
    "COMPONENTS",
    "DISTRIBUTIONS",
    "FIELDS",
    "ROLES",
    "Block",
    "BlockPlan",
    "Gene",
    "IntArray",
    "Layer",
    "Layout",
    "SamplingDistribution",
    "Space",
    "SpaceSpec",
    "Stage",
    "Subnet",
    "all_networks",
    "belonging",
    "embed",
    "find_distribution",
    "gene_matrix",
    "load_space",
    "presets",
    "refuse_other_space",
    "sample_sizes",
    "sample_sizes_and_bits",
    "superspace",
]
