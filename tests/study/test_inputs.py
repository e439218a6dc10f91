"""Runs keep what they were made from, and nothing is written through a link out of their folder."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import apq_moo.space
from apq_moo.data import images_of
from apq_moo.errors import UserError
from apq_moo.hardware import find_device, read_table, write_table
from apq_moo.hardware.layer_table import build
from apq_moo.problems import APQProblem
from apq_moo.results.breakdown import break_down
from apq_moo.results.pick import pick
from apq_moo.results.run import execute
from apq_moo.space import load_space, superspace
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder
from apq_moo.study.search import Search
from apq_moo.study.warm_start import read_networks

PRESET = Path(apq_moo.space.__file__).parent / "presets" / "digits.toml"
CONFIG = RunConfig(
    algo="nsga2",
    objectives=("latency", "size"),
    space="my.toml",
    device="t.npz",
    budget=400,
    pop_size=20,
)


def edit(old, new):
    Path("my.toml").write_text(Path("my.toml").read_text().replace(old, new))


def ten_times_dearer():
    table = read_table("t.npz")
    write_table("t.npz", replace(table, values={k: 10 * v for k, v in table.values.items()}))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A space and a table of the user's own in the working folder, and a run of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    Path("my.toml").write_text(PRESET.read_text().replace('name = "digits"', 'name = "my"'))
    write_table("t.npz", build(load_space("my.toml"), find_device("bitfusion"), {}))
    folder = RunFolder.create("r", CONFIG, verify=None, overwrite=False)
    execute(folder)
    return folder


def test_a_space_that_was_edited_changes_no_pick(made):
    before = pick(made, {"latency": 0.0025})
    edit("width = 8\n", "width = 16\n")
    after = pick(RunFolder.open("r"), {"latency": 0.0025})
    assert after == before
    space = load_space("r/space.toml")
    problem = APQProblem(space, ("latency", "size"), device="t.npz")
    worth = problem.evaluate_raw(space.encode([after.subnet.to_dict()]))
    assert {name: float(worth[name][0]) for name in after.values} == after.values


def test_a_copy_of_a_space_finds_the_same_pictures(made, tmp_path, monkeypatch):
    edit('images = "digits"', 'images = "folder:pictures@8-grey"')
    space = load_space("my.toml")
    wanted = f"folder:{tmp_path}/pictures@8-grey"
    assert images_of(space) == wanted
    config = replace(CONFIG, device="bitfusion")
    folder = RunFolder.create("pictured", config, verify=None, overwrite=False)
    assert folder.at_hand == config
    monkeypatch.chdir("pictured")
    copy = load_space("space.toml")
    assert images_of(copy) == wanted
    assert (copy.digest, copy.spec) == (space.digest, space.spec)
    config = replace(config, space="space.toml")
    again = RunFolder.create("again", config, verify=None, overwrite=False)
    assert (again.path / "space.toml").read_bytes() == Path("space.toml").read_bytes()
    assert again.at_hand.space == "space.toml"
    monkeypatch.chdir(tmp_path)
    edit("width = 8\n", "width = 16\n")
    assert RunFolder.open("pictured").at_hand.space == "pictured/space.toml"


def test_a_copy_of_a_subspace_finds_the_same_superspace(made, monkeypatch):
    sub = Path("my.toml").read_text().replace('name = "my"', 'name = "sub"\npart_of = "my.toml"')
    Path("sub.toml").write_text(sub)
    config = replace(CONFIG, space="sub.toml", device="bitfusion")
    RunFolder.create("of a part", config, verify=None, overwrite=False)
    wanted = superspace(load_space("sub.toml")).digest
    monkeypatch.chdir("of a part")
    assert superspace(load_space("space.toml")).digest == wanted == load_space("../my.toml").digest


def test_a_table_that_was_replaced_changes_no_pick(made):
    before = pick(made, {"energy": 0.004})
    ten_times_dearer()
    assert pick(RunFolder.open("r"), {"energy": 0.004}) == before


def test_a_run_works_from_another_folder(made, tmp_path, monkeypatch):
    before = pick(made, {"latency": 0.0025})
    away = tmp_path / "away"
    shutil.copytree("r", away / "moved")
    for name in ("my.toml", "t.npz"):
        Path(name).unlink()
    monkeypatch.chdir(away)
    moved = RunFolder.open("moved")
    assert pick(moved, {"latency": 0.0025}) == before
    assert break_down(moved, moved.read_front(), 0)[1].is_file()


def test_a_search_goes_on_after_its_files_were_edited(made, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(done, _total):
        if done >= 200:
            raise StoppedError

    cut = RunFolder.create("cut", CONFIG, verify=None, overwrite=False)
    with pytest.raises(StoppedError):
        Search(CONFIG).run(folder=cut.path, callback=stop, every_s=0)
    edit("width = 8\n", "width = 16\n")
    ten_times_dearer()
    execute(RunFolder.open("cut"))
    assert Path("cut/front.csv").read_bytes() == Path("r/front.csv").read_bytes()


@pytest.mark.parametrize("name", ["space", "device"])
def test_inputs_that_are_gone_for_good_are_refused(made, name):
    """Such as a preset that another version of the package describes otherwise."""
    record = json.loads(Path("r/run.json").read_text())
    record["data"][name] = "0" * 64
    Path("r/run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"begun with other data: {name} changed since"):
        pick(RunFolder.open("r"), {})


def test_warm_starts_are_of_the_same_space(made):
    assert len(read_networks("r", load_space("my.toml"))) > 0
    edit("width = 8\n", "width = 16\n")
    different = "that run belongs to another space of the same name, not to this 'my': "
    with pytest.raises(UserError, match=rf"{different}stages\[0\].width was 8, is 16$"):
        read_networks("r", load_space("my.toml"))


def test_overwriting_takes_only_what_a_run_wrote(made):
    Path("r/notes.txt").write_text("mine")
    RunFolder.create("r", replace(CONFIG, device="bitfusion"), verify=None, overwrite=True)
    assert sorted(path.name for path in Path("r").iterdir()) == [
        "notes.txt",
        "run.json",
        "space.toml",
    ]


@pytest.mark.parametrize("content", ['{"mine": 1}', "[]", "not JSON"])
def test_a_folder_that_is_no_run_is_not_overwritten(made, tmp_path, content):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "run.json").write_text(content)
    (folder / "front.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"run\.json is not"):
        RunFolder.create(folder, CONFIG, verify=None, overwrite=True)
    assert (folder / "run.json").read_text() == content
    assert (folder / "front.csv").read_text() == "a,b\n1,2\n"


REFUSALS = {
    "evaluations.part": "cannot write got/evaluations.part: Too many levels of symbolic links",
    "checkpoint.npz": "cannot read got/checkpoint.npz: it is damaged",
}


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="such a system follows links")
@pytest.mark.parametrize(
    "name",
    [
        *("evaluations.part", "checkpoint.npz", "front.csv", "front.png", "run.json"),
        *(".lock", "breakdown-0.png"),
    ],
)
def test_nothing_is_written_through_a_link(made, tmp_path, name):
    """A folder from elsewhere holds links where the search goes on to write."""
    victim = tmp_path / "victim"
    victim.write_bytes(made.path.joinpath("run.json").read_bytes() if name == "run.json" else b"!")
    before = victim.read_bytes()
    folder = RunFolder.create("got", CONFIG, verify=None, overwrite=False)
    folder.path.joinpath(name).unlink(missing_ok=True)
    folder.path.joinpath(name).symlink_to(victim)
    refusal = ""
    try:
        Search(CONFIG).run(folder=folder.path, every_s=0)
        break_down(folder, execute(RunFolder.open("got")), 0)
    except UserError as error:
        refusal = str(error)
    assert victim.read_bytes() == before
    assert refusal.startswith(REFUSALS.get(name, ""))
    assert bool(refusal) == (name in REFUSALS)
