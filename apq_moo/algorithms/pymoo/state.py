"""The state of a running pymoo algorithm as plain arrays and JSON, and back.

It is what the algorithm's further course depends on: its population and optimum, its generator, and
the attributes that its entry declares. Nothing that could run is stored.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import reduce

import numpy as np
from pymoo.core.algorithm import Algorithm
from pymoo.core.individual import Individual
from pymoo.core.population import Population

from apq_moo.algorithms.strategy import State

_EVERYWHERE = ("pop", "opt", "n_iter", "is_initialized")
_VALUES = ("X", "F", "G", "CV")


def dump(algorithm: Algorithm, attributes: Sequence[str]) -> State:
    """What an algorithm's further course depends on.

    Args:
        algorithm: set up, between two rounds.
        attributes: dotted names of what it depends on beside its population, optimum and generator:
            numbers, arrays, populations or None.

    Returns:
        Its state. Individuals that occur in several places are the same again after :func:`load`.
    """
    people: dict[int, tuple[int, Individual]] = {}
    entries: State = {}
    for name in (*_EVERYWHERE, *attributes):
        value = reduce(getattr, name.split("."), algorithm)
        if isinstance(value, Individual):
            value = Population.create(value)
        if isinstance(value, Population):
            numbers = [people.setdefault(id(one), (len(people), one))[0] for one in value]
            entries[name] = {"people": np.array(numbers, dtype=np.int64)}
        else:
            entries[name] = np.array(value) if isinstance(value, np.ndarray) else value
    return {
        "entries": entries,
        "people": _columns([one for _, one in people.values()]),
        "generator": algorithm.random_state.bit_generator.state,
        "evaluations": algorithm.evaluator.n_eval,
    }


def load(algorithm: Algorithm, attributes: Sequence[str], state: State) -> None:
    """Put a state into an algorithm of the same configuration, freshly set up.

    Raises:
        KeyError, IndexError, TypeError, ValueError, AttributeError: it is that of something else.
    """
    people = _people(state["people"])
    for name in (*_EVERYWHERE, *attributes):
        value = state["entries"][name]
        if isinstance(value, dict):
            chosen = np.empty(len(value["people"]), dtype=object)
            chosen[:] = [people[number] for number in value["people"]]
            value = chosen.view(Population)
        *path, last = name.split(".")
        setattr(reduce(getattr, path, algorithm), last, value)
    algorithm.random_state.bit_generator.state = state["generator"]
    algorithm.evaluator.n_eval = int(state["evaluations"])
    algorithm.start_time = time.time()  # its results say how long it took


def _columns(people: Sequence[Individual]) -> State:
    """Individuals by column: their values, and what algorithms noted of them."""
    names = sorted({key for one in people for key in one.data})
    noted: State = {}
    for name in names:
        holders = [i for i, one in enumerate(people) if name in one.data]
        values = [people[i].data[name] for i in holders]
        kinds = {type(value) for value in values}
        alike = len(kinds) == 1 and issubclass(next(iter(kinds)), np.generic)
        noted[name] = {"of": np.array(holders), "is": np.array(values) if alike else values}
    columns: State = {"n": len(people), "noted": noted}
    for name in _VALUES if people else ():
        columns[name] = np.array([getattr(one, name) for one in people])
    return columns


def _people(columns: State) -> list[Individual]:
    n = columns["n"]
    if n and any(len(columns[name]) != n for name in _VALUES):
        raise ValueError("columns of individuals differ in length")
    people = [Individual() for _ in range(n)]
    for name in _VALUES if people else ():
        for one, value in zip(people, columns[name], strict=True):
            setattr(one, name, value.copy())
    for one in people:
        one.evaluated.update(("F", "G", "H"))
    for name, column in columns["noted"].items():
        for i, value in zip(column["of"], column["is"], strict=True):
            people[i].data[name] = value
    return people
