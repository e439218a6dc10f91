"""The parsers of accelerators and tables against malformed files: no traceback, no hang.

Each file either loads or is refused in one line. Over 10,000 files for each of the two text formats
are altered copies of good ones and arbitrary bytes; hypothesis chooses the alterations.
"""

import time
import zipfile
from importlib.resources import files

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apq_moo.errors import UserError
from apq_moo.hardware import (
    LayerTable,
    TableDevice,
    find_device,
    load_accelerator,
    read_table,
    write_table,
)
from apq_moo.hardware.layer_table import Correction

TOML = (files("apq_moo.hardware") / "machines" / "bitfusion.toml").read_bytes()
JSON = b"""{"(96, 456, 14, 1, 1, 0, 1)-W4A4": {"energy": 0.1068, "latency": 0.0621},
"(8, 8, 14, 3, 2, 1, 8)-W8A6": {"energy": 0.3, "latency": 0.02},
"head": {"energy": 0.5, "latency": 0.29}, "tail": {"latency": 0.08, "energy": 0.15}}"""

TOKENS = [
    *(b"nan", b"inf", b"-1", b"0", b"1e999", b"-1e999", b"9" * 400, b"NaN", b"Infinity", b"true"),
    *(b"null", b'""', b'"x"', b"[]", b"{}", b"[[[]]]", b"[" * 3000, b"{" * 50, b'"\\u0000"', b"\0"),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"=", b",", b":", b"]", b"}", b"(1, 2)-W4A4", b"W0A99"),
    *(b"[energy_nj]", b"name = 3", b"1979-05-27", b"0x10", b'"latency"', b"\r", b"'''", b"a.b = 1"),
    *(
        "é𝄞".encode(),
        b"1_000",
        b"+5",
        b".5",
        b"5.",
        b"0o7",
        b'{"latency": 1}',
        b"#",
        b"\\",
        b"\x1b",
    ),
]
LONGEST_S = 10
"""Far more than any file takes, on a busy machine too."""


