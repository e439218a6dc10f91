"""Damaged copies of every file that the package reads, and what reading them comes to.

Run as a script, ``python fuzzing.py CASES [FORMAT ...]``, in a process of its own, since native
parsers may crash and memory is that of the process. One line of JSON a format goes to stdout. A
case is a function of its format and number alone.
"""

import csv
import faulthandler
import gzip
import io
import json
import os
import random
import resource
import sqlite3
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from contextlib import closing, redirect_stdout, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import safetensors.numpy

from apq_moo.benchmarks.compare.analysis import Analysis
from apq_moo.benchmarks.compare.plan import BenchPlan
from apq_moo.benchmarks.compare.store import NAME, Outcome, Store
from apq_moo.benchmarks.compare.tables import indicators_of, latex_table, markdown_table
from apq_moo.benchmarks.report import page, sections
from apq_moo.benchmarks.systems import comparison as comparing
from apq_moo.benchmarks.systems import finishing
from apq_moo.benchmarks.systems import measuring as keeping
from apq_moo.benchmarks.systems.ledger import Rates
from apq_moo.benchmarks.systems.settings import Limit, Settings
from apq_moo.cli.hardware_commands import _describe
from apq_moo.data import load_images
from apq_moo.data.assets import find_assets
from apq_moo.data.evaluations import Evaluations
from apq_moo.data.fashion import read_idx
from apq_moo.data.folders import load_image_folder
from apq_moo.data.samples import SampleTable, load_samples
from apq_moo.data.tables import AccuracyTable, load_table
from apq_moo.deploy import cut_out, execute, load_network, save_network
from apq_moo.deploy.c import write_c
from apq_moo.deploy.c_reading import read_c
from apq_moo.deploy.onnx_files import load_onnx, save_onnx
from apq_moo.deploy.qonnx_files import load_qonnx, save_qonnx
from apq_moo.deploy.torch_program import read_program, save_torch
from apq_moo.deploy.tuning import Tuner, TuningConfig
from apq_moo.errors import UserError
from apq_moo.files import read_json
from apq_moo.hardware import (
    LayerTable,
    TableDevice,
    find_device,
    load_accelerator,
    read_table,
    write_table,
)
from apq_moo.hardware.compiled import _read as read_compiled
from apq_moo.hardware.measuring.campaign import Campaign, CampaignFile
from apq_moo.hardware.measuring.timing import Rule
from apq_moo.pipeline.chain import _EARLIER, _begin
from apq_moo.predictors import PREDICTORS, Recipe, create_predictor, load_predictor, published
from apq_moo.predictors.storage import read_state, write_state
from apq_moo.predictors.training import initial_weights
from apq_moo.problems.evaluated import Evaluated
from apq_moo.results.report import front_table
from apq_moo.space import load_space
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder
from apq_moo.study.record import ARCHIVE, CHECKPOINT, Recorder, evaluated, finished, row_type
from apq_moo.study.warm_start import read_networks
from apq_moo.supernet.checkpoint import load_supernet, save_supernet
from apq_moo.supernet.sampling import SampleConfig
from apq_moo.supernet.training import TrainConfig, Trainer
from apq_moo.tensors import checksum

LONGEST_S = 10.0
LONGEST_MESSAGE = 300
MOST_BYTES = 2**30

SPACE = load_space("digits")
ROWS = SPACE.sample(3, np.random.default_rng(0))
ASSETS = find_assets(SPACE)
ODD = [
    *(None, True, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e-320, 1e308, float("nan")),
    *(float("inf"), "", "x", "x" * 5000, "\ud800", "\n\x1b[31m", [], {}, [[]], {"a": {}}, [1, "a"]),
    *("acc", "../../etc/passwd", {"kind": 1}, {"array": "X"}, {"dict": []}, [None] * 50),
]
ODD_REALS = [float("nan"), float("inf"), -float("inf"), 1e308, -3e38, 1e-320, 1e7, -0.0]
ODD_INTEGERS = [-1, -2, 0, 1, 2, 7, 100, 10**6, 2**31 - 1, -(2**31)]
TOKENS = [
    *(b"nan", b"inf", b"-1", b"0", b"1e999", b"1e-320", b"9" * 5000, b"true", b"null", b'""'),
    *(b'"x"', b"[]", b"{}", b"[" * 3000, b'{"a":' * 3000, b'"\\ud800"', b"\0", b"\xff\xfe"),
    *(b"\xef\xbb\xbf", b"\n", b"=", b",", b":", b"]", b"}", b"a." * 150 + b"b = 1", b"'''", b"#"),
    *(b"0x" + b"f" * 400, b"1979-05-27", b"[[stages]]", b'"', b"\r", "é𝄞".encode(), b"\x1b[31m"),
]


