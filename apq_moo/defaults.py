"""What is meant where nothing is named; imports nothing, so that the command line starts fast."""

DEFAULT_SPACE = "fashion"
"""The space that is searched."""
