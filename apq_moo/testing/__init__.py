"""Suites that show whether a plug-in keeps the promises of its kind.

A plug-in's test module subclasses one of them, names the class ``Test...`` and overrides the
fixtures that give the object; pytest then runs every check::

    class TestMine(PredictorConformance):
        @pytest.fixture
        def make(self, space):
            return lambda seed: fit_to_samples("mine", space, SAMPLES, seed=seed)

This package needs pytest, which nothing else of apq-moo does.
"""

try:
    import pytest
except ImportError as error:
    raise ImportError(
        "apq_moo.testing needs pytest: pip install pytest, or pip install 'apq-moo[test]'"
    ) from error

for _name in ("checks", "predictors", "costs", "sources", "strategies", "algorithms"):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")

from apq_moo.testing.algorithms import AlgorithmConformance, drive  # noqa: E402
from apq_moo.testing.costs import CostModelConformance  # noqa: E402
from apq_moo.testing.predictors import PredictorConformance  # noqa: E402
from apq_moo.testing.sources import SourceConformance  # noqa: E402
from apq_moo.testing.strategies import StrategyConformance  # noqa: E402

__all__ = [
    "AlgorithmConformance",
    "CostModelConformance",
    "PredictorConformance",
    "SourceConformance",
    "StrategyConformance",
    "drive",
]
