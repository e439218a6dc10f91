"""Searches that measure: fit a predictor, search it, measure what it promises, and repeat."""