# -- damage ----------------------------------------------------------------------------------------


def bytes_of(rng, data):
    """Bytes changed, cut off, left out, repeated, or replaced by odd tokens."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        length = rng.choice([1, 2, 4, 8, 30])
        match rng.randrange(6):
            case 0:
                data[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                data[place : place + length] = rng.choice([b"\xff", b"\0", b"\x7f"]) * length
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = data[place : place + length]
            case 4:
                data[place : place + length] = rng.choice(TOKENS)
            case 5 if rng.random() < 0.3:
                del data[place:]
    return bytes(data)


def value_of(rng, value):
    """A JSON value with a part of it replaced, left out, renamed or doubled."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(ODD)
    if isinstance(value, list):
        value = list(value)
        i = rng.randrange(len(value))
        match rng.randrange(5):
            case 0:
                del value[i]
            case 1:
                value.append(value[i])
            case _:
                value[i] = value_of(rng, value[i])
        return value
    value = dict(value)
    key = rng.choice(list(value))
    match rng.randrange(8):
        case 0:
            del value[key]
        case 1:
            value[rng.choice(["x", "", "\ud800", key + " "])] = value.pop(key)
        case 2:
            value[key], other = value[rng.choice(list(value))], value[key]
            value[rng.choice(list(value))] = other
        case _:
            value[key] = value_of(rng, value[key])
    return value


def text_of(rng, text):
    """A JSON text, its values or its letters changed."""
    if rng.random() < 0.5:
        return bytes_of(rng, text)
    value = json.loads(text)
    for _ in range(rng.randint(1, 3)):
        value = value_of(rng, value)
    return json.dumps(value).encode()


def lines_of(rng, text):
    """A text of lines, some swapped, repeated, or with another value."""
    lines = text.split(b"\n")
    for _ in range(rng.randint(1, 3)):
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(4):
            case 0:
                lines[i], lines[j] = lines[j], lines[i]
            case 1:
                lines.insert(i, lines[j])
            case 2:
                head, mark, _ = lines[i].partition(b"=")
                lines[i] = head + mark + rng.choice(TOKENS)
            case 3:
                return bytes_of(rng, b"\n".join(lines))
    return b"\n".join(lines)


def array_of(rng, array):
    """An array of another type or shape, or with odd values."""
    match rng.randrange(6):
        case 0 if array.dtype.kind not in "US":
            return array.astype(
                rng.choice(["f2", "f4", "f8", "i1", "u1", "i8", "?", "c8", "U3", "S2"])
            )
        case 1:
            return array[: rng.randrange(len(array) + 1)] if array.ndim else array[None]
        case 2:
            return array[None]
        case 3:
            return np.concatenate([array, array]) if array.ndim else np.zeros((0, 7))
        case 4:
            return array.T[::-1] if array.ndim else array
        case _:
            array = array.copy()
            raw = array.reshape(-1).view(np.uint8)
            for _ in range(3 if len(raw) else 0):
                raw[rng.randrange(len(raw))] = rng.choice([0, 255, 127, 128, 1])
            return array


def npy(array, rng):
    """An array's bytes, now and then under a header that lies."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
    data = buffer.getvalue()
    if rng.random() < 0.2:
        descr = rng.choice(
            ["<f8", "|O", "<U0", "<U100000000", "|V0", "<M8[s]", "[('a','<f8')]", "x"]
        )
        shape = rng.choice(["()", "(1,)", "(10**12,)", "(1000000000000,)", "(-1,)", "(-8,-8)"])
        shape = rng.choice([shape, "(" * 50 + ")" * 50, "(0, 1000000000000)", "(1,)*99", "(True,)"])
        text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
        data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data[128:]
    return data


def npz_of(rng, data):
    """Arrays changed, swapped, left out, doubled or added, or a header's values or lies."""
    if rng.random() < 0.25:
        return bytes_of(rng, data)
    with np.load(io.BytesIO(data)) as bundle:
        arrays = dict(bundle)
    names = list(arrays)
    known = json.loads(arrays["header"].tobytes()) if "header" in arrays else None
    for _ in range(rng.randint(1, 2)):
        a, b = rng.choice(names), rng.choice(names)
        match rng.randrange(5):
            case 0:
                arrays[a], arrays[b] = arrays[b], arrays[a]
            case 1 if known is not None:
                header = value_of(rng, known)
                text = rng.choice([json.dumps(header).encode(), b"[" * 100_000, b"\xff"])
                arrays["header"] = np.frombuffer(text, dtype=np.uint8)
                break
            case 2:
                arrays["other" if rng.random() < 0.5 else a] = array_of(rng, arrays[b])
            case _:
                arrays[a] = array_of(rng, arrays[a])
    if rng.random() < 0.1:
        del arrays[rng.choice(list(arrays))]
    out = io.BytesIO()
    packing = rng.choice(
        [zipfile.ZIP_STORED] * 6 + [zipfile.ZIP_DEFLATED] * 3 + [zipfile.ZIP_BZIP2]
    )
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", packing, compresslevel=1) as archive:
        warnings.simplefilter("ignore")
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", npy(array, rng))
            if rng.random() < 0.02:
                archive.writestr(f"{name}.npy", b"no array")
    return out.getvalue()


