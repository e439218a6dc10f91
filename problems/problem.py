"""APQ's joint search as a pymoo problem."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from pymoo.algorithms.moo.moead import MOEAD
from pymoo.core.algorithm import Algorithm
from pymoo.core.problem import Problem
from pymoo.core.variable import Integer

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.defaults import DEFAULT_PREDICTOR, DEFAULT_SPACE, DEFAULT_START
from apq_moo.errors import UserError, shown
from apq_moo.hardware import (
    ACC,
    QUANTITIES,
    CostBatch,
    CostTable,
    Device,
    cost_table,
    feasible_options,
    find_device,
    minimised,
)
from apq_moo.problems import bounds
from apq_moo.problems.accuracy import (
    AccuracyFunction,
    AccuracyModel,
    AccuracySource,
    AssetsFolder,
    resolve,
)
from apq_moo.problems.fronts import KnownFront, nondominated_rows, published_front
from apq_moo.problems.operators import operators
from apq_moo.problems.region import FeasibleRegion
from apq_moo.problems.starts import find_start
from apq_moo.space import Space, all_networks, gene_matrix, load_space
from apq_moo.texts import by_commas


class APQProblem(Problem):  # type: ignore[misc]
    """Networks of a space, judged by their accuracy and by costs on a device.

    The decision variables are option indices: ``X`` is a matrix of shape ``(n, n_var)`` whose
    entries are rounded to the nearest integer and clipped to the bounds, so that algorithms for
    real variables work too. ``vars`` describes the same indices for pymoo's mixed-variable
    algorithms, whose dictionaries are read as well. Every value is a deterministic function of the
    canonical genotype.

    ``F`` is minimised: the sign of what is to be maximised (``acc``) is flipped here and nowhere
    else. ``G`` holds one column for each constraint, in the given order, relative to its limit;
    then, where any configuration may not be used, the number of blocks that the space forbids, the
    device cannot run, or a limit on memory rules out. Costs of blocks that cannot run are taken to
    be the largest finite ones of the table, so that ``F`` and ``G`` are always finite.

    Args:
        space: a space, a preset's name, or the path of a TOML file.
        objectives: names of :data:`apq_moo.hardware.QUANTITIES`, in the order of the columns of
            ``F``; or as one text, by commas.
        constraints: limits by name, in the quantities' units: upper ones for costs, a lower one for
            ``acc``.
        predictor: where ``acc`` comes from, see :func:`apq_moo.problems.resolve`; not looked at
            where neither objectives nor constraints name ``acc``.
        device: the cost model of latency and energy, see :func:`apq_moo.hardware.find_device`.
        assets: a folder of assets; by default those shipped with the package.
        on: where torch runs, where accuracies are measured; see :func:`apq_moo.problems.resolve`.
        fixed_genes: whether genes with a single option are variables too. Some libraries cannot
            take these; without them :meth:`genotypes` and :meth:`variables` lead from the
            variables to genotypes of the space and back. The package's own algorithms want all.
        start: how :meth:`draw` draws the networks that searches begin with, one of
            :data:`apq_moo.problems.STARTS`.

    Attributes:
        space: the space.
        device: the device.
        start: how :meth:`draw` draws.
        objectives: names of the objectives.
        constraints: the limits.
        names: all quantities in use: objectives, then further constrained ones.
        units: their units.
        accuracy: where ``acc`` comes from; None where nobody asks for it.
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
        objectives: str | Sequence[str] = ("acc", "latency"),
        constraints: Mapping[str, float] | None = None,
        predictor: str | Path | AccuracySource | AccuracyModel | AccuracyFunction = (
            DEFAULT_PREDICTOR
        ),
        device: str | Path | Device = "bitfusion",
        *,
        assets: AssetsFolder = None,
        on: str | None = None,
        fixed_genes: bool = True,
        start: str = DEFAULT_START,
    ) -> None:
        find_start(start)
        self.start = start
        self.space = load_space(space)
        self._columns = np.flatnonzero(self.space.n_options > (0 if fixed_genes else 1))
        self.device = find_device(device)
        self.tables: dict[str, CostTable] = {}
        self.accuracy: AccuracySource | None = None
        self._limit(objectives, constraints or {})
        # Last, so that a mistake in the others is found before anything is loaded or fitted.
        if ACC in self.names:
            self.accuracy = resolve(predictor, self.space, assets, on)

    def _limit(self, objectives: str | Sequence[str], constraints: Mapping[str, float]) -> None:
        """Take over objectives and constraints; what is there already for them is kept."""
        self.objectives = _check_objectives(objectives)
        self.constraints = _check_limits(constraints)
        before = set(self.tables)
        self.names = tuple(dict.fromkeys([*self.objectives, *self.constraints]))
        self.units = {name: QUANTITIES.get(name).unit for name in self.names}
        costs = [name for name in self.names if name != ACC]
        self.tables = {
            name: self.tables.get(name) or cost_table(self.space, name, device=self.device)
            for name in costs
        }
        if not before or before != set(costs):
            self.feasible: tuple[BoolArray, ...] = feasible_options(
                self.space, list(self.tables.values())
            )
            self._costs = CostBatch([_finite(table) for table in self.tables.values()])
        limits = [
            (self.tables[name], limit) for name, limit in self.constraints.items() if name != ACC
        ]
        self.region = FeasibleRegion(self.space, self.feasible, limits)
        self._blocked = not all(mask.all() for mask in self.region.options.feasible)
        self._known: list[KnownFront | None] = []
        top = self.space.n_options[self._columns] - 1
        super().__init__(
            n_var=len(top),
            n_obj=len(self.objectives),
            n_ieq_constr=len(self.constraints) + self._blocked,
            xl=np.zeros_like(top),
            xu=top,
            vtype=int,
            vars={
                self.space.genes[column].name: Integer(bounds=(0, int(last)))
                for column, last in zip(self._columns, top, strict=True)
            },
        )

    def with_limits(
        self, constraints: Mapping[str, float], objectives: str | Sequence[str] | None = None
    ) -> Self:
        """The same problem under these limits, which take the place of its own.

        Only the feasible region is made anew; tables and accuracies are shared.

        Args:
            constraints: see the class.
            objectives: others than its own, if given.

        Raises:
            UserError: an unknown name, a limit that no network reaches, or ``acc`` in a problem
                without accuracies.
        """
        other = copy.copy(self)
        other._limit(self.objectives if objectives is None else objectives, constraints)
        if ACC in other.names and other.accuracy is None:
            raise UserError("this problem has no accuracies: make one with acc among its names")
        return other

    def within(self, limits: Sequence[tuple[CostTable, float]]) -> Self:
        """The same problem, whose feasible region other limits bound.

        Objectives and constraints stay: only what is drawn, repaired or searched is another.

        Args:
            limits: cost tables of the space with their upper limits, see :class:`FeasibleRegion`.

        Raises:
            UserError: no network meets them.
        """
        other = copy.copy(self)
        other.region = FeasibleRegion(self.space, self.region.options.feasible, limits)
        return other

    def with_accuracy(self, accuracy: AccuracySource) -> Self:
        """The same problem with accuracies from somewhere else.

        Raises:
            UserError: they belong to another space.
        """
        other = copy.copy(self)
        other.accuracy = resolve(accuracy, self.space)
        other._known = []
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Nothing changes a problem, so pymoo's copies of algorithms may share it."""
        return self

    # -- sampling ----------------------------------------------------------------------------------

    def draw(self, n: int, rng: np.random.Generator) -> IntArray:
        """Distinct random networks that meet the limits on costs, to begin a search with.

        Args:
            n: how many.
            rng: source of randomness.

        Returns:
            Canonical genotypes, shape ``(n, space.n_var)``; fewer rows where no more were found.
        """
        return find_start(self.start)(self.region, n, rng)

    # -- evaluation --------------------------------------------------------------------------------
    def genotypes(self, X: ArrayLike) -> IntArray:
        """Canonical genotypes of what an algorithm hands over.

        Args:
            X: option indices, integers or reals, of shape ``(n, n_var)`` or ``(n_var,)``; a data
                frame, whose columns are found by name; or an array of dictionaries by variable
                name, as pymoo's mixed-variable algorithms use.

        Returns:
            Rounded to the nearest integers, clipped to the bounds, canonical; shape
            ``(n, space.n_var)``.

        Raises:
            UserError: wrong shape or columns, or not finite numbers.
        """
        array = np.asarray(gene_matrix(self.vars, X))
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
        inside = array.clip(0, self.space.n_options[self._columns] - 1).astype(np.int64, copy=False)
        if self.n_var < self.space.n_var:
            variables, inside = inside, np.zeros((len(array), self.space.n_var), dtype=np.int64)
            inside[:, self._columns] = variables
        return self.space.canonical(inside)

    def variables(self, X: IntArray) -> IntArray:
        """The variables of genotypes: their columns that :meth:`genotypes` starts from.

        Args:
            X: genotypes, shape ``(n, space.n_var)``.

        Returns:
            Shape ``(n, n_var)``.
        """
        return X if self.n_var == self.space.n_var else X[:, self._columns]

    def evaluate(self, X: Any, *args: Any, **kwargs: Any) -> Any:
        """See pymoo's ``Problem``; the columns of a data frame are found by name."""
        return super().evaluate(gene_matrix(self.vars, X), *args, **kwargs)

    def evaluate_raw(self, X: ArrayLike) -> dict[str, FloatArray]:
        """All quantities of :attr:`names` in their natural units and signs, shape ``(n,)`` each.

        Args:
            X: see :meth:`genotypes`.

        Raises:
            UserError: see :meth:`genotypes`; or the predictor's answer is unusable.
        """
        X = self.genotypes(X)
        return self.measure(self.space.block_index(X), X)

    def costs(self, index: IntArray) -> dict[str, FloatArray]:
        """All quantities of :attr:`names` but the accuracy, shape ``(n,)`` each.

        Args:
            index: block configurations, see :meth:`apq_moo.space.Space.block_index`.
        """
        costs = self._costs.gather(index)
        return {table.name: costs[:, i] for i, table in enumerate(self._costs.tables)}

    def measure(self, index: IntArray, X: IntArray | None = None) -> dict[str, FloatArray]:
        """All quantities of :attr:`names` in their natural units and signs, shape ``(n,)`` each.

        Args:
            index: block configurations, shape ``(n, n_blocks)``.
            X: the same networks as canonical genotypes, where they are at hand.

        Raises:
            UserError: the predictor's answer is unusable.
        """
        values = self.costs(index)
        if self.accuracy is not None and ACC in self.names:
            values[ACC] = self.accuracy(index, X)
        return {name: values[name] for name in self.names}

    def judge(
        self, values: Mapping[str, FloatArray], index: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Objectives and constraints of networks whose quantities are known.

        Args:
            values: what :meth:`measure` returned, here or of a problem with more quantities.
            index: block configurations, shape ``(n, n_blocks)``.

        Returns:
            ``F`` and ``G`` as pymoo gets them, shapes ``(n, n_obj)`` and ``(n, n_ieq_constr)``.
        """
        F = minimised(self.objectives, np.column_stack([values[name] for name in self.objectives]))
        G = np.empty((len(index), self.n_ieq_constr))
        for i, (name, limit) in enumerate(self.constraints.items()):
            G[:, i] = QUANTITIES.get(name).excess(values[name], limit)
        if self._blocked:
            G[:, -1] = (~self.region.options.feasible_blocks(index)).sum(axis=1)
        return F, G

    def evaluate_blocks(
        self, index: IntArray, X: IntArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Objectives and constraints of networks given by their blocks; see :meth:`judge`."""
        return self.judge(self.measure(index, X), index)

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
        if ACC in self.constraints and self.accuracy is not None:
            found = self.accuracy(self.space.block_index(X), X)
            inside &= QUANTITIES.get(ACC).meets(found, self.constraints[ACC])
        return inside

    # -- what is known of it -----------------------------------------------------------------------

    def reachable(self) -> tuple[FloatArray, FloatArray]:
        """The best and worst values that depend on the problem alone; see :mod:`bounds`."""
        return bounds.reachable(
            self.objectives, self.constraints, self.tables, self.feasible, self.space
        )

    def _normalisation(self) -> tuple[FloatArray, FloatArray]:
        ideal, nadir = self.reachable()
        known = bounds.shipped(self.objectives, self.space, self.device.name)
        for i, name in enumerate(self.objectives):
            ideal[i], nadir[i] = known.get(name, (ideal[i], nadir[i]))
            if name in self.constraints:
                nadir[i] = min(nadir[i], minimised([name], [self.constraints[name]])[0])
        return ideal, nadir

    def ideal_point(self, *_args: Any, **_kwargs: Any) -> FloatArray:
        """The fixed values that scores take for 0, minimised, shape ``(n_obj,)``.

        They belong to the problem, never to a run; see :mod:`apq_moo.problems.bounds`.
        """
        return self._normalisation()[0]

    def nadir_point(self, *_args: Any, **_kwargs: Any) -> FloatArray:
        """The fixed values that scores take for 1, minimised, shape ``(n_obj,)``."""
        return self._normalisation()[1]

    def known_front(self) -> KnownFront | None:
        """The true front of a space whose networks have all been measured, else a published one.

        None where neither is known: beside a table of all networks, fronts were published of the
        shipped spaces with their shipped predictors, without limits.
        """
        if not self._known:
            self._known.append(self._find_front())
        return self._known[0]

    def _find_front(self) -> KnownFront | None:
        source = self.accuracy
        if source is None:
            return None
        known = source.samples()
        if known is None:
            if self.constraints:
                return None
            return published_front(
                self.space, self.objectives, self.device.name, source.name, source.digest
            )
        X = all_networks(self.space)
        F, G = self.evaluate_blocks(self.space.block_index(X), X)
        inside = np.flatnonzero((G <= 0).all(axis=1))
        rows = inside[nondominated_rows(F[inside])]
        return KnownFront(F[rows], X[rows])

    def pareto_front(self, *_args: Any, **_kwargs: Any) -> FloatArray | None:
        """Objectives of :meth:`known_front`, minimised, shape ``(n, n_obj)``; or None."""
        known = self.known_front()
        return None if known is None else known.F

    def pareto_set(self, *_args: Any, **_kwargs: Any) -> IntArray | None:
        """Canonical genotypes of :meth:`known_front`, shape ``(n, n_var)``; or None."""
        known = self.known_front()
        return None if known is None else known.X

    def operators(self, algorithm: type[Algorithm] | None = None) -> dict[str, Any]:
        """Operators that know the space, as keyword arguments of pymoo's genetic algorithms.

        Args:
            algorithm: the class that they are for, where its constructor does not take them all:
                pymoo's ``MOEAD`` compares neighbours, and takes no elimination of duplicates.

        Returns:
            ``sampling``, ``crossover``, ``mutation``, ``repair`` and ``eliminate_duplicates``, for
            instance for ``NSGA2(**problem.operators())``.
        """
        chosen = operators(self)
        if algorithm is not None and issubclass(algorithm, MOEAD):
            del chosen["eliminate_duplicates"]
        return chosen


def _check_objectives(names: str | Sequence[str]) -> tuple[str, ...]:
    chosen = by_commas(names) if isinstance(names, str) else tuple(names)
    known = ", ".join(QUANTITIES)
    if not chosen:
        raise UserError(f"at least one objective is needed; known: {known}")
    for i, name in enumerate(chosen):
        QUANTITIES.get(name)
        if name in chosen[:i]:
            raise UserError(f"objective {name!r} is given twice; name each once, of: {known}")
    return chosen


_HUGE = 1e100


def _check_limits(limits: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(limits, Mapping):
        raise UserError(f"constraints map names to limits, {{'size': 20}}, not {shown(limits)}")
    checked = {}
    for name, limit in limits.items():
        if name not in QUANTITIES:
            raise UserError(f"unknown constraint {name!r}; known: {', '.join(QUANTITIES)}")
        number = isinstance(limit, int | float | np.number) and not isinstance(limit, bool)
        if not number or not abs(limit) < _HUGE:
            raise UserError(f"the limit of {name} must be a finite number, not {shown(limit)}")
        checked[name] = float(limit)
    if not 0 <= checked.get(ACC, 0.0) <= 100:
        raise UserError(f"the limit of acc is in percent, from 0 to 100, not {checked[ACC]:g}")
    return checked


def _finite(table: CostTable) -> CostTable:
    """The table with its largest finite cost wherever a device cannot run a configuration."""
    finite = [costs[np.isfinite(costs)] for costs in table.blocks]
    largest = max((costs.max() for costs in finite if len(costs)), default=0.0)
    blocks = tuple(np.where(np.isfinite(costs), costs, largest) for costs in table.blocks)
    return replace(table, blocks=blocks)
