"""Files of another space are refused with what differs."""

from dataclasses import replace

import numpy as np
import pytest

from apq_moo.data.assets import find_assets, write_manifest
from apq_moo.data.samples import SETS, SampleTable, load_samples
from apq_moo.data.tables import AccuracyTable, load_table
from apq_moo.errors import UserError
from apq_moo.predictors import PREDICTORS, load_predictor
from apq_moo.space import Space, belonging, load_space, refuse_other_space
from apq_moo.supernet.checkpoint import load_supernet, save_supernet
from apq_moo.supernet.network import Supernet

SPACE = load_space("digits")
FIRST, *REST = SPACE.spec.stages


def like(**changes):
    """The space ``digits`` with something changed."""
    return Space(replace(SPACE.spec, **changes))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (like(stages=(replace(FIRST, kernels=(3,)), *REST)), "stages[0].kernels was [3], is [3, "),
        (like(classes=11), "classes was 11, is 10"),
        (like(stages=(FIRST,)), f"stages was 1 tables, is {len(SPACE.spec.stages)} tables"),
        (like(between_bits=16), "between_bits was 16, is 8"),
    ],
)
def test_spaces_of_one_name_differ_somewhere(other, told):
    with pytest.raises(UserError) as refused:
        refuse_other_space(belonging(other), SPACE, "f")
    assert str(refused.value).startswith(
        f"f belongs to another space of the same name, not to this 'digits': {told}"
    )


def test_what_earlier_versions_wrote_is_known_by_a_preset_s_digest():
    said = {"space": "tiny", "digest": load_space("tiny").digest}
    with pytest.raises(UserError, match=r"another space .'tiny'., not .*; \d+ more differ$"):
        refuse_other_space(said, SPACE, "f")
    for name in ("tiny", "digits", [], None):
        with pytest.raises(UserError, match=r"not to this 'digits'$"):
            refuse_other_space({"space": name, "digest": "0"}, SPACE, "f")
    refuse_other_space({"digest": SPACE.digest}, like(name="mine"), "f")


def test_every_kind_of_file_says_what_differs(tmp_path):
    other = like(classes=11)
    X = other.canonical(other.sample(2, np.random.default_rng(0)))
    path = tmp_path / "f"
    group = np.full(2, SETS.index("mp"), dtype=np.int8)

    def refused(load):
        with pytest.raises(UserError) as stop:
            load()
        assert str(stop.value).endswith("not to this 'digits': classes was 11, is 10")

    SampleTable(X, group, np.ones(2), belonging(other)).save(path)
    refused(lambda: load_samples(path, SPACE))
    AccuracyTable(X, np.ones((2, 2), dtype=np.int32), (5, 5), belonging(other)).save(path)
    refused(lambda: load_table(path, SPACE))
    save_supernet(path, Supernet(other))
    refused(lambda: load_supernet(path, SPACE))
    PREDICTORS.get("additive")(other).fit(X, np.array([1.0, 2.0])).save(path)
    refused(lambda: load_predictor(path, SPACE))
    write_manifest(tmp_path, other, ["f"])
    refused(lambda: find_assets(SPACE, tmp_path))
