"""The search space: declarative description, integer encoding, features, layers."""

from apq_moo.space.draws import DRAWS, Draw, find_draw, sample_sizes
from apq_moo.space.layers import Layer
from apq_moo.space.loading import load_space, presets
from apq_moo.space.parts import all_networks, embed, whole
from apq_moo.space.plan import BlockPlan
from apq_moo.space.space import Gene, IntArray, Space
from apq_moo.space.spec import COMPONENTS, FIELDS, ROLES, SpaceSpec, Stage
from apq_moo.space.subnet import Block, Subnet

__all__ = [
    "COMPONENTS",
    "DRAWS",
    "FIELDS",
    "ROLES",
    "Block",
    "BlockPlan",
    "Draw",
    "Gene",
    "IntArray",
    "Layer",
    "Space",
    "SpaceSpec",
    "Stage",
    "Subnet",
    "all_networks",
    "embed",
    "find_draw",
    "load_space",
    "presets",
    "sample_sizes",
    "whole",
]
