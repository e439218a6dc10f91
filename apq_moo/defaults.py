"""What is meant where nothing is named; imports nothing, so that the command line starts fast."""

DEFAULT_SPACE = "fashion"
"""The space that is searched."""

DEFAULT_PREDICTOR = "xgboost-stacked"
"""What predicts accuracies; on the shipped spaces it ranks held-out networks best."""
