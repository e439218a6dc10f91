"""Weighted means of other predictors, which know by how much these disagree."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError, shown
from apq_moo.predictors.base import PREDICTORS, Predictor
from apq_moo.predictors.specification import create_predictor
from apq_moo.predictors.storage import Arrays
from apq_moo.space import Space

_MOST = 32
"""Members of an ensemble."""

_SEEDS = 2**31


@PREDICTORS.add("ensemble")
class EnsemblePredictor(Predictor):
    """Weighted mean of predictors that are fitted to the same samples.

    The variance is that of the mixture (Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017): the
    weighted mean of the members' own variances, over those that have one, and the weighted variance
    of their predictions around the mean.

    Args:
        space: the search space.
        seed: of the first member; the next ones have the next seeds.
        members: what to average, added up: ``WEIGHT*NAME`` each, where a weight of 1 may be left
            out, and a name may be followed by parameters: ``mlp-scratch+mlp-scratch``,
            ``0.75*gp+0.25*xgboost/target=log-error/rounds=500``. Weights are relative.
    """

    name = "ensemble"
    has_std = True

    def __init__(
        self, space: Space, *, seed: int = 0, members: str = "3*gp+xgboost-stacked"
    ) -> None:
        super().__init__(space, seed=seed)
        self.members = members
        self._enlist()

    def set_params(self, **parameters: Any) -> Self:
        """See :meth:`Predictor.set_params`; what members are is checked at once."""
        super().set_params(**parameters)
        self._enlist()
        return self

    def _enlist(self) -> None:
        terms = _terms(self.members)
        weights = np.array([weight for weight, _ in terms])
        self._weights = weights / weights.sum()
        self._predictors = [
            create_predictor(text, self.space, seed=(self.seed + i) % _SEEDS)
            for i, (_, text) in enumerate(terms)
        ]
        self.transfers = any(member.transfers for member in self._predictors)

    def _pretrain(self, X: IntArray, y: FloatArray) -> None:
        for member in self._predictors:
            if member.transfers:
                member.pretrain(X, y)

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        for member in self._predictors:
            member.fit(X, y)

    def _predict(self, X: IntArray) -> FloatArray:
        return self._predict_blocks(self.space.block_index(X))

    def _predict_blocks(self, index: IntArray) -> FloatArray:
        return self._mean([member.predict_blocks(index) for member in self._predictors])

    def _mean(self, predictions: list[FloatArray]) -> FloatArray:
        found = np.zeros(len(predictions[0]))
        for weight, prediction in zip(self._weights, predictions, strict=True):
            found += weight * prediction
        return found

    def _predict_std(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        index = self.space.block_index(X)
        predictions, own, known = [], np.zeros(len(X)), 0.0
        for weight, member in zip(self._weights, self._predictors, strict=True):
            if member.has_std:
                prediction, std = member.predict(X, return_std=True)
                own += weight * std**2
                known += weight
            else:
                prediction = member.predict_blocks(index)
            predictions.append(prediction)
        mean = self._mean(predictions)
        spread = self._mean([(prediction - mean) ** 2 for prediction in predictions])
        return mean, np.sqrt(spread + own / known if known else spread)

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays: Arrays = {}
        members = []
        for i, member in enumerate(self._predictors):
            own, settings = member._state()
            arrays |= {f"{i}.{name}": array for name, array in own.items()}
            parameters = {k: v for k, v in member._plain_params().items() if k != "seed"}
            members.append({"parameters": parameters, "settings": settings})
        return arrays, {"members": members}

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        described = settings["members"]
        if not isinstance(described, list) or len(described) != len(self._predictors):
            raise ValueError(f"it needs what {len(self._predictors)} members have learnt")
        for i, (member, of) in enumerate(zip(self._predictors, described, strict=True)):
            kind, start = type(member), f"{i}."
            parameters = kind._read_params({**kind.earlier, **of["parameters"]})
            restored = kind(self.space, seed=member.seed, **parameters)
            own = {name[len(start) :]: a for name, a in arrays.items() if name.startswith(start)}
            restored._restore(own, of["settings"])
            restored._fitted = True
            self._predictors[i] = restored
        self.transfers = any(member.transfers for member in self._predictors)


def _terms(members: object) -> list[tuple[float, str]]:
    """Weights and specifications of members.

    Raises:
        UserError: it is no such text.
    """
    terms: list[tuple[float, str]] = []
    for term in members.split("+") if isinstance(members, str) else []:
        weight, mark, text = term.rpartition("*")
        try:
            value = float(weight) if mark else 1.0
        except ValueError:
            value = 0.0
        if not 0 < value <= 1e6 or not text or text.partition("/")[0] == "ensemble":
            terms = []
            break
        terms.append((value, text.replace("/", ":")))
    if not 2 <= len(terms) <= _MOST:
        raise UserError(
            f"members {shown(members)}: write 2 to {_MOST} predictors other than ensembles as "
            "WEIGHT*NAME+WEIGHT*NAME, such as 3*gp+xgboost-stacked"
        )
    return terms
