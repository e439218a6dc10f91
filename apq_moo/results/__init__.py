"""What is made of a run: front, history, verification, pick, gap, breakdown, tables."""

from apq_moo.results.frames import load

__all__ = ["load"]
