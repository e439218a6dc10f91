"""The state of a running algorithm as plain arrays and JSON, and back.

A pymoo algorithm is an object of objects. What changes in it while it runs are numbers, arrays,
populations and a generator; what does not (operators, the problem, functions) a fresh algorithm of
the same configuration has too. So the state is everything of the first kind that can be reached,
and it is put into a fresh algorithm. Nothing that could run is stored.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.algorithm import Algorithm
from pymoo.core.callback import Callback
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.core.problem import Problem

from apq_moo.errors import UserError

Tree = Any
"""JSON values; arrays are referred to as ``{"array": number}``."""

_NOT_STATE = frozenset({"problem", "display", "output", "callback", "history", "verbose", "off"})
"""Attributes of algorithms that are configuration, or that the next round sets before it reads."""
_PARTS = ("_X", "_F", "_G", "_H", "_CV")
_PLAIN = (bool, int, float, str, type(None))
_CONFIGURATION = ("apq_moo.space", "apq_moo.hardware", "apq_moo.predictors", "apq_moo.problems")
"""Rooms whose objects do not change."""


_FUNCTIONS = frozenset({"function", "builtin_function_or_method", "method", "ufunc", "partial"})


class StateError(UserError):
    """An algorithm that keeps something that cannot be stored, or a state that does not fit it."""


def capture(algorithm: Algorithm) -> tuple[Tree, list[NDArray[Any]]]:
    """Everything that an algorithm's further course depends on.

    Args:
        algorithm: set up, between two rounds.

    Returns:
        A tree that survives JSON, and the arrays that it refers to.

    Raises:
        StateError: an attribute is of a kind that cannot be stored.
    """
    writer = _Writer()
    root = writer.attributes(algorithm, type(algorithm).__name__)
    return {"root": root, "people": writer.people(), "generators": writer.rngs}, writer.arrays


def restore(algorithm: Algorithm, tree: Tree, arrays: list[NDArray[Any]]) -> None:
    """Put a captured state into an algorithm of the same configuration, freshly set up.

    Raises:
        StateError: it is the state of something else.
    """
    try:
        packages = {kind.__module__.partition(".")[0] for kind in type(algorithm).__mro__}
        reader = _Reader(tree, arrays, packages - {"builtins"})
        reader.put(algorithm, tree["root"], type(algorithm).__name__)
    except StateError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"the stored state does not fit {type(algorithm).__name__}") from error


class _Writer:
    def __init__(self) -> None:
        self.arrays: list[NDArray[Any]] = []
        self.rngs: list[Any] = []
        self._generators: dict[int, int] = {}
        self._individuals: dict[int, tuple[int, Individual]] = {}
        self._objects: dict[int, tuple[int, Any]] = {}

    def array(self, values: NDArray[Any]) -> Tree:
        # A copy, since algorithms change theirs in place while this one waits to be written.
        return {"array": self._kept(np.array(values))}

    def _kept(self, values: NDArray[Any]) -> int:
        self.arrays.append(values)
        return len(self.arrays) - 1

    def attributes(self, thing: Any, path: str) -> Tree:
        """An object by its attributes; the same one again by its number."""
        if id(thing) in self._objects:
            return {"again": self._objects[id(thing)][0]}
        number = len(self._objects)
        self._objects[id(thing)] = (number, thing)
        entries = {
            name: self.value(value, f"{path}.{name}")
            for name, value in vars(thing).items()
            if name not in _NOT_STATE and not _is_fixed(value)
        }
        return {"object": number, "kind": _kind(thing), "entries": entries}

    def value(self, value: Any, path: str) -> Tree:
        """Any value of an attribute."""
        if isinstance(value, _PLAIN):
            return value
        for kinds, write in self._writers():
            if isinstance(value, kinds):
                return write(value, path)
        if hasattr(value, "__dict__"):
            return self.attributes(value, path)
        raise StateError(f"{path} is of type {type(value).__name__}, which cannot be checkpointed")

    def _writers(self) -> tuple[tuple[Any, Callable[[Any, str], Tree]], ...]:
        return (
            (Individual, self._individual),
            (np.random.Generator, self._generator),
            (np.ndarray, self._matrix),
            (np.generic, lambda value, _path: {"number": self.array(np.asarray(value))["array"]}),
            (list, lambda value, path: {"list": self._several(value, path)}),
            (tuple, lambda value, path: {"tuple": self._several(value, path)}),
            ((set, frozenset), lambda value, path: {"set": self._several(sorted(value), path)}),
            (dict, self._dictionary),
        )

    def _several(self, values: Any, path: str) -> list[Tree]:
        return [self.value(value, f"{path}[{i}]") for i, value in enumerate(values)]

    def _matrix(self, value: NDArray[Any], path: str) -> Tree:
        if value.dtype != object:
            return self.array(value)
        flat = value.ravel().tolist()
        if all(type(item) is Individual for item in flat):
            return {"people": [self._number(item) for item in flat], "shape": list(value.shape)}
        return {
            "items": self._several(flat, path),
            "shape": list(value.shape),
        }

    def _dictionary(self, value: dict[Any, Any], path: str) -> Tree:
        return {
            "dict": [
                [self.value(key, path), self.value(item, f"{path}[{key!r}]")]
                for key, item in value.items()
                if not _is_fixed(item)
            ]
        }

    def _generator(self, value: np.random.Generator, _path: str) -> Tree:
        if id(value) not in self._generators:
            self._generators[id(value)] = len(self.rngs)
            self.rngs.append(generator_state(value))
        return {"generator": self._generators[id(value)]}

    def _individual(self, value: Individual, _path: str) -> Tree:
        return {"individual": self._number(value)}

    def _number(self, value: Individual) -> int:
        return self._individuals.setdefault(id(value), (len(self._individuals), value))[0]

    def people(self) -> Tree:
        """All individuals met so far, by column."""
        people = [value for _, value in self._individuals.values()]
        names = sorted({key for person in people for key in person.data})
        columns = {
            part: self._column([getattr(person, part) for person in people]) for part in _PARTS
        }
        data = {}
        for name in names:
            holders = [i for i, person in enumerate(people) if name in person.data]
            data[name] = [holders, self._column([people[i].data[name] for i in holders])]
        evaluated = [tuple(sorted(person.evaluated)) for person in people]
        kinds = sorted(set(evaluated))
        number = {kind: i for i, kind in enumerate(kinds)}
        return {
            "n": len(people),
            "parts": columns,
            "data": data,
            "evaluated": [list(kind) for kind in kinds],
            "evaluated_as": [number[entry] for entry in evaluated],
        }

    def _column(self, values: list[Any]) -> Tree:
        kinds = {type(value) for value in values}
        if kinds == {np.ndarray} and values[0].dtype != object:
            if len({(value.shape, value.dtype) for value in values}) == 1:
                rows = np.concatenate(values, axis=None).reshape(len(values), *values[0].shape)
                return {"rows": self._kept(rows)}
        elif len(kinds) == 1 and issubclass(next(iter(kinds)), np.generic):
            return {"numbers": self._kept(np.array(values))}
        return {"list": self._several(values, "an individual")}


class _Reader:
    def __init__(self, tree: Tree, arrays: list[NDArray[Any]], packages: set[str]) -> None:
        self._arrays, self._packages = arrays, packages
        self._states = tree["generators"]
        self._generators: dict[int, np.random.Generator] = {}
        self._objects: dict[int, Any] = {}
        self._people = self._individuals(tree["people"])

    def put(self, thing: Any, node: Tree, path: str) -> None:
        """Set an object's attributes."""
        if node["kind"] != _kind(thing):
            raise StateError(f"{path} is a {_kind(thing)}, the stored one a {node['kind']}")
        self._objects[node["object"]] = thing
        for name, entry in node["entries"].items():
            vars(thing)[name] = self.value(entry, vars(thing).get(name), f"{path}.{name}")
        for name in set(vars(thing)) - set(node["entries"]) - _NOT_STATE:
            if not _is_fixed(vars(thing)[name]):
                del vars(thing)[name]

    def value(self, node: Tree, present: Any, path: str) -> Any:  # noqa: PLR0911  one a kind
        """A stored value; objects and generators are those present, changed in place."""
        if not isinstance(node, dict):
            return node
        (kind, content), *_ = node.items()
        if kind == "object":
            thing = present if _kind(present) == node["kind"] else self._made(node["kind"])
            self.put(thing, node, path)
            return thing
        if kind == "generator":
            return self._generator(content, present)
        simple: dict[str, Callable[[Any], Any]] = {
            "again": lambda number: self._objects[number],
            "individual": lambda number: self._people[number],
            "array": lambda number: self._arrays[number].copy(),
            "number": lambda number: self._arrays[number][()],
        }
        if kind in simple:
            return simple[kind](content)
        if kind == "dict":
            old = present if isinstance(present, dict) else {}
            kept = {key: value for key, value in old.items() if _is_fixed(value)}
            pairs = ((self.value(key, None, path), item) for key, item in content)
            return kept | {key: self.value(item, old.get(key), path) for key, item in pairs}
        if kind in {"items", "people"}:
            values = np.empty(len(content), dtype=object)
            members = kind == "people"
            values[:] = (
                [self._people[number] for number in content]
                if members
                else self._several(content, None, path)
            )
            matrix = values.reshape(node["shape"])
            return matrix.view(Population) if members else matrix
        makers: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set}
        return makers[kind](self._several(content, present, path))

    def _made(self, kind: str) -> Any:
        """An empty object for what algorithms only make as they go; its class is known already."""
        module, _, name = kind.partition(":")
        if module.partition(".")[0] not in self._packages:
            raise StateError(f"a stored object is of a class of {module}")
        found = getattr(sys.modules[module], name)
        return found.__new__(found)

    def _several(self, nodes: list[Tree], present: Any, path: str) -> list[Any]:
        old = list(present) if isinstance(present, list | tuple) else []
        old += [None] * (len(nodes) - len(old))
        return [self.value(node, old[i], f"{path}[{i}]") for i, node in enumerate(nodes)]

    def _generator(self, number: int, present: Any) -> np.random.Generator:
        if number not in self._generators:
            rng = present if isinstance(present, np.random.Generator) else np.random.default_rng()
            set_generator(rng, self._states[number])
            self._generators[number] = rng
        return self._generators[number]

    def _individuals(self, tree: Tree) -> list[Individual]:
        people = [Individual() for _ in range(tree["n"])]
        for part, column in tree["parts"].items():
            if part not in _PARTS:
                raise KeyError(part)
            for person, value in zip(people, self._column(column), strict=True):
                setattr(person, part, value)
        for name, (rows, column) in tree["data"].items():
            for row, value in zip(rows, self._column(column), strict=True):
                people[row].data[name] = value
        for person, kind in zip(people, tree["evaluated_as"], strict=True):
            person.evaluated = set(tree["evaluated"][kind])
        return people

    def _column(self, node: Tree) -> list[Any]:
        if "rows" in node:
            return [row.copy() for row in self._arrays[node["rows"]]]
        if "numbers" in node:
            return list(self._arrays[node["numbers"]])
        return self._several(node["list"], None, "an individual")


def _kind(thing: Any) -> str:
    return f"{type(thing).__module__}:{type(thing).__name__}"


def _is_fixed(value: Any) -> bool:
    """Whether a value belongs to the configuration: functions, classes, problems, callbacks."""
    return (
        isinstance(value, type | Problem | Callback)
        or type(value).__module__.startswith(_CONFIGURATION)
        or type(value).__name__ in _FUNCTIONS
    )


def generator_state(rng: np.random.Generator) -> Tree:
    """A generator's state as JSON."""
    return _listed(rng.bit_generator.state)


def set_generator(rng: np.random.Generator, state: Tree) -> None:
    """Put a generator into a state that :func:`generator_state` returned.

    Raises:
        StateError: it is the state of another kind of generator, or malformed.
    """
    try:
        rng.bit_generator.state = state
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StateError("the stored state of a random generator is damaged") from error


def _listed(value: Any) -> Tree:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return int(value) if isinstance(value, np.integer) else value
