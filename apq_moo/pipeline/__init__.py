"""From raw images to a verified Pareto front."""