def safetensors_of(rng, data):
    """The header's values changed, or bytes anywhere."""
    (length,) = struct.unpack("<Q", data[:8])
    if rng.random() < 0.3:
        return bytes_of(rng, data[: 8 + length]) + data[8 + length :]
    header = json.loads(data[8 : 8 + length])
    if rng.random() < 0.4:
        inner = json.loads(header["__metadata__"]["header"])
        text = rng.choice([json.dumps(value_of(rng, inner)), "[" * 100_000, "1"])
        header["__metadata__"]["header"] = text
    else:
        header = value_of(rng, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def signed_of(rng, data):
    """The header or arrays changed under a checksum that is right again; or without one."""
    if rng.random() < 0.15:
        return safetensors_of(rng, data)
    arrays = safetensors.numpy.load(data)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["header"])
    del header["sha256"]
    for _ in range(rng.randint(1, 2)):
        a, b = rng.choice(list(arrays)), rng.choice(list(arrays))
        match rng.randrange(10):
            case 0:
                arrays[a], arrays[b] = arrays[b], arrays[a]
            case 1:
                arrays["other" if rng.random() < 0.5 else a] = array_of(rng, arrays[b])
            case 2:
                del arrays[a]
                break
            case 3 if "predictor" in header:
                header["predictor"] = rng.choice(list(PREDICTORS))
            case 4 | 5:
                key = rng.choice(list(header))
                header[key] = value_of(rng, header[key])
            case 6 if arrays[a].dtype == np.uint8:  # a model of XGBoost's own format
                arrays[a] = np.frombuffer(bytes_of(rng, arrays[a].tobytes()), np.uint8)
            case 6:
                arrays[a] = array_of(rng, arrays[a])
            case _ if arrays[a].size:
                values = arrays[a].ravel().copy()
                odd = ODD_REALS if values.dtype.kind == "f" else ODD_INTEGERS
                with np.errstate(all="ignore"):
                    place = rng.randrange(len(values))
                    values[place] = np.array(rng.choice(odd)).astype(values.dtype)
                arrays[a] = values.reshape(arrays[a].shape)
    try:
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        signed = {**header, "sha256": checksum(header, arrays)}
        return safetensors.numpy.save(arrays, metadata={"header": json.dumps(signed)})
    except (KeyError, safetensors.SafetensorError):  # a type that such files have not
        return bytes_of(rng, data)


