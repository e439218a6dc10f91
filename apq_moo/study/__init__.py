"""One search: problem, algorithm, budget and seed, to a run folder."""
