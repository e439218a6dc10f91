"""What predictors are fitted to: accuracies, or a function of them that separates the good ones."""

from __future__ import annotations

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.errors import UserError, shown

TARGETS = ("accuracy", "log-error")
"""The accuracy in percent, or ``-log(101 - accuracy)``, where good ones lie further apart."""

_TOP = 101.0


def to_target(accuracies: FloatArray, kind: str) -> FloatArray:
    """The target of accuracies in percent.

    Args:
        accuracies: in percent.
        kind: one of :data:`TARGETS`.
    """
    return -np.log(_TOP - accuracies) if kind == "log-error" else accuracies


def from_target(target: FloatArray, kind: str) -> FloatArray:
    """Accuracies in percent of predicted targets; at least 0 where ``kind`` is a logarithm."""
    if kind != "log-error":
        return target
    found: FloatArray = _TOP - np.exp(np.minimum(-target, np.log(_TOP)))
    return np.maximum(found, 0)


def slope(accuracies: FloatArray, kind: str) -> FloatArray:
    """Points of accuracy for a small step of the target, at predicted accuracies."""
    return _TOP - accuracies if kind == "log-error" else np.ones_like(accuracies)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of a few.

    Raises:
        UserError: it is not.
    """
    if value not in choices:
        raise UserError(f"{name} must be {' or '.join(choices)}, not {shown(value)}")
