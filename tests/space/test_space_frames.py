"""Data frames: columns are found by their names, in whatever order, or refused."""

import copy

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.space import gene_matrix, load_space

SPACE = load_space("digits")
NAMES = [gene.name for gene in SPACE.genes]
X = SPACE.sample(20, np.random.default_rng(0))
SHUFFLED = np.random.default_rng(1).permutation(len(NAMES))


class Frame:
    """All that a data frame needs to have."""

    def __init__(self, array, columns):
        self.array, self.columns = array, columns

    def to_numpy(self):
        return self.array


def pandas_frame(array, columns):
    return pytest.importorskip("pandas").DataFrame(array, columns=columns)


def polars_frame(array, columns):
    return pytest.importorskip("polars").DataFrame(array, schema=columns, orient="row")


@pytest.fixture(params=[Frame, pandas_frame, polars_frame])
def frame(request):
    return request.param


def test_columns_are_found_by_their_names(frame):
    for order in (np.arange(len(NAMES)), np.arange(len(NAMES))[::-1], SHUFFLED):
        given = frame(X[:, order], [NAMES[i] for i in order])
        np.testing.assert_array_equal(SPACE.check(given), X)
        assert SPACE.check(given).dtype == np.int64
        assert SPACE.decode(given) == SPACE.decode(X)


def test_values_are_checked_as_ever(frame):
    with pytest.raises(UserError, match="X must hold integers"):
        SPACE.check(frame(X + 0.5, NAMES))
    place = int(np.flatnonzero(SHUFFLED == 3)[0])
    spoilt = X[:, SHUFFLED].copy()
    spoilt[2, place] = 99
    with pytest.raises(UserError, match=rf"X\[2, 3\] = 99 is out of range: gene {NAMES[3]} has"):
        SPACE.check(frame(spoilt, [NAMES[i] for i in SHUFFLED]))


def test_columns_that_may_lack_values():
    frame = pandas_frame(X, NAMES).convert_dtypes()
    assert frame.to_numpy().dtype == object
    np.testing.assert_array_equal(SPACE.check(frame), X)
    frame.iloc[1, 2] = None
    with pytest.raises(UserError, match="X must hold integers"):
        SPACE.check(frame)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (NAMES[:-1], rf"the column '{NAMES[-1]}' is missing; .* each of the {len(NAMES)} genes"),
        ([*NAMES, "accuracy"], "the column 'accuracy' is no gene; .* like 'stage0.depth'"),
        ([*NAMES[:-1], NAMES[0]], rf"the column '{NAMES[-1]}' is missing"),
        ([*NAMES, NAMES[4]], rf"the column '{NAMES[4]}' is there twice"),
        (range(len(NAMES)), "the column 0 is no gene"),
    ],
)
def test_other_columns_are_refused(columns, message):
    array = np.zeros((3, len(columns)), dtype=np.int64)
    for make in (Frame, pandas_frame):
        with pytest.raises(UserError, match=message) as caught:
            SPACE.check(make(array, columns))
        assert "\n" not in str(caught.value)


def test_what_is_no_frame_stays_as_it_is():
    for value in (X, X.tolist(), "text", None):
        assert gene_matrix(NAMES, value) is value
    # Some genes only, as a problem that leaves genes with one option out has them.
    chosen = gene_matrix(["b", "a"], Frame(np.array([[1.5, 2.0]]), ["a", "b"]))
    np.testing.assert_array_equal(chosen, [[2.0, 1.5]])


def test_copies_share_the_space():
    assert copy.copy(SPACE) is SPACE
    assert copy.deepcopy([SPACE, {"of": SPACE}])[1]["of"] is SPACE
