"""From a chosen subnet to a network that runs: cut out, stored, exported, checked."""

from apq_moo.deploy.checking import Checked, check
from apq_moo.deploy.cutting import cut_out, cut_out_of_assets, names_of_classes
from apq_moo.deploy.deploying import choose, deploy
from apq_moo.deploy.executing import execute
from apq_moo.deploy.exporting import export
from apq_moo.deploy.integers import Grid, IntegerLayer, IntegerNetwork
from apq_moo.deploy.qonnx_hls4ml import hls4ml_model
from apq_moo.deploy.qonnx_readers import misfits as reader_misfits
from apq_moo.deploy.steps import equal_sums, power_of_two
from apq_moo.deploy.storage import load_network, save_network
from apq_moo.deploy.tuning import TuningConfig, finetune

__all__ = [
    "Checked",
    "Grid",
    "IntegerLayer",
    "IntegerNetwork",
    "TuningConfig",
    "check",
    "choose",
    "cut_out",
    "cut_out_of_assets",
    "deploy",
    "equal_sums",
    "execute",
    "export",
    "finetune",
    "hls4ml_model",
    "load_network",
    "names_of_classes",
    "power_of_two",
    "reader_misfits",
    "save_network",
]