def zip_of(rng, data):
    """Members of a zip archive changed; or its bytes."""
    if rng.random() < 0.3:
        return bytes_of(rng, data[-3000:]) if rng.random() < 0.1 else bytes_of(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice([name for name in members if name.endswith("data.pkl")] * 6 + list(members))
    members[name] = bytes_of(rng, members[name]) if rng.random() < 0.9 else b""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def sqlite_of(rng, data):
    """Rows given other values; or bytes, mostly of the first pages, changed."""
    if rng.random() < 0.6:
        end = rng.choice([120, 4096, len(data)])
        return bytes_of(rng, data[:end]) + data[end:]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(data)
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
        table = rng.choice(tables)
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        column = rng.choice(columns)
        query = f"SELECT {column} FROM {table} LIMIT 1"  # noqa: S608
        (old,) = connection.execute(query).fetchone()
        new = rng.choice([1, 1.5, "x", b"\xff\xfe", "[" * 5000, "", b""])
        if isinstance(old, str) and old[:1] in "{[" and rng.random() < 0.8:
            new = text_of(rng, old.encode()).decode("utf-8", "ignore")
        if isinstance(old, bytes) and old[:2] == b"PK" and rng.random() < 0.8:
            new = npz_of(rng, old)
        if rng.random() < 0.1:
            connection.execute(
                "CREATE VIEW v AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) "
                "SELECT x FROM c"
            )
        try:
            connection.execute(f"UPDATE {table} SET {column} = ?", (new,))  # noqa: S608
        except sqlite3.Error:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608
        connection.commit()
        return connection.serialize()


def csv_of(rng, data):
    """Cells changed, lines shortened; or bytes."""
    if rng.random() < 0.3:
        return bytes_of(rng, data)
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    row = rng.choice(rows)
    i = rng.randrange(len(row))
    match rng.randrange(4):
        case 0:
            del row[i]
        case 1:
            row[i] = rng.choice(["", "nan", "1e999", "x" * 200_000, "[" * 20_000, "9" * 5000, "\0"])
        case 2 if row[i][:1] == "{":
            row[i] = text_of(rng, row[i].encode()).decode("utf-8", "ignore")
        case _:
            row.insert(i, row[i])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def png_of(rng, data):
    """Chunks changed, under checksums that are right again; or bytes."""
    if rng.random() < 0.2:
        return bytes_of(rng, data)
    parts, place = [], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        parts.append(data[place + 4 : place + 8 + length])
        place += 12 + length
    i = rng.randrange(len(parts))
    parts[i] = rng.choice([parts[i][:4], rng.choice(parts)[:4]]) + bytes_of(rng, parts[i][4:])
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return data[:8] + b"".join(chunks)


def gzip_of(rng, data):
    """What is packed, or the packing, changed."""
    if rng.random() < 0.5:
        return bytes_of(rng, data)
    return gzip.compress(bytes_of(rng, gzip.decompress(data)), mtime=0)


# -- good files ------------------------------------------------------------------------------------

CONFIG = RunConfig(space="digits", predictor="additive", budget=40, pop_size=10)


def run_folder(folder):
    rng = np.random.default_rng(0)
    subnets = [json.dumps(subnet.to_dict()) for subnet in SPACE.decode(SPACE.sample(3, rng))]
    run = RunFolder.create(folder / "run", CONFIG, verify=None, overwrite=False)
    run.store(
        status="finished", evaluations=40, seconds={"load": 1.0, "search": 2.0},
        versions={"a": "1"},
        gap={"optimum": 3, "worst": 1.0, "mean": 0.5, "hypervolume_ratio": 0.9},
    )  # fmt: skip
    run.write_front(
        {
            "acc": [90.0, 91.0, 92.0],
            "latency": [0.1, 0.2, 0.3],
            "acc_test": [None, 1.0, None],
            "subnet": subnets,
        }
    )
    return run.path


def show_run(path):
    """What a finished run prints."""
    run = RunFolder.open(path.parent)
    columns = run.read_front()
    front_table(columns, run.config.objectives, "")
    sum(run.record.get("seconds", {}).values())


def archive(folder, *, whole):
    rng = np.random.default_rng(0)
    recorder = Recorder(row_type(SPACE, 2), folder, "k", every_s=1e9)
    for n in (5, 7):
        X = SPACE.sample(n, rng).astype(SPACE.gene_type)
        recorder.add(Evaluated(X, rng.random((n, 2)), rng.random(n) < 0.5))
    if whole:
        recorder.finish()
        return folder / ARCHIVE
    recorder.checkpoint({"a": [1, None], "b": {"c": np.ones((2, 2)), "d": np.uint8(3)}})
    return folder / CHECKPOINT


def samples(folder):
    found = load_samples(ASSETS.folder / "samples.npz", SPACE)
    rows = slice(0, 2000, 100)
    SampleTable(found.X[rows], found.group[rows], found.acc[rows], found.provenance).save(
        folder / "s.npz"
    )
    return folder / "s.npz"


def table(folder):
    X = SPACE.sample(20, np.random.default_rng(0))
    right = np.arange(40, dtype=np.int32).reshape(20, 2) - 1
    AccuracyTable(X, right, (50, 60), {"digest": SPACE.digest}).save(folder / "t.npz")
    return folder / "t.npz"


def campaign():
    found = Campaign([lambda: None] * 3, Rule(), 0, 2)  # type: ignore[arg-type, return-value]
    found.visits = [[np.array([1.0, 2.0])], [np.array([1.0])] * 2, []]
    return found


def campaign_file(folder):
    CampaignFile(folder / "c.npz", {"a": 1}).save(campaign())
    return folder / "c.npz"


def read_campaign(path):
    found = campaign()
    CampaignFile(path, {"a": 1}).load(found)
    assert len(found.visits) == 3


def layer_table(folder, suffix):
    table = LayerTable(
        names=("(96, 456, 14, 1, 1, 0, 1)-W4A4", "(8, 8, 14, 3, 2, 1, 8)-W8A6", "head", "tail"),
        components=("block", "block", "head", "tail"),
        units={"latency": "ms"},
        values={"latency": np.array([1.0, np.inf, 3.0, 1.0])},
        spread={"latency": np.array([0.1, 0.2, 0.3, 0.1])},
        constant={"latency": 0.5},
        bits=((4, 4), (8, 6)),
        provenance={"measured": {"threads": 1}},
    )
    write_table(folder / f"t.{suffix}", table)
    return folder / f"t.{suffix}"


def show_device(path):
    """As ``device show`` does."""
    table = read_table(path)
    TableDevice(table, str(path), missing="infeasible")
    assert find_device(path).units == table.units
    _describe(table, str(path))


def compiled(folder):
    np.savez(folder / "c.npz", latency=np.ones(SPACE.layout.length + 1))
    return folder / "c.npz"


def copied(folder, source, name):
    (folder / name).write_bytes(Path(source).read_bytes())
    return folder / name


def preset(folder):
    import apq_moo.space

    return copied(folder, Path(apq_moo.space.__file__).parent / "presets/digits.toml", "s.toml")


def machine(folder):
    import apq_moo.hardware

    return copied(
        folder, Path(apq_moo.hardware.__file__).parent / "machines/bitfusion.toml", "m.toml"
    )


def plan(folder):
    text = (
        'spaces = ["digits", "tiny"]\nalgos = ["apq-ga/8", "nsga2"]\nobjectives = ["acc,latency"]\n'
    )
    (folder / "p.toml").write_text(
        f"{text}seeds = 3\nbudgets = [100, 200]\npop_size = 20\n[limits]\nlatency = 0.5\n"
    )
    return folder / "p.toml"


def store(folder):
    given = BenchPlan(
        spaces=("digits",), algos=("nsga2",), seeds=2, budgets=(40,), predictors=("additive",)
    )
    about = {"versions": {"a": "1"}, "processor": "x", "data": {"digits": {"a": "b"}}}
    metered = {"energy_kwh": 0.1, "co2e_kg": 0.2, "cpu": "x", "country": "DEU"}
    about["cost"] = [{"seconds": 1.0, "jobs": 1}, {"seconds": 1.0, "jobs": 1, **metered}]
    found = Store.create(folder / "b", given, about)
    rng = np.random.default_rng(0)
    for cell in given.cells():
        X = SPACE.sample(4, rng).astype(SPACE.gene_type)
        F, curve = rng.random((4, 2)), np.array([0.1, 0.2])
        outcome = Outcome(
            cell, "ok", "", 40, 0, {"load": 1.0, "search": 1.0}, X, F, F, np.array([20, 40]),
            curve, curve,
        )  # fmt: skip
        found.put(outcome)
    return found.path


def read_store(path):
    found = Store.open(path.parent)
    found.finished()
    for outcome in found.outcomes():
        assert outcome.front.shape[1:] in {(2,), (0,)} or not len(outcome.front)
        SPACE.decode(outcome.genotypes.astype(np.int64)) if len(outcome.front) else None
    assert len(found.plan.cells()) < 10**6
    report(path.parent)


def report(folder):
    """All that a report says of a benchmark, but for the page around it."""
    analysis = Analysis.read(folder)
    page._head(analysis), sections.failures(analysis), sections.ranks(analysis)
    sections.costs(analysis), sections.reproducing(analysis)
    for number, problem in enumerate(analysis.problems):
        page._problem(problem, number)
        for write in (markdown_table, latex_table):
            write(problem, indicators_of(problem))


def evaluations(folder):
    archive = Evaluations(SPACE, "e", "d", folder / "e.sqlite")
    archive._put([(SPACE.smallest().astype("<u2").tobytes(), "v", 1.0)])
    return folder / "e.sqlite"


def read_evaluations(path):
    values = Evaluations(SPACE, "e", "d", path).known(SPACE.smallest()[None], ["v"])
    assert values.shape == (1, 1)


def supernet(folder):
    found, header = load_supernet(ASSETS.folder / "supernet.safetensors", SPACE)
    found.ranges.high += 1
    save_supernet(folder / "s.safetensors", found, **header)
    return folder / "s.safetensors"


def network(folder):
    found, _ = load_supernet(ASSETS.folder / "supernet.safetensors", SPACE)
    (subnet,) = SPACE.decode(SPACE.smallest()[None])
    save_network(folder / "n.safetensors", cut_out(found, subnet, load_images("digits")))
    return folder / "n.safetensors"


def onnx_network(folder):
    save_onnx(folder / "n.onnx", load_network(network(folder)), "fused")
    return folder / "n.onnx"


def qonnx_network(folder):
    save_qonnx(folder / "n.qonnx.onnx", load_network(network(folder)))
    return folder / "n.qonnx.onnx"


def c_network(folder):
    write_c(load_network(network(folder)), folder / "n.c")
    return folder / "n.c"


def torch_network(folder):
    save_torch(folder / "n.pt2", load_network(network(folder)))
    return folder / "n.pt2"


def run_network(path):
    found = load_network(path)
    assert np.isfinite(execute(found, np.ones((1, *found.image_shape), np.float32))).all()
    assert found.subnet.blocks


def training(folder):
    path = folder / "s.training"
    one_step()
    trainer().save(path)
    return path


def one_step():
    def stop(_progress):
        raise StopIteration

    with suppress(StopIteration):
        trainer().run(callback=stop)


@cache
def trainer():
    return Trainer(SPACE, load_images("digits"), TrainConfig(steps=9, warmup_steps=0, batch_size=8))


def go_on(path):
    trainer().load(path)
    one_step()


def finetuning(folder):
    path = folder / "s.training"
    tune_one_step()
    tuner().save(path)
    return path


def tune_one_step():
    def stop(_step, _steps):
        raise StopIteration

    with suppress(StopIteration):
        tuner().run(callback=stop)


@cache
def tuner():
    supernet = load_supernet(ASSETS.folder / "supernet.safetensors", SPACE)[0]
    (subnet,) = SPACE.decode(SPACE.smallest())
    return Tuner(supernet, subnet, load_images("digits"), TuningConfig(steps=9, batch_size=8))


def go_on_tuning(path):
    tuner().load(path)
    tune_one_step()


RECIPE = Recipe(batch=16, lr=1e-3, bits_lr=1e-3, epochs=1, min_steps=2)


def predictor(folder, name):
    """A small one; ``ubjson`` as files of ``xgboost-stacked`` were before."""
    path = folder / "p.safetensors"
    table = load_samples(ASSETS.folder / "samples.npz", SPACE)
    fp, mp = ([part[::40] for part in table.rows(group)] for group in ("fp", "mp"))
    if name == "mlp-stacked":
        found = create_predictor(f"{name}:features=engineered", SPACE)
        found.set_params(pretraining=RECIPE, training=RECIPE).fit(*mp, X_fp=fp[0], y_fp=fp[1])
    elif name.startswith("mlp"):
        found = create_predictor(name, SPACE)
        weights = initial_weights(SPACE, np.random.default_rng(0), zero_bits=False)
        found.set_network(weights, center=70.0, scale=5.0)
    elif name == "additive":
        found = create_predictor(name, SPACE).fit(*mp)
    elif name == "ensemble":
        members = "2*gp-scratch/steps=2+xgboost-stacked/rounds=9/features=engineered+additive"
        found = create_predictor(f"ensemble:members={members}", SPACE)
        found.fit(*mp, X_fp=fp[0], y_fp=fp[1])
    else:
        kind = PREDICTORS.get("xgboost-stacked" if name == "ubjson" else name)
        size = {"gbdt": "max_iter", "gp-scratch": "steps"}.get(name.split("-stacked")[0], "rounds")
        found = kind(SPACE, **{size: 12}).fit(*mp, X_fp=fp[0], y_fp=fp[1])
    found.save(path)
    if name == "ubjson":
        import xgboost

        _, header = read_state(path, SPACE)
        models = {}
        for part, n in (("fp", SPACE.n_var), ("mp", SPACE.n_var + 1)):
            rows = np.random.default_rng(0).random((50, n))
            given = {"max_depth": 2, "nthread": 1, "base_score": 70.0}
            model = xgboost.train(given, xgboost.DMatrix(rows, rows[:, 0]), num_boost_round=4)
            models[part] = np.frombuffer(bytes(model.save_raw("ubj")), np.uint8)
        write_state(path, SPACE, models, header)
    return path


def predict(path):
    found = load_predictor(path, SPACE)
    assert np.isfinite(found.predict(ROWS)).all()
    if found.has_std:
        assert np.isfinite(found.predict(ROWS, return_std=True)).all()


def torch_checkpoint(folder, **options):
    import torch

    state = {f"layers.{i}.0.weight": torch.ones(3, 4) for i in range(3)}
    torch.save({"state_dict": state, "epoch": 3}, folder / "c.pt", **options)
    return folder / "c.pt"


def read_checkpoint(path):
    assert all(
        array.size < 1000 for array in published._arrays(published._checkpoint(path)).values()
    )


def assets(folder):
    return copied(folder, ASSETS.folder / "manifest.json", "manifest.json")


def read_assets(path):
    found = find_assets(SPACE, path.parent)
    assert isinstance(found.images, str)
    assert all(isinstance(text, str) for text in found.checksums().values())
    found.has("samples.npz")


def policy(folder):
    (folder / "p.json").write_text(json.dumps(SPACE.decode(SPACE.smallest()[None])[0].to_dict()))
    return folder / "p.json"


def start_from(path):
    assert read_networks(str(path), SPACE).shape[1] == SPACE.n_var


def audit(folder):
    row = {"label": "a", "problem": "p", "predicted_hv": 1.0, "true_hv_validation": 1.0}
    row |= {"true_hv_test": 1.0, "kendall_tau": None, "overestimate_points": 0.1, "networks": 3}
    found = {"rows": [row], "networks": 3, "seconds": 2.0, "rule": "some"}
    (folder / "audit.json").write_text(json.dumps(found))
    return folder / "audit.json"


def comparison(folder):
    given = {"space": "tiny", "systems": ["random", "spos:top=5"], "budgets": [40], "seeds": 2}
    given |= {"targets": [{"quantity": "latency", "value": 0.1}], "predictor": "table"}
    found = {"format": comparing.FORMAT, "settings": given}
    found["refused"] = {"latency-0.1-40": {"spos:top=5": "it cannot"}}
    (folder / comparing.FILE).write_text(json.dumps(found))
    return folder / comparing.FILE


def read_comparison(path):
    """Up to what is carried out."""
    known = comparing.Comparison.open(path.parent)
    for case in known.settings.cases:
        assert case.title in known.refused
        known.settings.plan(case, known.settings.systems).cells()


def accuracies(folder):
    X = SPACE.sample(3, np.random.default_rng(0))
    keeping.write_arrays(folder / keeping.FILE, {"X": X, "accuracies": np.full((3, 2), 90.0)})
    return folder / keeping.FILE


def read_accuracies(path):
    settings = Settings((Limit("latency", 1.0),), ("random",), SPACE.name)
    for x, row in keeping.known_accuracies(path.parent, settings).items():
        assert len(np.frombuffer(x, dtype=np.int64)) == SPACE.n_var
        assert row.shape == (2,)


def fine_tuned(folder):
    X = SPACE.canonical(SPACE.sample(3, np.random.default_rng(0)))
    known = {(1, x.tobytes()): finishing.Finished(90.0, 89.0, 2.5) for x in X}
    finishing._write(folder / finishing.FILE, known)
    return folder / finishing.FILE


def read_fine_tuned(path):
    settings = Settings((Limit("latency", 1.0),), ("random",), SPACE.name, finish=1)
    for x, found in finishing.known_finished(path.parent, settings).items():
        assert len(np.frombuffer(x, dtype=np.int64)) == SPACE.n_var
        assert 0 <= found.acc_test <= 100


def rates(folder):
    (folder / "rates.toml").write_text("kw = 0.7\nkg_per_kwh = 0.3\nusd_low = 2\nusd_high = 4\n")
    return folder / "rates.toml"


def pipeline(folder):
    (folder / "pipeline.json").write_text(json.dumps({"settings": SETTINGS, "seconds": {"a": 1.0}}))
    return folder / "pipeline.json"


SETTINGS = {
    **_EARLIER,
    "train": asdict(TrainConfig()),
    "samples": asdict(SampleConfig()),
    "space": "digits",
}


def images(folder, suffix):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    for name in ("train/a/0.png", "train/a/1.png", "train/b/0.png", "val/a/0.png", "val/b/0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    Image.fromarray(pixels).save(folder / f"train/b/1.{suffix}")
    return folder / f"train/b/1.{suffix}"


def read_images(path):
    assert len(load_image_folder(path.parents[2], size=8).train) == 3


def idx(folder):
    pixels = np.arange(2 * 28 * 28, dtype=np.uint8)
    header = struct.pack(">HBB3I", 0, 8, 3, 2, 28, 28)
    (folder / "i.gz").write_bytes(gzip.compress(header + pixels.tobytes(), mtime=0))
    return folder / "i.gz"


FORMATS = {
    "samples.npz": (samples, npz_of, lambda path: load_samples(path, SPACE)),
    "table.npz": (table, npz_of, lambda path: load_table(path, SPACE)),
    "archive.npz": (
        lambda f: archive(f, whole=True),
        npz_of,
        lambda path: finished(path.parent, "k", row_type(SPACE, 2)),
    ),
    "checkpoint.npz": (
        lambda f: archive(f, whole=False),
        npz_of,
        lambda path: (
            Recorder(row_type(SPACE, 2), path.parent, "k"),
            evaluated(path.parent, row_type(SPACE, 2)),
        ),
    ),
    "campaign": (campaign_file, npz_of, read_campaign),
    "layers.npz": (lambda f: layer_table(f, "npz"), npz_of, show_device),
    "layers.json": (lambda f: layer_table(f, "json"), text_of, show_device),
    "layers.parquet": (lambda f: layer_table(f, "parquet"), bytes_of, show_device),
    "compiled": (compiled, npz_of, lambda path: read_compiled(path, SPACE, ["latency"])),
    "device.toml": (machine, lines_of, load_accelerator),
    "space.toml": (preset, lines_of, load_space),
    "plan.toml": (plan, lines_of, lambda path: BenchPlan.read(path).cells()),
    NAME: (store, sqlite_of, read_store),
    "evaluations.sqlite": (evaluations, sqlite_of, read_evaluations),
    "training": (training, safetensors_of, go_on),
    "finetuning": (finetuning, safetensors_of, go_on_tuning),
    "supernet": (supernet, safetensors_of, lambda path: load_supernet(path, SPACE)),
    "network": (network, signed_of, run_network),
    "network.onnx": (onnx_network, bytes_of, load_onnx),
    "network.qonnx.onnx": (qonnx_network, bytes_of, load_qonnx),
    "network.c": (c_network, bytes_of, read_c),
    "network.pt2": (torch_network, zip_of, read_program),
    **{
        f"predictor {name}": (lambda f, name=name: predictor(f, name), signed_of, predict)
        for name in (*PREDICTORS, "ubjson")
        if name != "mlp-scratch"  # whose files are those of mlp
    },
    "checkpoint.pt": (torch_checkpoint, zip_of, read_checkpoint),
    "legacy.pt": (
        lambda f: torch_checkpoint(f, _use_new_zipfile_serialization=False),
        bytes_of,
        read_checkpoint,
    ),
    "run.json": (lambda f: run_folder(f) / "run.json", text_of, show_run),
    "front.csv": (lambda f: run_folder(f) / "front.csv", csv_of, show_run),
    "warm start": (lambda f: run_folder(f) / "front.csv", csv_of, start_from),
    "policy.json": (policy, text_of, start_from),
    "manifest.json": (assets, text_of, read_assets),
    "comparison.json": (comparison, text_of, read_comparison),
    "accuracies.npz": (accuracies, npz_of, read_accuracies),
    "finished.npz": (fine_tuned, npz_of, read_fine_tuned),
    "rates.toml": (rates, lines_of, Rates.read),
    "audit.json": (audit, text_of, lambda path: sections.audit(read_json(path))),
    "pipeline.json": (pipeline, text_of, lambda path: _begin(path.parent, SETTINGS)),
    "image.png": (lambda f: images(f, "png"), png_of, read_images),
    "image.jpg": (lambda f: images(f, "jpg"), bytes_of, read_images),
    "idx.gz": (idx, gzip_of, read_idx),
}  # fmt: skip


# -- trying ----------------------------------------------------------------------------------------


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(name, cases):
    """Try damaged copies of one format's file.

    Returns:
        How many were tried and how many could be read, the longest time and the rise of the peak
        memory; and what went wrong, if anything.
    """
    make, damage, read = FORMATS[name]
    counts = {"format": name, "tried": 0, "read": 0, "longest_s": 0.0, "bytes": 0, "wrong": []}
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder))
        good = path.read_bytes()
        read(path)
        before = peak()
        for case in range(cases):
            path.write_bytes(damage(random.Random(f"{name} {case}"), good))  # noqa: S311
            if case % 20 == 0:  # it starts a thread
                faulthandler.dump_traceback_later(6 * LONGEST_S, exit=True)
            begun = time.perf_counter()
            try:
                read(path)
                counts["read"] += 1
            except UserError as error:
                message = str(error)
                if not message or len(message) > LONGEST_MESSAGE or not message.isprintable():
                    counts["wrong"].append(f"case {case}: {message!r}")
            except Exception:
                last = traceback.format_exc().splitlines()
                where = [line.strip() for line in last if line.strip().startswith("File")][-2:]
                counts["wrong"].append(f"case {case}: {last[-1][:200]} {where}")
            seconds = time.perf_counter() - begun
            counts["longest_s"] = max(counts["longest_s"], seconds)
            if seconds > LONGEST_S:
                counts["wrong"].append(f"case {case}: {seconds:.1f} s")
            counts["tried"] += 1
        faulthandler.cancel_dump_traceback_later()
        counts["bytes"] = peak() - before
    if counts["bytes"] > MOST_BYTES:
        counts["wrong"].append(f"{counts['bytes'] >> 20} MiB")
    counts["wrong"] = counts["wrong"][:20]
    return counts


def main():
    warnings.simplefilter("ignore")
    for name in sys.argv[2:] or FORMATS:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            found = fuzz(name, int(sys.argv[1]))
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
