"""Whole comparisons: plans, cells, stored results, scores, statistics, audits."""
