"""Files may come from strangers: whatever is in one, it is read or refused, by one line, soon.

Damaged copies of good files at random, and files made to hang or to fill the memory.
"""

import gzip
import json
import os
import pickle
import sqlite3
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from apq_moo.benchmarks.compare.plan import BenchPlan
from apq_moo.benchmarks.compare.store import Store
from apq_moo.cli import main
from apq_moo.data.fashion import read_idx
from apq_moo.data.folders import load_image_folder
from apq_moo.data.samples import load_samples
from apq_moo.data.tables import load_table
from apq_moo.errors import UserError, one_line
from apq_moo.files import parse_json, read_csv, read_json, read_toml
from apq_moo.hardware import load_accelerator, read_table
from apq_moo.hardware.quantities import QUANTITIES
from apq_moo.npz import header_of, read_arrays
from apq_moo.predictors.published import load_published
from apq_moo.space import load_space
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder
from apq_moo.study.record import ARCHIVE, CHECKPOINT, EVALUATIONS, Recorder, finished, row_type

FUZZING = Path(__file__).with_name("fuzzing.py")
FORMATS = 49
SPACE = load_space("digits")
ROW = row_type(SPACE, 2)


# -- at random -------------------------------------------------------------------------------------


def fuzzed(cases, timeout):
    done = subprocess.run(  # noqa: S603
        [sys.executable, FUZZING, str(cases)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:], found[-1:])
    return found


def test_damaged_copies():
    found = fuzzed(CASES, 300)
    assert len(found) == FORMATS
    assert {f["format"]: f["wrong"] for f in found if f["wrong"]} == {}
    assert all(f["tried"] == CASES for f in found)
    # Most damage is noticed; a cache that cannot be read is made again.
    assert all(f["read"] < 0.7 * CASES for f in found if f["format"] != "compiled")
    assert sum(f["read"] > 0 for f in found) >= FORMATS - 3


CASES = 250


@pytest.mark.slow
def test_many_damaged_copies():
    found = fuzzed(10_000, 10_000)
    assert {f["format"]: f["wrong"] for f in found if f["wrong"]} == {}


# -- made to hang or to fill the memory ------------------------------------------------------------


def refused(read, *arguments, match=None):
    """The message of what is refused soon."""
    begun = time.perf_counter()
    with pytest.raises(UserError, match=match) as caught:
        read(*arguments)
    assert time.perf_counter() - begun < 10
    message = str(caught.value)
    assert len(message) <= 300
    assert message.isprintable()
    return message


