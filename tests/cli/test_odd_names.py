"""Names with control characters or undecodable bytes: printed escaped, on one line."""

import os
import re
import signal

import pytest
from rich.table import Table

from apq_moo.cli import main
from apq_moo.cli.app import out, say
from apq_moo.cli.stopping import Stopped, going_on
from apq_moo.defaults import DEFAULT_PREDICTOR
from apq_moo.files import write_text
from apq_moo.hardware import read_table

NAMES = {
    "control": ("a\x1b[31mb\nc", r"a\x1b[31mb c"),
    "undecodable": (os.fsdecode(b"a\xff"), r"a\udcff"),
}
SEARCH = "--space digits --objectives latency,macs --budget 100 --algo random"


@pytest.fixture(params=NAMES.values(), ids=NAMES)
def named(request):
    return request.param


@pytest.fixture
def printed(call):
    """The lines of a command that works."""

    def run(*arguments):
        outcome = call(*arguments)
        assert outcome.code == 0, outcome
        text = outcome.out + outcome.err
        assert text.replace("\n", "").isprintable()
        return text.splitlines()

    return run


def test_a_search_and_what_is_made_of_it(printed, tmp_path, named):
    name, shown = named
    (tmp_path / name).mkdir()
    table = f"{name}/t.npz"
    assert printed("lut", "build", "-o", table)[-1].endswith(f" layers of digits: {shown}/t.npz")
    lines = printed("run", *SEARCH.split(), "--device", table, "--out", f"{name}/r")
    assert lines[lines.index("next:") - 1].endswith(f" s, in {shown}/r")
    assert printed("pick", f"{name}/r", "--max", "size=20")[-1] == f"{shown}/r/policy.json"
    texts = [f"{name}/r{suffix}" for suffix in (".html", ".md", ".tex")]
    options = ("-o", texts[0], "--markdown", texts[1], "--latex", texts[2])
    assert printed("report", f"{name}/r", *options) == [f"{shown}/r.html"]
    title = f"digits latency+macs ({DEFAULT_PREDICTOR}, {shown}/t.npz), 100 evaluations"
    assert (tmp_path / texts[1]).read_text().splitlines()[0] == f"{title}; all evaluated"
    assert f'<h2 id="problem0">{title}</h2>' in (tmp_path / texts[0]).read_text()
    assert printed("plot", f"{name}/r", "-o", f"{name}/p.svg") == [f"{shown}/p.svg"]


def test_tables_of_costs(printed, tmp_path, named):
    pytest.importorskip("pyarrow")
    name, shown = named
    (tmp_path / name).mkdir()
    printed("lut", "build", "-o", f"{name}/t.parquet")
    printed("lut", "import", f"{name}/t.parquet", "-o", f"{name}/t.npz")
    tables = [read_table(f"{name}/t{suffix}") for suffix in (".parquet", ".npz")]
    assert tables[0].names == tables[1].names
    assert printed("lut", "show", f"{name}/t.npz")[0] == f"{shown}/t.npz: 1,698 rows"


@pytest.mark.parametrize(
    "command",
    ["run --algo", "run --space", "run --device", "run --predictor", "run --resume", "pick"],
)
def test_messages(refused, command, named):
    name, shown = named
    line = refused(*command.split(), name)
    assert line.isprintable()
    assert shown in line.replace(r"\n", " ")


def test_a_stopped_search_says_how_to_go_on(capsys, monkeypatch, named):
    def stopped(**_options):
        with going_on(lambda: f"go on with {named[0]}"):
            raise Stopped(signal.SIGTERM)

    monkeypatch.setattr("apq_moo.cli.commands.command", lambda: stopped)
    with pytest.raises(SystemExit):
        main(["run"])
    assert capsys.readouterr().err == f"interrupted; go on with {named[1]}\n"


def test_cells_and_lines(capsys, named):
    name, shown = named
    table = Table(title=name)
    table.add_column(name)
    table.add_row(name)
    out.print(table)
    say(name)
    lines = capsys.readouterr().out.splitlines()
    assert "".join(lines).isprintable()
    assert lines[-1] == shown
    assert len({len(line) for line in lines[1:-1]}) == 1  # its frame is straight
    assert sum(len(re.findall(re.escape(shown), line)) for line in lines) >= 3


def test_texts_of_any_character_are_written(tmp_path):
    write_text(tmp_path / "x.txt", "ü\udcff\n")
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "ü\\udcff\n"
