"""Comparisons across algorithms and seeds."""

from apq_moo.benchmarks.compare.frames import load

__all__ = ["load"]