def npy(shape, descr="<f8", body=b"\0" * 64):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (117 - len(text)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def write_zip(path, members, packing=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", packing, compresslevel=1) as archive:
        for name, content in members:
            archive.writestr(name, content)


def bomb(path, name, n_bytes):
    """A small file whose array is large."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as handle,
    ):
        handle.write(npy(f"({n_bytes},)", "|u1", b""))
        for _ in range(n_bytes // 2**24):
            handle.write(bytes(2**24))


ONE = {"a": ("f", 1)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no array", "damaged"),
        (npy("(1000000000000,)"), "should have other than 64 bytes"),
        (npy("(-1,)"), "should have other than 64 bytes"),
        (npy("(-8, -1)"), "has 2 axes"),
        (npy("(8,)", "|O"), "has 1 axes of |O"),
        (npy("(8,)", "[('a', '<f8')]"), "damaged"),
        (npy("(8,)", "<U2"), "has 1 axes of <U2"),
        (npy("(4, 2)"), "has 2 axes of <f8"),
        (npy("(8,)") + b"x", "should have other than 65 bytes"),
        (npy("(" * 40 + ")" * 40), "damaged"),
        (npy("(8L,)"), "damaged"),
    ],
    ids=str,
)
def test_arrays_are_checked_before_they_are_read(content, message, tmp_path):
    path = tmp_path / "x.npz"
    write_zip(path, [("a.npy", content)])
    assert message in refused(read_arrays, path, ONE)


def test_archives_that_are_odd(tmp_path):
    path, good = tmp_path / "x.npz", npy("(8,)")
    write_zip(path, [("a.npy", good), ("b.npy", b"not read")])
    assert list(read_arrays(path, ONE)) == ["a"]
    assert "damaged" in refused(read_arrays, path, ONE | {"b": ("f", 1)})
    assert "it lacks 'c'" in refused(read_arrays, path, {"c": ("f", 1)})
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_zip(path, [("a.npy", good), ("a.npy", good)])
    assert "a member occurs twice" in refused(read_arrays, path, ONE)
    write_zip(path, [("a.npy", good)], zipfile.ZIP_BZIP2)
    assert "packed by other means" in refused(read_arrays, path, ONE)
    write_zip(path, [(f"{i:0200}.npy", b"") for i in range(6000)])
    assert "too many members" in refused(read_arrays, path, ONE)
    data = bytearray(path.read_bytes() + b"trailing")
    path.write_bytes(data)
    assert "no zip archive" in refused(read_arrays, path, ONE)
    write_zip(path, [("a.npy", good)], zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"\n", 40) + 3] ^= 1  # of the numbers
    path.write_bytes(data)
    assert "Bad CRC-32" in refused(read_arrays, path, ONE)
    text = np.array(["ab"])
    text.view(np.uint32)[0] = 0x110000
    np.savez(path, a=text)
    assert "a text is malformed" in refused(read_arrays, path, {"a": ("U", 1)})


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("group", lambda path: load_samples(path, SPACE)),
        ("right", lambda path: load_table(path, SPACE)),
        ("feasible", lambda path: finished(path.parent)),
        ("latency", read_table),
    ],
)
def test_small_files_that_unpack_to_huge_arrays(name, read, tmp_path):
    path = tmp_path / ARCHIVE
    bomb(path, name, 2**28)
    assert path.stat().st_size < 2**22
    refused(read, path, match="damaged")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("header.npy", npy("(2,)", "|u1", b"{}"))
    kinds = {"header": ("u", 1), name: ("u", 1)}
    assert "unpacks to more than" in refused(read_arrays, path, kinds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 100_000, "maximum recursion depth"),
        (b"[" * 150 + b"]" * 150, "nested more than 100 levels"),
        (b'{"a":' * 150 + b"1" + b"}" * 150, "nested more than 100 levels"),
        (b"9" * 5000, "an integer has 5000 digits"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice"),
        (b'{"\\ud800\\n": 1, "\\ud800\\n": 2}', r"the key '\ud800\n' occurs twice"),
        (b"\xff\xfe\xff", "not valid JSON"),
    ],
    ids=str,
)
def test_json_that_is_odd(text, message, tmp_path):
    (tmp_path / "x.json").write_bytes(text)
    assert message in refused(read_json, tmp_path / "x.json")
    arrays = {"header": np.frombuffer(text, dtype=np.uint8)}
    assert message in refused(header_of, arrays, "x")


def test_texts_that_are_large(tmp_path):
    path = tmp_path / "x"
    with path.open("wb") as handle:
        handle.truncate(2**34)
    for read in (read_json, read_csv):
        assert "more than 16,777,216 bytes" in refused(read, path)
    for read in (read_toml, load_accelerator):
        assert "more than 262,144 bytes" in refused(read, path)
    path.write_bytes(b"a,b\n" + b",\n" * 200_000)
    assert "more than 100,000 lines" in refused(read_csv, path)
    keys = ", ".join(f'"{i}": 1' for i in range(100_000))
    assert "the key '99999' occurs twice" in refused(parse_json, f'{{{keys}, "99999": 1}}', "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a" + ".a" * 50_000 + " = 1", "more than 200 dots"),
        ("a" + ".a" * 150 + " = 1", "nested more than 100 levels"),
        ("a = " + "[" * 50_000, "maximum recursion depth"),
        ("a = 1" + "0" * 5000, "4300 digits"),
        ("a = 1\n" * 2, "overwrite"),
    ],
    ids=["dots", "deep", "open", "digits", "twice"],
)
def test_toml_that_is_odd(text, message, tmp_path):
    (tmp_path / "x.toml").write_text(text)
    assert message in refused(load_accelerator, tmp_path / "x.toml")


def test_tables_of_costs_that_vanish_or_overflow(tmp_path):
    key = "(96, 456, 14, 1, 1, 0, 1)-W4A4"
    for cost, must in [
        *((cost, "lie between 1e-30 and 1e+30") for cost in (1e-320, 1e300)),
        *((cost, "be positive") for cost in (0, -1)),
    ]:
        (tmp_path / "x.json").write_text(json.dumps({key: {"latency": cost}}))
        table = read_table(tmp_path / "x.json")
        assert table.problems() == [f"{key} has latency {cost:g}; costs must {must}"]


def test_limits_that_vanish_break_nothing():
    with np.errstate(all="raise"):
        over = QUANTITIES.get("latency").excess(np.array([0.0, 5.0]), 1e-320)
    np.testing.assert_array_equal(over, [-1e-320, 5.0])


# -- parquet, images, checkpoints, databases -------------------------------------------------------


def test_parquet_that_unpacks_to_more(tmp_path):
    path = tmp_path / "x.parquet"
    for columns, options, message in [
        ({"layer": ["x" * 3000] * 200_000}, {}, "a text is missing, or too long"),
        ({"layer": [None, "x"]}, {}, "a text is missing, or too long"),
        ({"layer": [["x"]]}, {}, "neither texts nor numbers"),
        ({"layer": [b"x"]}, {}, "neither texts nor numbers"),
        (
            {f"c{i}": np.zeros(2**18) for i in range(64)},
            {"use_dictionary": False},
            "unpacks to more",
        ),
        ({f"c{i}": [1.0] for i in range(65)}, {}, "too many columns"),
        ({"latency": np.zeros(2**18 + 1)}, {}, "has 262145 rows"),
    ]:
        pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
        assert path.stat().st_size < 2**23
        assert message in refused(read_table, path)


def test_images_that_unpack_to_more(tmp_path):
    for part in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / part).mkdir(parents=True)
        Image.new("L", (9, 9)).save(tmp_path / part / "0.png")
    path = tmp_path / "train/a/1.png"
    for size, message in [
        ((30_000, 3000), "it has 90,000,000 pixels, more than 89,478,485|exceeds limit"),
        ((1, 1_000_000), "it is too long for its width"),
    ]:
        Image.new("1", size).save(path)
        assert path.stat().st_size < 2**20
        refused(lambda: load_image_folder(tmp_path, size=32, channels=1), match=message)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    refused(lambda: load_image_folder(tmp_path, size=8), match="cannot identify image file")


def test_packed_bytes_that_unpack_to_more(tmp_path):
    path = tmp_path / "x.gz"
    with gzip.open(path, "wb", compresslevel=1) as handle:
        handle.write(b"\0\0\x08\x01\xff\xff\xff\xff")
        for _ in range(32):
            handle.write(bytes(2**24))
    refused(read_idx, path, match="truncated")


class Call:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


ODD_TENSORS = {
    "sparse": lambda: torch.ones(3).to_sparse(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "meta": lambda: torch.empty(10**6, 10**6, device="meta"),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
    "expanded": lambda: torch.ones(1).expand(10**9),
    "complex": lambda: torch.ones(3, dtype=torch.complex64),
    "bytes": lambda: bytearray(8),
}


@pytest.mark.parametrize("kind", ODD_TENSORS)
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_checkpoints_of_other_than_plain_tensors(kind, packed, tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": ODD_TENSORS[kind]()}, path, _use_new_zipfile_serialization=packed)
    refused(load_published, path, SPACE)


def test_checkpoints_that_claim_to_be_large(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(Call(bytearray, 10**11), protocol=2))
    refused(load_published, path, SPACE, match="more than tensors")
    torch.save({"a": torch.ones(3)}, path)
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    odd = [(name, data.replace(b"K\x03", b"M\xff\xff")) for name, data in members]
    assert odd != members
    write_zip(path, odd, zipfile.ZIP_STORED)
    refused(load_published, path, SPACE, match="damaged")


def test_databases_with_more_than_tables(tmp_path):
    store = Store.create(tmp_path / "b", BenchPlan(spaces=("tiny",), seeds=1), {})
    assert store.finished() == set()
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT x, x FROM c"
    for command in (
        f"CREATE VIEW v AS {endless}",
        f"DROP TABLE about; CREATE VIEW about AS {endless}",
    ):
        with sqlite3.connect(store.path) as connection:
            connection.executescript(command)
        refused(Store.open, tmp_path / "b", match="its tables are not those of this version")


def test_records_that_claim_to_be_long(tmp_path):
    np.random.default_rng(0)
    recorder = Recorder(ROW, tmp_path, "k", every_s=1e9)
    recorder.checkpoint(None)
    with np.load(tmp_path / CHECKPOINT) as bundle:
        arrays = dict(bundle)
    for rows, message in [(10**12, "its rounds are not those"), (-1, "damaged"), ("3", "damaged")]:
        text = json.dumps({"key": "k", "rows": rows, "state": None}).encode()
        np.savez(tmp_path / CHECKPOINT, **{**arrays, "header": np.frombuffer(text, dtype=np.uint8)})
        refused(Recorder, ROW, tmp_path, "k", match=message)
    text = json.dumps({"key": "k", "rows": 10**12, "state": None}).encode()
    arrays |= {"header": np.frombuffer(text, dtype=np.uint8), "seconds": np.ones(1)}
    np.savez(tmp_path / CHECKPOINT, **{**arrays, "evaluations": np.array([10**12])})
    refused(Recorder, ROW, tmp_path, "k", match="truncated")
    with (tmp_path / EVALUATIONS).open("wb") as handle:
        handle.truncate(2**40)
    refused(Recorder, ROW, tmp_path, "k", match=r"truncated|has more than 268,435,456 bytes")


# -- bounds and messages ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("budget", 10**9, "budget=1000000000: at most 100,000,000 is allowed"),
        ("sweep", 1001, "sweep=1001: at most 1,000 is allowed"),
        ("pop_size", 10**6, "pop_size=1000000: at most 100,000 is allowed"),
        ("seed", 2**32, "seed=4294967296: at most 4,294,967,295 is allowed"),
        ("seed", 10**5000, "seed=<int too long to show>: at most"),
    ],
    ids=["budget", "sweep", "pop_size", "seed", "long seed"],
)
def test_searches_have_bounds(name, value, message):
    assert message in refused(lambda: RunConfig(**{name: value}))


def test_plans_have_bounds():
    message = refused(lambda: BenchPlan(seeds=40_000))
    assert message.startswith("the plan has 120000 searches, more than 100,000")
    budgets = tuple(range(1, 50_000))
    refused(lambda: BenchPlan(budgets=(*budgets, 7)), match="budgets names 7 twice")


def test_messages_are_one_short_line():
    assert str(UserError("a\nb\t\x1b[31m\ud800 c")) == r"a b \x1b[31m\ud800 c"
    long = str(UserError("begin " + "x" * 10**6 + " mend"))
    assert len(long) == 300
    assert long.startswith("begin x")
    assert long.endswith("x mend")
    assert one_line("a  b") == "a  b"
    error = pickle.loads(pickle.dumps(UserError("a\nb")))  # noqa: S301
    assert str(error) == "a b"


@pytest.mark.parametrize(
    ("command", "name", "content"),
    [
        (("device", "show"), "x.toml", b"a" + b".a" * 50_000 + b" = 1"),
        (("lut", "show"), "x.npz", b"PK"),
        (("report",), "b/results.sqlite", b"SQLite format 3\0" + b"\xff" * 5000),
        (("pick",), "b/run.json", b"[" * 100_000),
        (("run", "--resume"), "b/run.json", b'{"format": "apq-moo run 2"}'),
        (("run", "--warm-start"), "x.json", b'[{"\n' + b"x" * 5000),
        (("bench", "--plan"), "x.toml", b"seeds = 0x" + b"f" * 9000),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_commands_say_so_in_one_line(command, name, content, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(content)
    given = name.split("/")[0]
    with pytest.raises(SystemExit) as stop:
        main([*command, given])
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert len(text.splitlines()) == 1
    assert len(text) <= 310


def test_a_run_says_what_is_wrong_with_its_record(tmp_path):
    (tmp_path / "run.json").write_text(
        json.dumps({"format": "apq-moo run 2", "status": "unfinished", "versions": [1]})
    )
    refused(RunFolder.open, tmp_path, match=r"versions must be a table, not \[1\]")


def test_subnets_of_a_front_are_objects(tmp_path):
    run = RunFolder.create(tmp_path / "run", RunConfig(), verify=None, overwrite=False)
    run.write_front({"acc": [90.0], "latency": [0.1], "subnet": ['"text"']})
    assert "a subnet must be an object, not 'text'" in refused(run.read_front)
