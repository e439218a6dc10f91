"""From raw images to a verified Pareto front."""

from apq_moo.pipeline.chain import Listener, run
from apq_moo.pipeline.config import PipelineConfig

__all__ = ["Listener", "PipelineConfig", "run"]
