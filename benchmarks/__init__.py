"""Comparisons across algorithms and seeds.

``bench`` carries one out, ``load`` gives its results as tables. They are imported when they are
first used: scripts of :mod:`apq_moo.benchmarks.speed` run where pymoo is not installed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apq_moo.benchmarks.compare.bench import bench
    from apq_moo.benchmarks.compare.frames import load
    from apq_moo.benchmarks.compare.plan import BenchPlan

__all__ = ["BenchPlan", "bench", "load"]

_HOME = {"BenchPlan": "plan", "bench": "bench", "load": "frames"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"apq_moo.benchmarks.compare.{_HOME[name]}"), name)
