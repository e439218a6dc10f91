"""The pymoo problem, the networks that it admits, and where its accuracies come from."""

from apq_moo.problems.accuracy import (
    SOURCES,
    AccuracyFunction,
    AccuracyModel,
    AccuracySource,
    AdditiveSource,
    ExactSource,
    additive_surrogate,
    is_measured,
    resolve,
)
from apq_moo.problems.measured import exact_name, exact_source, require_exact
from apq_moo.problems.options import BlockOptions
from apq_moo.problems.problem import APQProblem
from apq_moo.problems.region import FeasibleRegion
from apq_moo.problems.starts import STARTS, UNIFORM

__all__ = [
    "SOURCES",
    "STARTS",
    "UNIFORM",
    "APQProblem",
    "AccuracyFunction",
    "AccuracyModel",
    "AccuracySource",
    "AdditiveSource",
    "BlockOptions",
    "ExactSource",
    "FeasibleRegion",
    "additive_surrogate",
    "exact_name",
    "exact_source",
    "is_measured",
    "require_exact",
    "resolve",
]
