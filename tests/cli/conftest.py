"""Calling the command line in this process, in an empty folder with an empty cache."""

from dataclasses import dataclass

import pytest

from apq_moo.cli import main

DIGITS = {"run", "pipeline", "supernet", "samples", "predictor"}
LUT_DIGITS = {"build", "plot", "validate", "measure"}
"""Commands that these tests call on digits, which trains and measures in seconds without data."""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        capsys.readouterr()
        of_a_space = arguments[0] in DIGITS or (
            arguments[0] == "lut" and arguments[1:2] and arguments[1] in LUT_DIGITS
        )
        if of_a_space and not {"--space", "--resume", "--help"} & set(arguments):
            arguments = (*arguments, "--space", "digits")
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def refused(call):
    """Calls what must fail with one clear line, and returns that line."""

    def run(*arguments):
        outcome = call(*arguments)
        lines = outcome.err.strip().splitlines()
        assert outcome.code == 2, outcome
        assert len(lines) == 1, outcome
        assert lines[0].startswith("error: ")
        assert "Traceback" not in outcome.err
        return lines[0]

    return run
