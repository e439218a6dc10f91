"""pymoo's multi-objective algorithms that need help with constraints, scales or ties.

Algorithms that decompose objectives by weights compare numbers of different units, percents and
milliseconds. Here they see objectives divided by the ranges of their first population.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pymoo.algorithms.moo.ctaea import CTAEA, CADASurvival
from pymoo.algorithms.moo.moead import ParallelMOEAD, default_decomp
from pymoo.algorithms.moo.nsga3 import NSGA3, HyperplaneNormalization
from pymoo.algorithms.moo.rvea import RVEA
from pymoo.algorithms.moo.spea2 import SPEA2, SPEA2Survival
from pymoo.algorithms.moo.unsga3 import UNSGA3
from pymoo.core.population import Population
from pymoo.core.termination import NoTermination
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.termination.max_gen import MaximumGenerationTermination
from pymoo.util.optimum import filter_optimum
from scipy.spatial.distance import cdist

from apq_moo.algorithms.pymoo.tournaments import by_fitness, by_niche, by_violation
from apq_moo.arrays import FloatArray


class Scale:
    """Objectives divided by the ranges of the population first seen; see the module."""

    def __init__(self) -> None:
        self.low: FloatArray | None = None
        self.range: FloatArray | None = None

    def __call__(self, F: FloatArray) -> FloatArray:
        """Scaled objectives, shape ``(n, n_obj)``."""
        if self.low is None or self.range is None:
            self.low = F.min(axis=0)
            spread = F.max(axis=0) - self.low
            self.range = np.where(spread > 0, spread, 1.0)
        scaled: FloatArray = (F - self.low) / self.range
        return scaled


class NormalisedSPEA2Survival(SPEA2Survival):  # type: ignore[misc]
    """SPEA2's survival, whose normalisation can be read and put back as an array."""

    def __init__(self) -> None:
        super().__init__(normalize=True)

    @property
    def points(self) -> FloatArray | None:
        """Its ideal, worst and nadir point, then the extreme ones; shape ``(3 + n_obj, n_obj)``."""
        norm = self.norm
        if norm is None:
            return None
        stacked: FloatArray = np.vstack(
            [norm.ideal_point, norm.worst_point, norm.nadir_point, norm.extreme_points]
        )
        return stacked

    @points.setter
    def points(self, values: FloatArray | None) -> None:
        self.norm = None
        if values is not None:
            norm = self.norm = HyperplaneNormalization(values.shape[1])
            norm.ideal_point, norm.worst_point, norm.nadir_point = values[:3]
            norm.extreme_points = values[3:]


def spea2(**options: Any) -> SPEA2:
    """SPEA2 whose tournaments are reproducible."""
    selection = TournamentSelection(func_comp=by_fitness)
    # pymoo's default survival is one object for all algorithms, and remembers.
    return SPEA2(selection=selection, survival=NormalisedSPEA2Survival(), **options)


def nsga3(ref_dirs: FloatArray, **options: Any) -> NSGA3:
    """NSGA-III whose tournaments are reproducible."""
    return NSGA3(ref_dirs, selection=TournamentSelection(func_comp=by_violation), **options)


def unsga3(ref_dirs: FloatArray, **options: Any) -> UNSGA3:
    """U-NSGA-III whose tournaments are reproducible."""
    algorithm = UNSGA3(ref_dirs, **options)
    algorithm.mating.selection = TournamentSelection(func_comp=by_niche)
    return algorithm


