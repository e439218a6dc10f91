"""Short texts that users write."""

from __future__ import annotations


def by_commas(text: str) -> tuple[str, ...]:
    """The parts of a text between commas, without blanks around them; empty ones are left out.

    >>> by_commas("acc, latency,")
    ('acc', 'latency')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())
