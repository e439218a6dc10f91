"""From a chosen subnet to a network that runs: cut out, stored, exported, checked."""

from apq_moo.deploy.cutting import cut_out, names_of_classes
from apq_moo.deploy.executing import execute
from apq_moo.deploy.integers import Grid, IntegerLayer, IntegerNetwork
from apq_moo.deploy.storage import load_network, save_network

__all__ = [
    "Grid",
    "IntegerLayer",
    "IntegerNetwork",
    "cut_out",
    "execute",
    "load_network",
    "names_of_classes",
    "save_network",
]