@st.composite
def altered(draw, content):
    """A good file with a few bytes, tokens or lines changed, cut off, repeated or swapped."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 6)):
            case 0:
                data[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                end = place + draw(st.integers(0, 12))
                data[place:end] = draw(st.sampled_from(TOKENS))
            case 2:
                data = data[:place]
            case 3:
                del data[place : place + draw(st.integers(1, 60))]
            case 4:
                data[place:place] = data[: draw(st.integers(0, len(data)))][-80:]
            case 5:
                # What stands behind a separator, up to the next one.
                marks = [i for i, byte in enumerate(data) if byte in b"=:,"]
                if marks:
                    start = draw(st.sampled_from(marks)) + 1
                    stops = [data.find(mark, start) for mark in (b"\n", b",", b"}")]
                    end = min([stop for stop in stops if stop >= 0], default=len(data))
                    data[start:end] = b" " + draw(st.sampled_from(TOKENS))
            case 6:
                lines = bytes(data).split(b"\n")
                i, j = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
                lines[i], lines[j] = lines[j], lines[i]
                data = bytearray(b"\n".join(lines))
        if not data:
            break
    return bytes(data)


def survives(read, path, content):
    """Whether a file loads; else it was refused in one line. Nothing else may happen."""
    path.write_bytes(content)
    begun = time.perf_counter()
    message = ""
    try:
        read(path)
    except UserError as error:
        message = str(error)
        assert message
    assert time.perf_counter() - begun < LONGEST_S, content
    assert len(message.splitlines()) <= 1, content
    assert len(message) < 2000, content
    return not message


def use(path):
    """Load a table and look something up, as a search does."""
    table = read_table(path)
    device = TableDevice(table, str(path), missing="infeasible")
    assert all(len(pair) == 2 for pair in table.bit_pairs)
    assert find_device(path).units == table.units
    return device


QUICK = settings(
    max_examples=1,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def fuzz(read, path, strategy, n_examples, batch):
    """Try files, several an example; returns how many were tried and how many loaded."""
    counts = [0, 0]

    @settings(QUICK, max_examples=n_examples)
    @given(st.lists(strategy, min_size=batch, max_size=batch))
    def run(contents):
        for content in contents:
            counts[0] += 1
            counts[1] += survives(read, path, content)

    run()
    return counts


@pytest.mark.parametrize(
    ("read", "suffix", "good"),
    [(load_accelerator, "toml", TOML), (use, "json", JSON)],
    ids=["accelerator", "published table"],
)
def test_malformed_text_files(read, suffix, good, tmp_path):
    path = tmp_path / f"x.{suffix}"
    assert survives(read, path, good)
    strategy = st.one_of(altered(good), altered(good), altered(good), st.binary(max_size=200))
    tried, loaded = fuzz(read, path, strategy, 1100, 10)
    assert tried >= 10_000
    assert 0.005 < loaded / tried < 0.5  # some alterations do no harm


@pytest.fixture(scope="module")
def table():
    return LayerTable(
        names=(
            "(96, 456, 14, 1, 1, 0, 1)-W4A4",
            "(8, 8, 14, 3, 2, 1, 8)-W8A6",
            "(3, 8, 8, 3, 1, 1, 1)-W8A8",
        ),
        components=("block", "block", "stem"),
        units={"latency": "ms"},
        values={"latency": np.array([1.0, 2.0, 3.0])},
        spread={"latency": np.array([0.1, 0.2, 0.3])},
        repeats=np.array([9, 9, 9]),
        constant={"latency": 0.5},
        bits=((4, 4), (8, 6), (8, 8)),
        corrections={"latency": Correction(1.0, 0.0, 30, 0.9, 1.0, 1.0)},
        provenance={"measured": {"threads": 1}},
    )


@pytest.mark.parametrize(("suffix", "examples"), [("npz", 400), ("parquet", 150)])
def test_malformed_column_files(suffix, examples, table, tmp_path):
    path = tmp_path / f"x.{suffix}"
    write_table(path, table)
    good = path.read_bytes()
    assert survives(use, path, good)
    tried, loaded = fuzz(use, path, st.one_of(altered(good), st.binary(max_size=200)), examples, 10)
    assert tried >= 10 * examples
    assert loaded < tried / 2


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_small_files_that_unpack_to_huge_ones(suffix, table, tmp_path):
    """Refused before they are unpacked."""
    path = tmp_path / f"x.{suffix}"
    if suffix == "npz":
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("latency.npy", "w", force_zip64=True) as handle,
        ):
            for _ in range(33):
                handle.write(bytes(2**24))
    else:
        n = 2**20 + 1
        column = {"latency": pyarrow.array(np.ones(n)), "layer": pyarrow.nulls(n)}
        pyarrow.parquet.write_table(pyarrow.table(column), path)
    assert path.stat().st_size < 2**22
    with pytest.raises(UserError, match=r"unpacks to more than 512 MiB|has 1048577 rows"):
        read_table(path)


def test_an_array_that_claims_to_be_huge(table, tmp_path):
    """Its header promises more numbers than follow."""
    path = tmp_path / "x.npz"
    write_table(path, table)
    for count in (4, 10**9, 10**13, 10**30):
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({count},), }}".ljust(117)
        entries["latency.npy"] = b"\x93NUMPY\x01\x00v\x00" + text.encode() + b"\n" + bytes(24)
        altered_path = tmp_path / "y.npz"
        with zipfile.ZipFile(altered_path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        with pytest.raises(UserError, match="cannot read") as caught:
            read_table(altered_path)
        assert len(str(caught.value).splitlines()) == 1


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    key=st.sampled_from(["format", "units", "constant", "bits", "corrections", "provenance"]),
    inner=st.sampled_from([None, "latency", "scale"]),
    junk=JUNK,
)
def test_altered_headers(key, inner, junk, table, tmp_path_factory):
    """The file is whole, and its header says something else."""
    import json

    from apq_moo.hardware import table_files

    path = tmp_path_factory.mktemp("x") / "x.npz"
    header = json.loads(table_files._header(table))
    if inner is None:
        header[key] = junk
    elif key == "corrections" and inner == "scale":
        header[key]["latency"]["scale"] = junk
    else:
        header[key] = {inner: junk}
    columns = table_files._columns(table)
    with path.open("wb") as handle:
        text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        np.savez(handle, header=text, **columns)
    survives(use, path, path.read_bytes())


@pytest.mark.parametrize("column", ["layer", "component", "latency", "latency_iqr", "repeats"])
@pytest.mark.parametrize(
    "values",
    [
        np.array(["x"] * 3),
        np.array([1.0, 2.0]),
        np.zeros((3, 2)),
        np.array(3.0),
        np.array([1, 2, 3], dtype=complex),
        np.array([b"a", b"b", b"c"]),
        np.array(["2020-01-01"] * 3, dtype="datetime64[D]"),
        np.array([], dtype=float),
        None,
    ],
    ids=str,
)
def test_altered_columns(column, values, table, tmp_path):
    from apq_moo.hardware import table_files

    columns = table_files._columns(table)
    columns[column] = values
    if values is None:
        del columns[column]
    text = np.frombuffer(table_files._header(table).encode(), dtype=np.uint8)
    path = tmp_path / "x.npz"
    np.savez(path, header=text, **columns)
    optional = values is None and column in ("latency_iqr", "repeats")
    assert survives(use, path, path.read_bytes()) == optional
