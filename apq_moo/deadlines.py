"""A time at which work is left where it stands, to be gone on with later."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from apq_moo.errors import UserError, shown


class OutOfTimeError(UserError):
    """The time that there was for some work has passed."""


@dataclass(frozen=True)
class Deadline:
    """When work stops, wherever its processes are.

    Attributes:
        at: seconds since the epoch.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """So many seconds from now.

        Raises:
            UserError: they are not above 0.
        """
        if not 0 < seconds < math.inf:
            raise UserError(f"stop_after={shown(seconds)}: seconds above 0 are possible")
        return cls(time.time() + seconds)

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return time.time() >= self.at

    def check(self) -> None:
        """Go on only before it.

        Raises:
            OutOfTimeError: it has passed.
        """
        if self.passed:
            raise OutOfTimeError("out of time")
