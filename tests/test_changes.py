"""What is told of settings that changed."""

import pytest

from apq_moo.changes import changed, refuse_other_settings
from apq_moo.errors import UserError

THEN = {"fp": 10, "train": {"draw": "uniform", "steps": 5}, "stages": [{"depths": [1, 2]}, {}]}


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (THEN, ""),
        ({**THEN, "fp": 20}, "fp was 10, is 20"),
        ({**THEN, "train": {"draw": "sizes", "steps": 5}}, "train.draw was 'uniform', is 'sizes'"),
        ({**THEN, "stages": [{"depths": [1]}, {}]}, "stages[0].depths was [1, 2], is [1]"),
        ({**THEN, "stages": [{}]}, "stages was 2 tables, is 1 tables"),
        ({**THEN, "more": None}, "more was not there, is None"),
        ({"fp": 10, "stages": THEN["stages"]}, "train was {'draw': 'uniform', 'steps'..., is not"),
        (7, "it was {'fp': 10, "),
        ({"fp": 1, "train": 2, "stages": 3}, "is 2; 1 more differ"),
    ],
)
def test_the_first_differences_are_named_with_both_values(now, told):
    assert told in changed(THEN, now)
    assert bool(told) == bool(changed(THEN, now))


def test_settings_are_refused_only_where_they_differ():
    refuse_other_settings("f", {"a": [1, 2]}, {"a": (1, 2)}, "name another file")
    with pytest.raises(UserError) as refused:
        refuse_other_settings("f", {"a": [1, 2]}, {"a": (1, 3)}, "name another file")
    assert str(refused.value) == (
        "f was begun with other settings (a was [1, 2], is [1, 3]); repeat those, or name another "
        "file"
    )
    with pytest.raises(UserError) as refused:
        refuse_other_settings("f" * 60, {"a": "x" * 999, "b": [1] * 99}, {"a": 1, "b": 2}, "name")
    assert len(str(refused.value)) < 300
    assert "..., is 1; b was [1, 1" in str(refused.value)