class ConstrainedMOEAD(ParallelMOEAD):  # type: ignore[misc]
    """MOEA/D with scaled objectives and constraints, a whole generation at a time.

    pymoo's MOEA/D refuses constraints. Here a child replaces a neighbour if it breaks constraints
    less, or equally little and its weighted (Tchebycheff; from three objectives PBI) value is
    smaller: the rules of Deb (2000).

    Args:
        ref_dirs: weights, shape ``(pop_size, n_obj)``.
        n_neighbors: size of a neighbourhood.
        **kwargs: of pymoo's ``MOEAD``.
    """

    pop: Any
    decomposition: Any

    def __init__(self, ref_dirs: FloatArray, n_neighbors: int = 20, **kwargs: Any) -> None:
        super().__init__(ref_dirs, n_neighbors=min(n_neighbors, len(ref_dirs)), **kwargs)
        self._scale = Scale()

    def _setup(self, problem: Any, **_kwargs: Any) -> None:
        distances = cdist(self.ref_dirs, self.ref_dirs)
        self.neighbors = np.argsort(distances, axis=1, kind="stable")[:, : self.n_neighbors]
        self.decomposition = self.decomposition or default_decomp(problem)

    def _initialize_advance(self, infills: Population, **kwargs: Any) -> None:
        super()._initialize_advance(infills, **kwargs)
        # Fewer than one for each weight were sampled or evaluated: some stand for several.
        self.pop = self.pop[np.arange(self.pop_size) % len(self.pop)]
        self.ideal = self._scale(self.pop.get("F")).min(axis=0)

    def _infill(self) -> Population:
        infills = super()._infill()
        infills.set("subproblem", self.indices)
        return infills

    def _advance(self, infills: Population, **_kwargs: Any) -> None:
        # The last generation of a budget may be cut, so that each child knows its subproblem.
        self.ideal = np.minimum(self.ideal, self._scale(infills.get("F")).min(axis=0))
        for child in infills:
            self._replace(child.get("subproblem"), child)

    def _replace(self, k: int, off: Any) -> None:
        near = self.neighbors[k]
        pop = self.pop[near]
        weights = self.ref_dirs[near]
        old = self.decomposition.do(
            self._scale(pop.get("F")), weights=weights, ideal_point=self.ideal
        )
        new = self.decomposition.do(
            self._scale(off.F[None]), weights=weights, ideal_point=self.ideal
        )
        violation = pop.get("CV")[:, 0]
        better = (off.CV[0] < violation) | ((off.CV[0] == violation) & (new < old))
        self.pop[near[better]] = off


class ScaledArchives(CADASurvival):  # type: ignore[misc]
    """C-TAEA's two archives on scaled objectives.

    Args:
        ref_dirs: weights, shape ``(pop_size, n_obj)``.
    """

    def __init__(self, ref_dirs: FloatArray) -> None:
        super().__init__(ref_dirs)
        self._scale = Scale()

    def do(
        self,
        problem: Any,
        pop: Population,
        da: Population,
        n_survive: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Select both archives; individuals keep their objectives."""
        everyone = pop if da is None or not len(da) else Population.merge(pop, da)
        natural = everyone.get("F")
        everyone.set("F", self._scale(natural))
        try:
            return super().do(problem, pop, da, n_survive, **kwargs)
        finally:
            everyone.set("F", natural)


class ScaledCTAEA(CTAEA):  # type: ignore[misc]
    """C-TAEA on scaled objectives.

    Args:
        ref_dirs: weights, shape ``(pop_size, n_obj)``.
        **kwargs: of pymoo's ``CTAEA``.
    """

    def __init__(self, ref_dirs: FloatArray, **kwargs: Any) -> None:
        super().__init__(ref_dirs, survival=ScaledArchives(ref_dirs), **kwargs)

    def _initialize_advance(self, infills: Population, **kwargs: Any) -> None:
        # With fewer individuals than weights pymoo's loop over weights would not end.
        self.pop = infills[np.arange(self.pop_size) % len(infills)]
        super()._initialize_advance(self.pop, **kwargs)


class BudgetedRVEA(RVEA):  # type: ignore[misc]
    """RVEA, whose schedule follows a number of evaluations.

    Args:
        ref_dirs: reference vectors, shape ``(pop_size, n_obj)``.
        budget: evaluations in all, where no termination says so.
        **kwargs: of pymoo's ``RVEA``.
    """

    termination: Any

    def __init__(self, ref_dirs: FloatArray, budget: int, **kwargs: Any) -> None:
        super().__init__(ref_dirs, **kwargs)
        self._budget = budget

    def _setup(self, _problem: Any, **_kwargs: Any) -> None:
        given = self.termination
        self._endless = isinstance(given, NoTermination)
        if isinstance(given, MaximumGenerationTermination):
            return
        evaluations = getattr(given, "n_max_evals", self._budget)
        self.termination = MaximumGenerationTermination(-(-evaluations // self.pop_size))

    def has_next(self) -> bool:
        """Whether the given termination lets it go on; without one, it always may."""
        return self._endless or super().has_next()

    def _set_optimum(self, **_kwargs: Any) -> None:
        self.opt = filter_optimum(self.pop, least_infeasible=True)
