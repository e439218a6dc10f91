"""One search: problem, algorithm, budget and seed, to a run folder."""

from apq_moo.study.config import RunConfig, parse_limits, parse_objectives
from apq_moo.study.folder import RunFolder

__all__ = ["RunConfig", "RunFolder", "parse_limits", "parse_objectives"]
