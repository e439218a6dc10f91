"""Registries: from a name to a class or factory, open to entry points."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from importlib.metadata import EntryPoint
from typing import Generic, TypeVar

from apq_moo.errors import UserError, warn

T = TypeVar("T")


def entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Those of a group; looked for once, which takes milliseconds, unless ``sys.path`` changes."""
    return _installed(group, tuple(sys.path))


@lru_cache(maxsize=64)
def _installed(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(metadata.entry_points(group=group))


class Registry(Generic[T]):
    """A dictionary of named things of one kind.

    Third parties add to it through the entry-point group ``apq_moo.<kind>s``; those are imported
    only when their name, or all items, are asked for, and cannot take the name of a built-in one.

    Args:
        kind: what is registered, in the singular, as messages name it (``"predictor"``).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}
        self._included: dict[str, T] = {}
        self._loaded: dict[str, T] = {}
        self._broken: dict[str, str] = {}

    def register(self, name: str, item: T) -> T:
        """Add an item.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._items:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._items[name] = item
        return item

    def add(self, name: str) -> Callable[[T], T]:
        """Decorate a class or function to register it under a name."""
        return lambda item: self.register(name, item)

    @contextmanager
    def including(self, items: Mapping[str, T]) -> Iterator[None]:
        """Within, further items can be looked up, which are no plug-ins.

        Args:
            items: by name; one that is included already stays so afterwards.

        Raises:
            UserError: another item has that name.
        """
        new = {name: item for name, item in items.items() if self._included.get(name) is not item}
        for name in new:
            if name in self:
                raise UserError(
                    f"the name of {self.kind} {name!r} is taken: give yours another one"
                )
        self._included |= new
        try:
            yield
        finally:
            for name in new:
                del self._included[name]

    @property
    def included(self) -> dict[str, T]:
        """What :meth:`including` has added for now, by name."""
        return dict(self._included)

    def _plugins(self) -> dict[str, EntryPoint]:
        group = f"apq_moo.{self.kind.replace(' ', '_')}s"
        return {point.name: point for point in entry_points(group=group)}

    def names(self) -> list[str]:
        """All names: built-in ones in the order of registration, plug-ins, what is included."""
        plugins = set(self._plugins()) - set(self._items)
        return [*self._items, *sorted(plugins), *self._included]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._items or name in self._included or name in self._plugins()

    def usable(self) -> Iterator[tuple[str, T]]:
        """All names and items; plug-ins that cannot be loaded are warned of and left out."""
        for name in self.names():
            try:
                item = self.get(name)
            except UserError as error:
                warn(str(error))
            else:
                yield name, item

    def get(self, name: str) -> T:
        """Look a name up.

        Raises:
            UserError: no such name (the message lists the known ones), or a plug-in that cannot be
                loaded.
        """
        for known in (self._items, self._included):
            if name in known:
                return known[name]
        if name not in self._loaded:
            plugin = self._plugins().get(name)
            if plugin is None:
                listed = ", ".join(self.names()) or "none"
                raise UserError(f"unknown {self.kind} {name!r}; known: {listed}")
            if name not in self._broken:
                try:
                    self._loaded[name] = plugin.load()
                except (Exception, SystemExit) as error:  # whatever the plug-in's code does
                    self._broken[name] = _why(plugin, error)
            if name in self._broken:
                raise UserError(f"{self.kind} {name!r} {self._broken[name]}")
        return self._loaded[name]


def _why(plugin: EntryPoint, error: BaseException) -> str:
    owner = plugin.dist.name if plugin.dist else "an unknown distribution"
    return (
        f"is a plug-in of {owner} that cannot be loaded from {plugin.value}: "
        f"{type(error).__name__}: {error}; repair or uninstall it"
    )
