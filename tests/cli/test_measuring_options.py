"""``apq-moo run --algo surrogate`` and ``--refine``: what options mean, and which are refused."""

import json
from pathlib import Path

import pytest

from apq_moo.cli.measuring_options import Wish, measuring
from apq_moo.study.config import RefitConfig

NOTHING = Wish(None, None, None, None, False, None, None)


def meant(space="tiny", **wished):
    return measuring(Wish(**{**vars(NOTHING), **wished}), space, None)


def test_what_options_mean():
    assert meant(algo="surrogate") == ("surrogate", "table", 200, RefitConfig())
    assert meant("digits", algo="surrogate", measure=50) == (
        "surrogate", "supernet", 50, RefitConfig(first=25),
    )  # fmt: skip
    assert meant(algo="surrogate", predictor="supernet", budget=99)[1:3] == ("supernet", 99)
    assert meant(algo="surrogate", predictor="gp", inner="spea2")[3] == RefitConfig(
        predictor="gp", inner="spea2"
    )
    assert meant(refine=True)[3] == RefitConfig(predictor="gp", samples="shipped")
    assert meant(refine=True, algo="apq-ga", predictor="gp-scratch")[3] == RefitConfig(
        inner="apq-ga", samples="shipped"
    )
    assert meant(refine=True, samples="runs/a")[3] == RefitConfig(samples="runs/a")


def test_a_run_from_nothing(call):
    given = ("--space", "tiny", "--algo", "surrogate", "--measure", "24", "--out", "a")
    outcome = call("run", *given)
    assert outcome.code == 0, outcome.err
    assert "surrogate on tiny: 24 evaluations" in outcome.out
    record = json.loads(Path("a/run.json").read_text())
    assert record["config"]["predictor"] == "table"
    assert record["config"]["refit"]["first"] == 12
    assert call("run", "--resume", "a", "--algo", "surrogate").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--measure", "20"), "--measure is for searches that measure: add --algo surrogate"),
        (("--algo", "nsga2", "--inner", "spea2"), "--inner is for searches that measure"),
        (("--samples", "shipped"), "--samples is for searches that measure"),
        (("--algo", "surrogate", "--measure", "3"), "--measure 3: at least 4 networks"),
        (("--algo", "surrogate", "--measure", "30", "--budget", "40"), "leave out --budget"),
        (("--refine", "--algo", "spea2", "--inner", "nsga2"), "leave out one of them"),
        (("--refine", "--predictor", "additive"), "no standard deviations"),
        (("--refine", "--predictor", "kriging"), "unknown predictor 'kriging'"),
        (("--refine", "--predictor", __file__), "a kind of predictor, such as gp, not a file"),
        (("--algo", "surrogate", "--inner", "exact"), "--inner exact cannot search a predictor"),
        (("--algo", "surrogate", "--samples", "no"), "samples 'no': write shipped, a file"),
        (("--resume", "a", "--measure", "50"), "leave out --measure, --refine, --inner, --samples"),
    ],
)
def test_mistakes(refused, arguments, words):
    assert words in refused("run", *arguments)
