"""One search: problem, algorithm, budget and seed, to a run folder."""

from apq_moo.study.config import RunConfig, parse_objectives
from apq_moo.study.folder import RunFolder

__all__ = ["RunConfig", "RunFolder", "parse_objectives"]
