"""``apq-moo run``: what it finds, writes, refuses and resumes."""

import csv
import errno
import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

import apq_moo.space
from apq_moo.algorithms.strategy import Context
from apq_moo.cli import main, run_commands
from apq_moo.data import fashion
from apq_moo.data.assets import SAMPLES, SUPERNET, find_assets
from apq_moo.hardware import cost_table
from apq_moo.predictors import find_predictor, fit_to_samples
from apq_moo.space import load_space
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.scoring import Scorer

QUICK = ("--predictor", "additive", "--budget", "1200", "--sweep", "2")


def front(folder):
    with (Path(folder) / "front.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def record(folder):
    return json.loads((Path(folder) / "run.json").read_text())


@pytest.mark.parametrize("algo", ["apq-ga", "nsga2", "random"])
@pytest.mark.parametrize("objectives", ["acc", "acc,latency", "energy,acc,size", "bitops,params"])
def test_fronts(call, algo, objectives):
    outcome = call("run", "--algo", algo, "--objectives", objectives, *QUICK, "--out", "a")
    assert outcome.code == 0, outcome.err
    rows, names = front("a"), objectives.split(",")
    assert list(rows[0]) == [*names, "subnet"]
    values = np.array([[float(row[name]) for name in names] for row in rows])
    losses = values * [-1 if name == "acc" else 1 for name in names]
    better = (losses[:, None] <= losses).all(2) & (losses[:, None] < losses).any(2)
    assert not better.any()
    assert (np.diff(losses[:, -1]) >= 0).all()
    space = load_space("digits")
    X = space.encode([json.loads(row["subnet"]) for row in rows])
    assert len(np.unique(X, axis=0)) == len(X)
    for i, name in enumerate(names):
        if name != "acc":
            np.testing.assert_array_equal(cost_table(space, name)(X), values[:, i])
    found = record("a")
    assert found["status"] == "finished"
    assert found["evaluations"] == 1200
    assert found["config"]["objectives"] == names
    assert {"versions", "data", "seconds"} <= found.keys() or "acc" not in names
    assert (Path("a") / "front.png").read_bytes().startswith(b"\x89PNG")
    assert f"{names[0]} (" in outcome.out


def test_printed_rows_have_the_numbers_that_breakdown_takes(call):
    """A terminal shows twenty rows of a front at most."""
    printed = call("run", "--algo", "nsga2", *QUICK, "--out", "a").out
    rows = front("a")
    assert len(rows) > 20
    numbers = re.findall(r"^│ +(\d+) │ +([\d.]+) │", printed, flags=re.MULTILINE)
    assert len(numbers) == 20
    for number, acc in numbers:
        assert f"{float(rows[int(number)]['acc']):.2f}" == acc
    number, acc = numbers[7]
    assert int(number) > 7
    again = call("run", "--resume", "a", "--breakdown", number)
    assert f"row {number} of the front" in again.out
    assert Path(f"a/breakdown-{number}.png").is_file()


def test_accuracies_are_the_predictors(call):
    call("run", *QUICK, "--out", "a")
    space = load_space("digits")
    X = space.encode([json.loads(row["subnet"]) for row in front("a")])
    expected = find_predictor(space, "additive").predict(X)
    assert [float(row["acc"]) for row in front("a")] == expected.tolist()


def test_limits_hold(call):
    limits = {"latency": 0.01, "size": 9.0}
    given = [part for name, v in limits.items() for part in ("--max", f"{name}={v}")]
    for algo in ("apq-ga", "nsga2", "random"):
        assert call("run", "--algo", algo, *QUICK, *given, "--out", algo).code == 0
        space = load_space("digits")
        X = space.encode([json.loads(row["subnet"]) for row in front(algo)])
        for name, limit in limits.items():
            assert (cost_table(space, name)(X) <= limit).all()


def test_the_same_seed_gives_the_same_bytes(call):
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert call("run", *QUICK, "--seed", seed, "--out", out).code == 0
    a, b, c = ((Path(out) / "front.csv").read_bytes() for out in "abc")
    assert a == b
    assert a != c


def test_too_small_a_budget_names_the_smallest(call, refused):
    eight = ("run", "--predictor", "additive", "--sweep", "8", "--out", "a")
    line = refused(*eight, "--budget", "4799")
    assert line.endswith("the smallest that works is 4800")
    assert not Path("a").exists()
    assert call(*eight, "--budget", "4800").code == 0
    line = refused("run", "--predictor", "additive", "--budget", "599")
    assert line.endswith("5 rounds of 100 at one limit; the smallest that works is 600")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--algo", "foo"), ("algorithm 'foo'", "apq-ga", "nsga2", "random")),
        (("--objectives", "acc,speed"), ("objective 'speed'", "latency", "bitops")),
        (("--objectives", ""), ("at least one objective", "latency")),
        (("--objectives", "acc,acc"), ("given twice",)),
        (("--space", "cifar"), ("space 'cifar'", "digits", "imagenet")),
        (("--device", "tpu"), ("device 'tpu'", "bitfusion")),
        (("--predictor", "oracle"), ("predictor 'oracle'", "mlp", "gbdt-stacked")),
        (("--max", "latency"), ("--max 'latency'", "NAME=VALUE")),
        (("--max", "latency=fast"), ("NAME=VALUE",)),
        (("--max", "latency=nan"), ("NAME=VALUE",)),
        (("--max", "speed=1"), ("'speed'", "latency")),
        (("--max", "latency=1", "--max", "latency=2"), ("given twice",)),
        (("--max", "latency=0.0001"), ("smallest reachable", "0.00213 ms")),
        (("--budget", "0"), ("--budget 0: at least 1 is needed",)),
        (("--assets", "nowhere"), ("apq-moo pipeline", "--assets")),
        (("--space", "imagenet"), ("'ensemble'", "imagenet", "--predictor FILE")),
        (("--resume", "nowhere"), ("holds no run",)),
    ],
)
def test_mistakes(refused, arguments, parts):
    line = refused("run", *arguments)
    assert all(part in line for part in parts), line
    assert not Path("runs").exists()


