"""What is meant where nothing is named; imports nothing, so that the command line starts fast."""

DEFAULT_SPACE = "fashion"
"""The space that is searched."""

DEFAULT_PREDICTOR = "ensemble"
"""What predicts accuracies; on the shipped spaces it ranks held-out networks best."""

DEFAULT_START = "sizes"
"""How the networks that searches begin with are drawn."""

MAX_JOBS = 1024
"""Processes at a time."""

MOST_EPOCHS = 1000
"""Of fine-tuning what a comparison found."""

MAX_SEED = 2**32 - 1
"""Every library that draws at random takes seeds up to this."""
