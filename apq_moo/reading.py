"""Checked reading of parsed TOML, naming the key in every message, as in ``stages[0].width``."""

from __future__ import annotations

from typing import Any

from apq_moo.errors import UserError, shown


class TableReader:
    """Takes values out of parsed tables and refuses what does not fit.

    Args:
        source: how messages name the file.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, message: str) -> UserError:
        """An error about the file."""
        return UserError(f"{self.source}: {message}")

    def wrong(self, table: dict[str, Any], key: str, where: str, wanted: str) -> UserError:
        """An error about one key: what it must be, and what it is."""
        got = f"not {shown(table[key])}" if key in table else "but is missing"
        return self.fail(f"{where}{key} must be {wanted}, {got}")

    def table(self, value: Any, keys: tuple[str, ...], where: str) -> dict[str, Any]:
        """A table with no keys but the known ones.

        Raises:
            UserError: it is something else, or has another key.
        """
        if not isinstance(value, dict):
            raise self.fail(f"{where} must be a table, not {shown(value)}")
        unknown = sorted(set(value) - set(keys), key=str)
        if unknown:
            raise self.fail(f"unknown key {shown(unknown[0])} in {where}; known: {', '.join(keys)}")
        return value

    def integer(
        self,
        table: dict[str, Any],
        key: str,
        where: str,
        low: int,
        high: int,
        default: int | None = None,
    ) -> int:
        """An integer within bounds.

        Raises:
            UserError: it is missing without a default, or something else.
        """
        value = table.get(key, default)
        if value is None or not is_integer(value, low, high):
            raise self.wrong(table, key, where, f"an integer from {low} to {high}")
        return int(value)

    def number(self, table: dict[str, Any], key: str, where: str, low: float, high: float) -> float:
        """A number within bounds.

        Raises:
            UserError: it is missing or something else.
        """
        value = table.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None or not number or not low <= value <= high:
            raise self.wrong(table, key, where, f"a number from {low:g} to {high:g}")
        return float(value)


def is_integer(value: object, low: int, high: int) -> bool:
    """Whether a value is an integer (and no boolean) within bounds."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
