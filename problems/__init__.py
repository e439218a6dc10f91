"""The pymoo problem and its objectives."""

from apq_moo.problems.accuracy import AccuracyFunction, AccuracyModel, resolve_predictor
from apq_moo.problems.objectives import OBJECTIVES, Objective
from apq_moo.problems.options import BlockOptions
from apq_moo.problems.problem import APQProblem
from apq_moo.problems.region import FeasibleRegion

__all__ = [
    "OBJECTIVES",
    "APQProblem",
    "AccuracyFunction",
    "AccuracyModel",
    "BlockOptions",
    "FeasibleRegion",
    "Objective",
    "resolve_predictor",
]
