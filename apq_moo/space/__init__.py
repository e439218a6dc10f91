"""The search space: declarative description, integer encoding, features, layers."""

from apq_moo.space.layers import Layer
from apq_moo.space.loading import load_space, presets
from apq_moo.space.parts import all_networks, embed, whole
from apq_moo.space.plan import BlockPlan
from apq_moo.space.space import Gene, IntArray, Space
from apq_moo.space.spec import COMPONENTS, FIELDS, ROLES, SpaceSpec, Stage
from apq_moo.space.subnet import Block, Subnet

__all__ = [
    "COMPONENTS",
    "FIELDS",
    "ROLES",
    "Block",
    "BlockPlan",
    "Gene",
    "IntArray",
    "Layer",
    "Space",
    "SpaceSpec",
    "Stage",
    "Subnet",
    "all_networks",
    "embed",
    "load_space",
    "presets",
    "whole",
]
