"""Accuracy predictors behind one interface.

Every predictor maps genotypes to top-1 accuracy in percent and depends on their canonical form
only. Heavy libraries are imported when a predictor first needs them.
"""

from apq_moo.predictors.additive import AdditivePredictor
from apq_moo.predictors.base import PREDICTORS, Predictor
from apq_moo.predictors.boosting import (
    GBDTPredictor,
    StackedGBDTPredictor,
    StackedXGBoostPredictor,
    XGBoostPredictor,
)
from apq_moo.predictors.compare import Row, compare
from apq_moo.predictors.ensemble import EnsemblePredictor
from apq_moo.predictors.finding import find_predictor, fit_to_samples, load_predictor
from apq_moo.predictors.gp import GPPredictor, ScratchGPPredictor
from apq_moo.predictors.mlp import MLPPredictor, ScratchMLPPredictor, StackedMLPPredictor
from apq_moo.predictors.published import load_published
from apq_moo.predictors.specification import create_predictor, is_specification
from apq_moo.predictors.training import Recipe

__all__ = [
    "PREDICTORS",
    "AdditivePredictor",
    "EnsemblePredictor",
    "GBDTPredictor",
    "GPPredictor",
    "MLPPredictor",
    "Predictor",
    "Recipe",
    "Row",
    "ScratchGPPredictor",
    "ScratchMLPPredictor",
    "StackedGBDTPredictor",
    "StackedMLPPredictor",
    "StackedXGBoostPredictor",
    "XGBoostPredictor",
    "compare",
    "create_predictor",
    "find_predictor",
    "fit_to_samples",
    "is_specification",
    "load_predictor",
    "load_published",
]
