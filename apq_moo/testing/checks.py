"""What the suites share."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.space import Space, load_space


class Suite:
    """Checks of a kind of plug-in."""

    @pytest.fixture
    def space(self) -> Space:
        """What it is checked on."""
        return load_space("digits")


def missing(fixture: str) -> NotImplementedError:
    """What a fixture raises that a plug-in's tests have to override."""
    return NotImplementedError(f"this suite needs the fixture {fixture!r}: override it")


def assert_refused(call: Callable[[], object], what: str) -> None:
    """Assert that a call ends in a :class:`UserError`.

    Raises:
        AssertionError: it ends in another way; ``what`` says what should have been refused.
    """
    try:
        call()
    except UserError:
        return
    except Exception as error:
        raise AssertionError(f"{what} ends in {error!r}, not in a UserError") from error
    raise AssertionError(f"{what} is not refused")


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch, and assert that nothing moves them.

    Their states are restored at the end.

    Raises:
        AssertionError: one was used or seeded.
    """
    import torch

    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        seeded = _states()
        yield
        for name, state in _states().items():
            assert state == seeded[name], f"the global generator of {name} was used"
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def _states() -> dict[str, bytes]:
    import torch

    return {
        "random": pickle.dumps(random.getstate()),
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
