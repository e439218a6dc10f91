"""The pymoo problem and its objectives."""
