"""Comparisons across algorithms and seeds."""
