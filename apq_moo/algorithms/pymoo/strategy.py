"""Any algorithm of pymoo's as a strategy: ask for networks, tell what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pymoo.core.algorithm import Algorithm
from pymoo.core.termination import NoTermination

from apq_moo.algorithms.pymoo import state as pymoo_state
from apq_moo.algorithms.strategy import Context, State, Strategy, evenly, restoring
from apq_moo.algorithms.warm_start import begin_with
from apq_moo.arrays import IntArray
from apq_moo.problems.evaluated import Evaluated
from apq_moo.problems.operators import block_index, set_values


class PymooStrategy(Strategy):
    """Drives an algorithm of pymoo's.

    Args:
        make: makes the algorithm from a context.
        attributes: what its further course depends on, see :func:`pymoo_state.dump`; None where
            that is not known, so that a stopped search is run again from its record.
    """

    def __init__(
        self, make: Callable[[Context], Algorithm], attributes: tuple[str, ...] | None = None
    ) -> None:
        self._make, self._attributes = make, attributes
        self._algorithm: Algorithm | None = None
        self._context: Context | None = None
        self._state: State | None = None
        self._done = 0

    def rounds(self, context: Context) -> Iterator[Evaluated]:
        """See :class:`Strategy`."""
        self._context, problem = context, context.problem
        algorithm = self._algorithm = self._make(context)
        algorithm.setup(problem, termination=NoTermination(), seed=context.seed)
        if self._state is not None:
            with restoring():
                pymoo_state.load(algorithm, self._attributes or (), self._state)
        while self._done < context.budget and algorithm.has_next():
            infills = algorithm.ask()
            if infills is None or len(infills) == 0:
                return
            if context.warm is not None and self._done == 0:
                X = infills.get("X")
                begin_with(X, context.warm, problem)
                infills.set("X", X)
            infills = infills[evenly(len(infills), context.budget - self._done)]
            index = block_index(problem, infills)
            values = context.measure(index)
            set_values(infills, *problem.judge(values, index))
            algorithm.evaluator.n_eval += len(infills)
            algorithm.tell(infills=infills)
            self._done += len(infills)
            yield context.evaluated(index, values)

    def population(self) -> IntArray | None:
        """See :class:`Strategy`."""
        if self._algorithm is None or self._context is None:
            return None
        members = self._algorithm.pop
        if members is None or len(members) == 0:
            return None
        problem = self._context.problem
        X: IntArray = problem.space.from_block_index(block_index(problem, members))
        return X

    def dump(self) -> State | None:
        """See :class:`Strategy`."""
        if self._attributes is None or self._algorithm is None:
            return None
        return {
            "done": self._done,
            "algorithm": pymoo_state.dump(self._algorithm, self._attributes),
        }

    def load(self, state: State) -> None:
        """See :class:`Strategy`."""
        with restoring():
            self._done, self._state = int(state["done"]), state["algorithm"]
