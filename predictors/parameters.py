"""Parameters as scikit-learn's estimators have them, without importing scikit-learn.

A text names what has them, and those that are not the defaults: ``NAME:PARAMETER=VALUE``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from typing import Any, Self

from apq_moo.errors import UserError, shown


class Parametrised:
    """Its parameters are the arguments of its constructor.

    The constructor names each and keeps it unchanged in an attribute of the same name. What a
    parameter holds are parameters too: the fields of a dataclass, such as ``transfer__lr``, and the
    parameters of an estimator.
    """

    @classmethod
    def _arguments(cls) -> dict[str, inspect.Parameter]:
        variadic = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
        arguments = inspect.signature(cls).parameters
        return {name: value for name, value in arguments.items() if value.kind not in variadic}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name.

        Args:
            deep: also those that they hold.
        """
        parameters = {name: getattr(self, name) for name in self._arguments()}
        if deep:
            for name, value in list(parameters.items()):
                parameters |= {f"{name}__{key}": held for key, held in _held(value).items()}
        return parameters

    def set_params(self, **parameters: Any) -> Self:
        """Change parameters.

        Args:
            parameters: by the names of :meth:`get_params`.

        Returns:
            The object itself.

        Raises:
            UserError: there is no such parameter, or it refuses its value.
        """
        known = self.get_params()
        changed: dict[str, Any] = {}
        for name, value in sorted(parameters.items()):  # what holds others comes before them
            if name not in known:
                raise UserError(
                    f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(known)}"
                )
            outer, _, inner = name.partition("__")
            holder = changed.get(outer, known[outer])
            if not inner:
                changed[outer] = value
            elif _is_record(holder):
                changed[outer] = replace(holder, **{inner: value})
            else:
                holder.set_params(**{inner: value})
        for name, value in changed.items():
            setattr(self, name, value)
        return self

    def _plain_params(self) -> dict[str, Any]:
        """The optional parameters as JSON has them.

        Raises:
            UserError: one is not plain data.
        """
        plain = {}
        for name, argument in self._arguments().items():
            value = getattr(self, name)
            if argument.default is argument.empty:
                continue
            try:
                plain[name] = json.loads(json.dumps(value, default=_plain))
            except (AttributeError, TypeError, ValueError) as error:
                raise UserError(
                    f"the parameter {name} cannot be saved: it must be numbers, text, or lists "
                    f"of them, not {shown(value)}"
                ) from error
        return plain

    @classmethod
    def _read_params(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """What :meth:`_plain_params` returned, as the constructor takes it.

        Raises:
            KeyError, TypeError, ValueError: it is not of the expected form.
        """
        parameters = {}
        for name, value in plain.items():
            default = cls._arguments()[name].default
            held = isinstance(value, dict) and _is_record(default)
            parameters[name] = type(default)(**value) if held else value
        return parameters


def _is_record(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _held(value: Any) -> dict[str, Any]:
    if _is_record(value):
        return dict(vars(value))
    return dict(value.get_params()) if hasattr(value, "get_params") else {}


def _plain(value: Any) -> Any:
    return asdict(value) if _is_record(value) else value.item()


def read_specification(text: str, example: str) -> tuple[str, dict[str, Any]]:
    """Read ``NAME:PARAMETER=VALUE:PARAMETER=VALUE``.

    Args:
        text: as users write it.
        example: one that is right, for the message.

    Returns:
        The name, and the parameters: numbers, true or false, else texts.

    Raises:
        UserError: it is not written so.
    """
    name, *parts = text.split(":")
    parameters: dict[str, Any] = {}
    for part in parts:
        parameter, mark, value = part.partition("=")
        if not mark or parameter in {"space", "seed"}:
            raise UserError(f"{part!r} in {text!r}: write NAME:PARAMETER=VALUE, such as {example}")
        parameters[parameter] = _value(value)
    return name, parameters


def _value(text: str) -> Any:
    """A number, true or false, or else the text itself."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, int | float) else text