def test_an_accuracy_out_of_reach_names_the_best(refused):
    line = refused("run", *QUICK, "--max", "acc=99.9")
    assert "the largest found is 9" in line


def test_an_altered_record(call, refused):
    assert call("run", *QUICK, "--out", "a").code == 0
    good, path = record("a"), Path("a/run.json")
    changes = [{"format": "x"}, {"evaluations": "x"}, {"seconds": "x"}, {"seconds": {"load": "x"}}]
    changes += [{"verified": "x"}, {"verify": "x"}, {"config": {}}, {"config": None}]
    values = {"algo": [1], "objectives": [[1]], "limits": [1], "budget": 1200.5, "seed": None}
    values |= {"space": 5, "predictor": None, "assets": 5, "device": 5, "pop_size": True}
    changes += [{"config": good["config"] | {name: value}} for name, value in values.items()]
    for change in changes:
        path.write_text(json.dumps(good | change))
        refused("run", "--resume", "a")
    for name in ("evaluations", "seconds", "config"):
        path.write_text(json.dumps({key: good[key] for key in good.keys() - {name}}))
        refused("run", "--resume", "a")
    path.write_text("{")
    assert "run.json" in refused("run", "--resume", "a")


def test_an_altered_front(call, refused):
    assert call("run", *QUICK, "--out", "a").code == 0
    path = Path("a/front.csv")
    good = path.read_text()
    for bad in (
        *("", good[: len(good) // 2], good.replace(",", ";"), good.replace("acc", "loss", 1)),
        *("acc,latency,subnet\n1,2,{}\n", "acc,latency,subnet\n,2,{}\n", good + "1\n"),
    ):
        path.write_text(bad)
        refused("run", "--resume", "a")
    path.write_bytes(b"\xff")
    assert "front.csv is malformed" in refused("run", "--resume", "a")
    path.unlink()
    assert "cannot read" in refused("run", "--resume", "a")


def test_a_damaged_archive_is_refused(call, refused):
    assert call("run", *QUICK, "--out", "a").code == 0
    unfinished = json.dumps(record("a") | {"status": "unfinished"})
    path = Path("a/archive.npz")
    good = path.read_bytes()
    Path("a/run.json").write_text(unfinished)
    for at in (100, len(good) // 2, len(good) - 30):
        path.write_bytes(good[:at] + bytes([good[at] ^ 255]) + good[at + 1 :])
        assert "archive.npz" in refused("run", "--resume", "a")
    path.write_bytes(good[:300])
    assert "archive.npz" in refused("run", "--resume", "a")
    before = Path("a/front.csv").read_bytes()
    path.unlink()
    assert call("run", "--resume", "a").code == 0
    assert Path("a/front.csv").read_bytes() == before


def test_an_earlier_run_never_enters_the_next(call, refused, monkeypatch):
    assert call("run", *QUICK, "--out", "a").code == 0

    def stuck(path, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stuck)
        line = refused("run", *QUICK, "--seed", "1", "--out", "a", "--overwrite")
    assert "cannot replace the run in a: Permission denied" in line
    assert record("a")["config"]["seed"] == 0


def test_a_run_is_not_continued_with_another_predictor(call, refused):
    samples = find_assets(load_space("digits")).path(SAMPLES)
    fit_to_samples("additive", load_space("digits"), samples).save("p.safetensors")
    given = ("--predictor", "p.safetensors", *QUICK[2:])
    assert call("run", *given, "--out", "a").code == 0
    Path("a/run.json").write_text(json.dumps(record("a") | {"status": "unfinished"}))
    fit_to_samples("xgboost", load_space("digits"), samples).save("p.safetensors")
    assert "begun with other data" in refused("run", "--resume", "a")


def test_runs_of_the_same_second_get_folders_of_their_own(call, monkeypatch):
    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(run_commands, "datetime", Stopped)
    for _ in range(3):
        assert call("run", *QUICK).code == 0
    stem = "20260102-030405-apq-ga"
    assert {path.name for path in Path("runs").iterdir()} == {stem, f"{stem}-2", f"{stem}-3"}


def test_a_malformed_space(refused):
    Path("bad.toml").write_text("name = [")
    assert "bad.toml" in refused("run", "--space", "bad.toml")
    Path("odd.toml").write_text('name = "odd"\nkernels = [2]\n')
    assert "odd.toml" in refused("run", "--space", "odd.toml")


def test_folders_in_use_are_left_alone(call, refused):
    assert call("run", *QUICK, "--out", "a").code == 0
    before = {path: path.read_bytes() for path in Path("a").rglob("*") if path.is_file()}
    assert "--overwrite" in refused("run", *QUICK, "--seed", "1", "--out", "a")
    assert {path: path.read_bytes() for path in before} == before
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("dear")
    for extra in ((), ("--overwrite",)):
        assert "holds no run" in refused("run", *QUICK, *extra, "--out", "mine")
    assert Path("mine/thesis.tex").read_text() == "dear"
    Path("file").write_text("x")
    assert "is a file" in refused("run", *QUICK, "--out", "file")
    assert "cannot write" in refused("run", *QUICK, "--out", "file/below")
    assert call("run", *QUICK, "--seed", "1", "--out", "a", "--overwrite").code == 0
    assert record("a")["config"]["seed"] == 1


def test_overwriting_replaces_all_that_was_written_for_the_run_before(call):
    assert call("run", *QUICK, "--breakdown", "0", "--out", "a").code == 0
    assert call("pick", "a").code == 0
    assert call("audit", "a", "--most", "3", "--seeds", "1", "--choose").code == 0
    made = ("policy.json", "breakdown-0.png", "audit-digits.npz", "history.csv", "archive.npz")
    before = {path.name for path in Path("a").iterdir()}
    assert before == {"run.json", "front.csv", "front.png", *made}
    theirs = {"notes.txt", "breakdown-mine.png", "audit.md", "policy.json.bak"}
    ours = {"audit.json", "audit-digits.npz.part1", "breakdown-12.png", "checkpoint.npz"}
    for name in theirs | ours:
        Path("a", name).write_text("old")
    assert call("run", *QUICK, "--seed", "1", "--out", "a", "--overwrite").code == 0
    found = {path.name for path in Path("a").iterdir()}
    assert found == {"run.json", "front.csv", "front.png", "history.csv", "archive.npz", *theirs}
    assert all(Path("a", name).read_text() == "old" for name in theirs)


def test_resuming_takes_no_other_options(call, refused, monkeypatch):
    assert call("run", *QUICK, "--out", "whole").code == 0
    rounds = []
    real = Context.measure

    def dies_in_the_third(self, *given):
        rounds.append(None)
        if len(rounds) == 3:
            raise KeyboardInterrupt
        return real(self, *given)

    monkeypatch.setattr(Context, "measure", dies_in_the_third)
    assert call("run", *QUICK, "--out", "a").code == 130
    assert record("a")["status"] == "unfinished"
    assert refused("run", "--resume", "a", "--budget", "600") == (
        "error: the run in a was begun with other settings (budget was 1200, is 600); repeat "
        "those, or leave them out"
    )
    assert "--out" in refused("run", "--resume", "a", "--out", "b")
    assert call("run", "--resume", "a").code == 0
    assert Path("a/front.csv").read_bytes() == Path("whole/front.csv").read_bytes()
    n = len(rounds)
    again = call("run", "--resume", "a", "--budget", "1200")
    assert again.code == 0
    assert "front" in again.out
    assert len(rounds) == n


def test_verification(call, monkeypatch):
    outcome = call("run", *QUICK, "--out", "a", "--verify", "3")
    assert outcome.code == 0, outcome.err
    assert "takes about" in outcome.err
    assert "Kendall tau" in outcome.out
    rows = front("a")
    names = ["acc", "latency", "acc_val_true", "acc_test", "measured_front", "subnet"]
    assert list(rows[0]) == names
    measured = [row for row in rows if row["acc_test"]]
    assert len(measured) == 9
    better = sum(row["measured_front"] == "1" for row in measured)
    assert f"{better} of 9 measured networks are its front" in outcome.out
    titles = [outcome.out.index(f"{kind} front of") for kind in ("measured", "predicted")]
    assert titles == sorted(titles)
    assert rows[0]["acc_test"]
    assert rows[-1]["acc_test"]
    assets = find_assets(load_space("digits"))
    supernet, _ = load_supernet(assets.path(SUPERNET), assets.space)
    from apq_moo.data import load_images

    scorer = Scorer(supernet, load_images("digits"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for row in measured:
        subnets = assets.space.decode(assets.space.encode([json.loads(row["subnet"])]))
        for column, split in (("acc_val_true", "validation"), ("acc_test", "test")):
            assert float(row[column]) == scorer.accuracies(subnets, [split], quantised=True)
    torch.set_num_threads(threads)

    monkeypatch.setattr(Scorer, "accuracies", None)
    again = call("run", *QUICK, "--out", "b", "--verify", "3")
    assert again.code == 0, again.err
    assert Path("a/front.csv").read_bytes() == Path("b/front.csv").read_bytes()


def test_verification_of_ten_by_default(call):
    assert call("run", *QUICK, "--verify", "--out", "a").code == 0
    assert record("a")["verify"] == 10
    assert sum(bool(row["acc_test"]) for row in front("a")) == min(30, len(front("a")))


def test_published_checkpoints(call, refused):
    generator = torch.Generator().manual_seed(0)

    def of(*shape):
        return 0.05 * torch.randn(*shape, generator=generator)

    state = {"quantize_fc.weight": of(400, 252), "quantize_fc.bias": of(400)}
    for i, width in enumerate((520, 400, 400)):
        state |= {f"layers.{i}.0.weight": of(400, width), f"layers.{i}.0.bias": of(400)}
    state |= {"regressor.weight": of(1, 400), "regressor.bias": torch.tensor([0.5])}
    torch.save(state, "authors.pt")
    given = ("--space", "imagenet", "--predictor", "authors.pt", "--budget", "600", "--sweep", "1")
    assert call("run", *given, "--out", "a").code == 0
    assert len(front("a")) > 0
    line = refused("run", *given, "--verify", "--out", "b")
    assert "--verify" in line
    assert "imagenet" in line
    assert not Path("b").exists()
    Path("broken.pt").write_bytes(Path("authors.pt").read_bytes()[:1000])
    assert "broken.pt" in refused("run", *given[:3], "broken.pt", *given[4:])


def test_help_and_lists(call):
    assert "latency" in call("run", "--help").out
    assert "8.139e+74" in call("spaces").out
    assert "apq-ga" in call("algorithms").out
    assert call("--version").out.startswith("apq-moo 0.")


def test_help_is_light():
    code = (
        "import sys; from apq_moo.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'pymoo', 'xgboost', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)  # noqa: S603


def test_fashion_is_searched_where_no_space_is_named(tmp_path, monkeypatch, capsys):
    """Without its images; measuring says what to install, before anything is searched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fashion, "folders", list)
    fashion.load_fashion_mnist.cache_clear()
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as stop:
        main(["run", "--budget", "2400", "--sweep", "4", "--out", "a"])
    assert not stop.value.code
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["config"]["space"] == "fashion"
    assert record["front"] > 10
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["run", "--verify", "2", "--out", "b"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "install Debian's dataset-fashion-mnist" in line
    assert "apq-moo data download fashion-mnist" in line
    assert not (tmp_path / "b").exists()


def test_networks_of_a_table_are_verified_by_it(call, monkeypatch, tmp_path):
    """Without images."""
    monkeypatch.setattr(fashion, "folders", list)
    fashion.load_fashion_mnist.cache_clear()
    done = call("run", "--space", "tiny", "--predictor", "table", "--verify", "4", "--out", "a",
                "--budget", "4800")  # fmt: skip
    assert done.code == 0, done.err
    with Path("a/front.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if row["acc_test"]]
    assert len(rows) == 12
    assert {row["measured_front"] for row in rows} == {"1"}
    assert all(float(row["acc"]) == float(row["acc_val_true"]) for row in rows)
    assert all(float(row["acc_test"]) > 70 for row in rows)


def test_names_are_neither_markup_nor_mathematics(call):
    """Brackets of rich, its emoji, and dollars, between which matplotlib reads formulas."""
    folder = Path("d$x_$y[red]")
    folder.mkdir()
    preset = Path(apq_moo.space.__file__).parent / "presets" / "digits.toml"
    (folder / "my.toml").write_text(preset.read_text())
    outcome = call(
        "run", "--space", folder / "my.toml", "--objectives", "latency,size", "--algo", "nsga2",
        "--budget", "200", "--pop-size", "20", "--out", "a[/red]b:x:",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "s, in a[/red]b:x:\nnext:\n" in outcome.out
    assert "d$x_$y[red]" in "".join(outcome.out.split())
    assert Path("a[/red]b:x:/front.png").stat().st_size > 1000
