"""The parser of tables against malformed files: each either loads or is refused in one line.

Damaged copies at random are tried in ``tests/test_malformed_files.py``.
"""

import sys
import time
import zipfile

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apq_moo.errors import UserError
from apq_moo.hardware import (
    LayerTable,
    TableDevice,
    find_device,
    read_table,
    write_table,
)
from apq_moo.hardware.layer_table import Correction

LONGEST_S = 10
"""Far more than any file takes, on a busy machine too."""


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
    assert len(message) <= 300, content
    return not message


def use(path):
    """Load a table and look something up, as a search does."""
    table = read_table(path)
    device = TableDevice(table, str(path), missing="infeasible")
    assert all(len(pair) == 2 for pair in table.bit_pairs)
    assert find_device(path).units == table.units
    return device


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


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_small_files_that_unpack_to_huge_ones(suffix, table, tmp_path):
    """Refused before they are unpacked."""
    path = tmp_path / f"x.{suffix}"
    if suffix == "npz":
        write_table(path, table)
        head = b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }"
        with (
            zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("more.npy", "w", force_zip64=True) as handle,
        ):
            handle.write((head % 2**28).ljust(127) + b"\n")
            for _ in range(16):
                handle.write(bytes(2**24))
    else:
        n = 2**20 + 1
        column = {"latency": pyarrow.array(np.ones(n)), "layer": pyarrow.nulls(n)}
        pyarrow.parquet.write_table(pyarrow.table(column), path)
    assert path.stat().st_size < 2**22
    with pytest.raises(UserError, match=r"unpacks to more than 134,217,728|has 1048577 rows"):
        read_table(path)


def thrift(number):
    """An integer as in Parquet's descriptions."""
    number, found = 2 * number, b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bound on Linux only")
@pytest.mark.parametrize("parts", [120, 56])
def test_a_page_that_unpacks_to_more_than_its_description_says(parts, tmp_path):
    """Also where there is room for it that pyarrow's own allocator keeps in store."""
    import resource

    path, n_bytes = tmp_path / "x.parquet", parts * 2**24
    assert pyarrow.nulls(2**20, pyarrow.float64()).nbytes >= 2**23
    fields = pyarrow.schema([pyarrow.field("latency", pyarrow.float64(), nullable=False)])
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
    table = pyarrow.table({"latency": np.zeros(4)}, schema=fields)
    pyarrow.parquet.write_table(table, path, store_schema=False, **options)
    said = pyarrow.parquet.read_metadata(path).row_group(0).column(0)
    data = path.read_bytes()
    packed = parts * pyarrow.Codec("zstd").compress(bytes(2**24)).to_pybytes()
    head = b"\x15\x00\x15" + thrift(n_bytes) + b"\x15" + thrift(len(packed))
    page = head + b"\x2c\x15\x08\x15\x00\x15\x06\x15\x06\x00\x00" + packed
    about = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    size = b"\x16" + thrift(said.total_uncompressed_size) + b"\x16"
    old = size + thrift(said.total_compressed_size)
    assert about.count(old) == 1
    about = about.replace(old, size + thrift(len(page)))
    path.write_bytes(b"PAR1" + page + about + len(about).to_bytes(4, "little") + b"PAR1")
    assert path.stat().st_size < 2**17
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(UserError, match=f"malloc of size {n_bytes} failed"):
        read_table(path)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


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
