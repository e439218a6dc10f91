"""Searches that others are compared with."""
