"""Predictors by a text: a name, and parameters that are not the defaults."""

from __future__ import annotations

from apq_moo.predictors.base import PREDICTORS, Predictor
from apq_moo.predictors.parameters import read_specification
from apq_moo.space import Space


def is_specification(text: str) -> bool:
    """Whether a text begins with the name of a predictor, and is no path of a file."""
    name, _, parameters = text.partition(":")
    return name in PREDICTORS and (not parameters or "=" in parameters)


def create_predictor(specification: str, space: Space, *, seed: int = 0) -> Predictor:
    """Make an unfitted predictor.

    Args:
        specification: one of :data:`PREDICTORS`, and perhaps parameters of its constructor:
            ``NAME:PARAMETER=VALUE:PARAMETER=VALUE``, such as ``xgboost:target=log-error`` or
            ``mlp:transfer__lr=1e-3``.
        space: the search space.
        seed: seeds everything random in fitting.

    Raises:
        UserError: no such predictor or parameter; the message lists the known ones.
    """
    name, parameters = read_specification(specification, "xgboost:target=log-error")
    predictor = PREDICTORS.get(name)(space, seed=seed)
    return predictor.set_params(**parameters)
