"""The whole front of an accuracy that adds up over blocks."""
