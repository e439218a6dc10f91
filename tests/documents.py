"""Pages of the documentation, read and run as their readers would.

``python tests/documents.py PAGE...`` runs pages in an empty folder and prints what each block says.
"""

import contextlib
import io
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from apq_moo.cli import main

TOLERANCE = 0.05  # of numbers: other versions of libraries find slightly other networks
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
FILE = re.compile(r"# (\S+\.\w+)\n")


def blocks(language, section, page):
    """The blocks of one language below the heading of the second level that begins so."""
    text = page.read_text(encoding="utf-8")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    chosen = [part for part in parts if part.startswith(section)]
    assert len(chosen) == 1
    return [code for name, code in FENCE.findall(chosen[0]) if name == language]


def call(arguments):
    """Run a command of apq-moo, which has to succeed."""
    code = None
    try:
        main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert not code, arguments


def steps(page):
    """Language, text and expected output (or None) of each block that is run, top to bottom."""
    found = []
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "text":
            assert found[-1][2] is None, f"{page.name}: two outputs of one block"
            found[-1] = (*found[-1][:2], text)
        else:
            found.append((language, text, None))
    return found


def run_block(language, text, names):
    """What a block prints; one whose first line names a file becomes that file."""
    named = FILE.match(text)
    out = io.StringIO()
    if named:
        Path(named[1]).write_text(text, encoding="utf-8")
    elif language == "python":
        with contextlib.redirect_stdout(out):
            exec(compile(text, "page", "exec"), names)  # noqa: S102
    else:
        assert language == "sh", f"nobody runs {language!r}"
        for line in text.splitlines():
            program, *arguments = shlex.split(line)
            if program == "python":
                ran = [sys.executable, *arguments]
                done = subprocess.run(ran, capture_output=True, text=True, check=True)  # noqa: S603
                out.write(done.stdout)
            else:
                assert program == "apq-moo", line
                with contextlib.redirect_stdout(out):
                    call(arguments)
    return out.getvalue()


def run_page(page):
    """Run a page in the current folder; yields text, expected and found output of each block."""
    names = {"__name__": "page"}
    before = set(sys.modules)
    sys.path.insert(0, str(Path.cwd()))
    try:
        for language, text, expected in steps(page):
            yield text, expected, run_block(language, text, names)
    finally:
        del sys.path[0]
        for path in Path.cwd().glob("*.py"):  # another page may have a file of that name
            if path.stem not in before:
                sys.modules.pop(path.stem, None)


def agrees(expected, found):
    """Whether an output is as a page shows it, which leaves parts out by three dots.

    Spaces do not matter, and numbers may differ by `TOLERANCE`.
    """
    pattern, numbers = "", []
    for piece in re.split(rf"(\.\.\.|\s+|{NUMBER.pattern})", expected.strip()):
        if NUMBER.fullmatch(piece):
            pattern += f"({NUMBER.pattern})"
            numbers.append(piece)
        else:
            pattern += ".*?" if piece == "..." else r"\s+" if piece.isspace() else re.escape(piece)
    same = re.fullmatch(pattern, found.strip(), flags=re.DOTALL)
    pairs = zip(numbers, same.groups(), strict=True) if same else []
    values = [[float(text.replace(",", "")) for text in pair] for pair in pairs]
    return bool(same) and all(abs(a - b) <= TOLERANCE * abs(a) for a, b in values)


if __name__ == "__main__":
    pages = [Path(name).resolve() for name in sys.argv[1:]]
    for name in pages:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            for code, wanted, printed in run_page(name):
                state = "" if wanted is None else "agrees" if agrees(wanted, printed) else "DIFFERS"
                print(f"{'-' * 80}\n{code}{'=' * 20} {state}\n{printed}")
