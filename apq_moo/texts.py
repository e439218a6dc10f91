"""Short texts that users write."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal


def by_commas(text: str) -> tuple[str, ...]:
    """The parts of a text between commas, without blanks around them; empty ones are left out.

    >>> by_commas("acc, latency,")
    ('acc', 'latency')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())


def rounded_up(value: float, digits: int = 3) -> str:
    """A short number that is at least a given one.

    Args:
        value: positive, or 0.
        digits: significant ones.

    >>> rounded_up(0.012341)
    '0.0124'
    >>> rounded_up(12300.1)
    '12400'
    >>> rounded_up(0.25)
    '0.25'
    """
    exact = Decimal(str(value))
    short = exact.quantize(Decimal(1).scaleb(exact.adjusted() + 1 - digits), ROUND_CEILING)
    return f"{short.normalize():f}"
