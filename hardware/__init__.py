"""Cost models and their block tables."""
