"""Files that commands write: of which kinds their names may be, found out before any work."""

from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from typer.models import OptionInfo

from apq_moo.cli.commands import app
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder

PICTURE = ".png, .svg or .pdf"
OUTPUTS = {
    ("pick", "r", "-o"): ".json",
    ("finetune", "r", "-o"): ".safetensors",
    ("supernet", "train", "-o"): ".safetensors",
    ("samples", "collect", "-o"): ".npz",
    ("samples", "exhaust", "-o"): ".npz",
    ("samples", "add", "r", "-o"): ".npz",
    ("predictor", "fit", "additive", "-o"): ".safetensors",
    ("predictor", "compare", "-o"): ".csv",
    ("predictor", "compare", "--picture"): PICTURE,
    ("supernet", "plan", "-o"): ".json",
    ("space", "new", "--images", "digits", "--latency", "1", "-o"): ".toml",
    ("lut", "build", "-o"): ".npz, .parquet or .json",
    ("lut", "import", "l.json", "-o"): ".npz, .parquet or .json",
    ("lut", "measure", "-o"): ".npz, .parquet or .json",
    ("lut", "plot", "-o"): PICTURE,
    ("report", "r", "-o"): ".html or .htm",
    ("report", "r", "--markdown"): ".md or .markdown",
    ("report", "r", "--latex"): ".tex",
    ("table", "r", "-o"): ".csv or .parquet",
    ("plot", "r", "-o"): PICTURE,
}
FOLDERS = {
    ("run", "--out"),
    ("bench", "--out"),
    ("compare-systems", "--out"),
    ("pipeline", "--out"),
    ("data", "download", "--folder"),
    ("deploy", "-o"),
    ("export", "-o"),
}
"""And of ``export``, whose formats are tested with it, a file."""
INPUTS = {"--supernet", "--samples", "--resume", "--plan", "--figures", "--rates", "--with"}


@pytest.fixture
def begun(call):
    """A run in the folder ``r``."""
    RunFolder.create("r", RunConfig(), verify=None, overwrite=False)


@pytest.mark.parametrize("name", ["p.onnx", "p"])
@pytest.mark.parametrize("command", OUTPUTS, ids=" ".join)
def test_files_of_another_kind_are_refused_before_any_work(refused, begun, command, name):
    before = sorted(Path().rglob("*"))
    assert refused(*command, name) == (
        f"error: {name}: name a file that ends in {OUTPUTS[command]}"
    )
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("command", OUTPUTS, ids=" ".join)
def test_places_that_cannot_be_written_are_refused_before_any_work(refused, begun, command):
    Path("file").write_text("")
    suffix = OUTPUTS[command].split()[0].strip(",")
    assert "cannot write file/x" in refused(*command, f"file/x{suffix}")
    assert not Path("report.html").exists()


def path_options(of, path=()):
    """Commands with their options that are paths, the last name of each."""
    for group in of.registered_groups:
        yield from path_options(group.typer_instance, (*path, group.name))
    for command in of.registered_commands:
        name = command.name or command.callback.__name__
        for parameter, hint in get_type_hints(command.callback, include_extras=True).items():
            kind, *about = get_args(hint) if get_origin(hint) is Annotated else (hint, None)
            option = isinstance(about[0], OptionInfo)
            if option and Path in (kind, *get_args(kind)):
                given = (f"--{parameter}", about[0].default, *(about[0].param_decls or ()))
                yield (*path, name, [text for text in given if str(text)[0] == "-"][-1])


def test_the_table_names_every_file_that_a_command_writes():
    arguments = {"r", "additive", "l.json", "--images", "digits", "--latency", "1"}
    named = {tuple(part for part in command if part not in arguments) for command in OUTPUTS}
    found = {option for option in path_options(app) if option[-1] not in INPUTS}
    assert found == named | FOLDERS
