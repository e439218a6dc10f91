"""APQ's joint search as a pymoo problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pymoo.core.problem import Problem
from pymoo.core.variable import Integer

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.defaults import DEFAULT_PREDICTOR, DEFAULT_SPACE
from apq_moo.errors import UserError, shown
from apq_moo.hardware import (
    CostBatch,
    CostTable,
    Device,
    cost_table,
    feasible_options,
    find_device,
)
from apq_moo.problems.accuracy import Accuracy, AccuracyFunction, AccuracyModel
from apq_moo.problems.objectives import OBJECTIVES
from apq_moo.problems.operators import operators
from apq_moo.problems.region import FeasibleRegion
from apq_moo.space import Space, load_space

_ACC = "acc"


class APQProblem(Problem):  # type: ignore[misc]
    """Networks of a space, judged by predicted accuracy and costs on a device.

    The decision variables are option indices: ``X`` is a matrix of shape ``(n, n_var)`` whose
    entries are rounded to the nearest integer and clipped to the bounds, so that algorithms for
    real variables work too. ``vars`` describes the same indices for pymoo's mixed-variable
    algorithms, whose dictionaries are read as well. Every value is a deterministic function of the
    canonical genotype.

    ``F`` is minimised: the sign of what is to be maximised (``acc``) is flipped here and nowhere
    else. ``G`` holds one column for each constraint, in the given order, relative to its limit;
    then the number of blocks that the space forbids, the device cannot run, or a limit on memory
    rules out. Costs of blocks that cannot run are taken to be the largest finite ones of the table,
    so that ``F`` and ``G`` are always finite.

    Args:
        space: a space, a preset's name, or the path of a TOML file.
        objectives: names of :data:`OBJECTIVES`, in the order of the columns of ``F``.
        constraints: limits by name, in the objectives' units: upper ones for costs, a lower one for
            ``acc``.
        predictor: estimates ``acc``, see :func:`resolve_predictor`; not looked at where neither
            objectives nor constraints name ``acc``.
        device: the cost model of latency and energy, see :func:`apq_moo.hardware.find_device`.

    Attributes:
        space: the space.
        device: the device.
        objectives: names of the objectives.
        constraints: the limits.
        names: all quantities in use: objectives, then further constrained ones.
        units: their units.
        feasible: for each block, the configurations that no rule forbids and the device can run,
            shape ``(block_sizes[b],)``.
        region: the networks that satisfy all constraints but the one on ``acc``.
        tables: the costs of :attr:`names`, by name.

    Raises:
        UserError: an unknown name, no or repeated objectives, a limit that no network reaches, or
            a predictor that does not fit.
    """

    def __init__(
        self,
        space: str | Path | Space = DEFAULT_SPACE,
        objectives: Sequence[str] = ("acc", "latency"),
        constraints: Mapping[str, float] | None = None,
        predictor: str | Path | AccuracyModel | AccuracyFunction = DEFAULT_PREDICTOR,
        device: str | Path | Device = "bitfusion",
    ) -> None:
        self.space = load_space(space)
        self.device = find_device(device)
        self.objectives = _check_objectives(objectives)
        self.constraints = _check_limits(constraints or {})
        self.names = tuple(dict.fromkeys([*self.objectives, *self.constraints]))
        self.units = {name: OBJECTIVES.get(name).unit for name in self.names}
        self._accuracy = Accuracy(predictor, self.space) if _ACC in self.names else None

        self.tables: dict[str, CostTable] = {
            name: cost_table(self.space, name, device=self.device)
            for name in self.names
            if name != _ACC
        }
        self.feasible: tuple[BoolArray, ...] = feasible_options(
            self.space, list(self.tables.values())
        )
        limits = [
            (self.tables[name], limit) for name, limit in self.constraints.items() if name != _ACC
        ]
        self.region = FeasibleRegion(self.space, self.feasible, limits)
        self._costs = CostBatch([_finite(table) for table in self.tables.values()])
        self._signs = np.array([_sign(name) for name in self.objectives])

        top = self.space.n_options - 1
        super().__init__(
            n_var=self.space.n_var,
            n_obj=len(self.objectives),
            n_ieq_constr=len(self.constraints) + 1,
            xl=np.zeros_like(top),
            xu=top,
            vtype=int,
            vars={
                gene.name: Integer(bounds=(0, int(last)))
                for gene, last in zip(self.space.genes, top, strict=True)
            },
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> APQProblem:
        """Nothing changes a problem, so pymoo's copies of algorithms may share it."""
        return self

    # -- evaluation --------------------------------------------------------------------------------

    def genotypes(self, X: ArrayLike) -> IntArray:
        """Canonical genotypes of what an algorithm hands over.

        Args:
            X: option indices, integers or reals, of shape ``(n, n_var)`` or ``(n_var,)``; or an
                array of dictionaries by variable name, as pymoo's mixed-variable algorithms use.

        Returns:
            Rounded to the nearest integers, clipped to the bounds, canonical; ``(n, n_var)``.

        Raises:
            UserError: wrong shape, or not finite numbers.
        """
        array = np.asarray(X)
        if array.dtype == object and all(isinstance(row, Mapping) for row in array.ravel()):
            array = np.array([[row.get(name) for name in self.vars] for row in array.ravel()])
        array = np.atleast_2d(array)
        if array.ndim != 2 or array.shape[1] != self.n_var or array.dtype.kind not in "iuf":
            raise UserError(
                f"X must hold numbers in shape (n, {self.n_var}), got {array.dtype} in shape "
                f"{array.shape}"
            )
        if array.dtype.kind == "f":
            if not np.isfinite(array).all():
                raise UserError("X must hold finite numbers")
            array = np.rint(array)
        inside = array.clip(0, self.space.n_options - 1).astype(np.int64, copy=False)
        return self.space.canonical(inside)

    def evaluate_raw(self, X: ArrayLike) -> dict[str, FloatArray]:
        """All quantities of :attr:`names` in their natural units and signs, shape ``(n,)`` each.

        Args:
            X: see :meth:`genotypes`.

        Raises:
            UserError: see :meth:`genotypes`; or the predictor's answer is unusable.
        """
        X = self.genotypes(X)
        return self._measure(self.space.block_index(X), X)

    def costs(self, index: IntArray) -> dict[str, FloatArray]:
        """All quantities of :attr:`names` but the accuracy, shape ``(n,)`` each.

        Args:
            index: block configurations, see :meth:`apq_moo.space.Space.block_index`.
        """
        costs = self._costs.gather(index)
        return {table.name: costs[:, i] for i, table in enumerate(self._costs.tables)}

    def evaluate_blocks(
        self, index: IntArray, X: IntArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Objectives and constraints of networks given by their blocks.

        Args:
            index: block configurations, shape ``(n, n_blocks)``.
            X: the same networks as canonical genotypes, where they are at hand.

        Returns:
            ``F`` and ``G`` as pymoo gets them, shapes ``(n, n_obj)`` and ``(n, n_ieq_constr)``.

        Raises:
            UserError: the predictor's answer is unusable.
        """
        values = self._measure(index, X)
        F = self._signs * np.column_stack([values[name] for name in self.objectives])
        excess = [_excess(name, limit, values[name]) for name, limit in self.constraints.items()]
        blocked = self.region.options.infeasible_blocks(index)
        return F, np.column_stack([*excess, blocked.astype(np.float64)])

    def _measure(self, index: IntArray, X: IntArray | None) -> dict[str, FloatArray]:
        values = self.costs(index)
        if self._accuracy is not None:
            values[_ACC] = self._accuracy(index, X)
        return {name: values[name] for name in self.names}

    def _evaluate(self, X: ArrayLike, out: dict[str, Any], *_args: Any, **_kwargs: Any) -> None:
        X = self.genotypes(X)
        out["F"], out["G"] = self.evaluate_blocks(self.space.block_index(X), X)

    def feasible_rows(self, X: ArrayLike) -> BoolArray:
        """Whether each network satisfies all constraints, shape ``(n,)``.

        The predictor is called only where ``acc`` is constrained.

        Args:
            X: see :meth:`genotypes`.
        """
        X = self.genotypes(X)
        inside = self.region.contains(X)
        if _ACC in self.constraints and self._accuracy is not None:
            inside &= self._accuracy(self.space.block_index(X), X) >= self.constraints[_ACC]
        return inside

    def operators(self) -> dict[str, Any]:
        """Operators that know the space, as keyword arguments of pymoo's genetic algorithms.

        Returns:
            ``sampling``, ``crossover``, ``mutation``, ``repair`` and ``eliminate_duplicates``, for
            instance for ``NSGA2(**problem.operators())``.
        """
        return operators(self)


def _sign(name: str) -> float:
    """What turns a quantity into one to be minimised."""
    return -1.0 if OBJECTIVES.get(name).maximise else 1.0


def _excess(name: str, limit: float, values: FloatArray) -> FloatArray:
    """How far values exceed a limit, relative to it; positive where it is broken."""
    return _sign(name) * (values - limit) / (abs(limit) or 1.0)


def _check_objectives(names: Sequence[str]) -> tuple[str, ...]:
    chosen = (names,) if isinstance(names, str) else tuple(names)
    known = ", ".join(OBJECTIVES)
    if not chosen:
        raise UserError(f"at least one objective is needed; known: {known}")
    for i, name in enumerate(chosen):
        OBJECTIVES.get(name)
        if name in chosen[:i]:
            raise UserError(f"objective {name!r} is given twice; name each once, of: {known}")
    return chosen


def _check_limits(limits: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(limits, Mapping):
        raise UserError(f"constraints map names to limits, {{'size': 20}}, not {shown(limits)}")
    checked = {}
    for name, limit in limits.items():
        if name not in OBJECTIVES:
            raise UserError(f"unknown constraint {name!r}; known: {', '.join(OBJECTIVES)}")
        number = isinstance(limit, int | float | np.number) and not isinstance(limit, bool)
        if not number or not math.isfinite(limit):
            raise UserError(f"the limit of {name} must be a finite number, not {shown(limit)}")
        checked[name] = float(limit)
    if checked.get(_ACC, 0.0) > 100:
        raise UserError(f"the limit of acc is in percent, at most 100, not {checked[_ACC]:g}")
    return checked


def _finite(table: CostTable) -> CostTable:
    """The table with its largest finite cost wherever a device cannot run a configuration."""
    finite = [costs[np.isfinite(costs)] for costs in table.blocks]
    largest = max((costs.max() for costs in finite if len(costs)), default=0.0)
    blocks = tuple(np.where(np.isfinite(costs), costs, largest) for costs in table.blocks)
    return replace(table, blocks=blocks)
