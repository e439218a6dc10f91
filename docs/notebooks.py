"""Makes notebooks of the tutorials: ``python docs/notebooks.py`` writes examples/*.ipynb.

A tutorial's page is the only source. Commands become cells that run a shell, files that it shows
cells that write them, and outputs are left out, since a notebook makes its own.
"""

import json
import os
import re
from pathlib import Path

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "examples"
FENCE = re.compile(r"^```(\w*)\n(.*?)\n?^```$", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:)([^)#]+)")
FILE = re.compile(r"# (\S+\.\w+)\n")


def code_of(language: str, text: str) -> str:
    """A cell that does what a reader would do with a block."""
    named = FILE.match(text)
    if named:
        return f"%%writefile {named[1]}\n{text}"
    return text if language == "python" else re.sub("^", "!", text, flags=re.MULTILINE)


def cells_of(page: Path) -> list[tuple[str, str]]:
    """Kind (``markdown`` or ``code``) and text of each cell of a tutorial."""

    def moved(link: re.Match[str]) -> str:
        target = os.path.relpath(page.parent / link[1], EXAMPLES)
        return f"]({Path(target).as_posix()}"

    pieces = FENCE.split(page.read_text(encoding="utf-8"))
    cells = []
    for prose, language, code in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=False):
        cells.append(("markdown", LINK.sub(moved, prose).strip()))
        if language != "text":
            cells.append(("code", code_of(language, code)))
    cells.append(("markdown", LINK.sub(moved, pieces[-1]).strip()))
    return [(kind, text) for kind, text in cells if text]


def notebook_of(page: Path) -> str:
    """The notebook as its file holds it: format 4.5 of Jupyter, without outputs."""
    cells = []
    for i, (kind, text) in enumerate(cells_of(page)):
        cell = {"cell_type": kind, "id": f"cell-{i}", "metadata": {}}
        of_code = {"execution_count": None, "outputs": []} if kind == "code" else {}
        cells.append({**cell, **of_code, "source": text.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def notebooks() -> dict[Path, str]:
    """The notebook of each tutorial, by its path."""
    pages = sorted((DOCS / "tutorials").glob("*.md"))
    return {EXAMPLES / f"{page.stem}.ipynb": notebook_of(page) for page in pages}


if __name__ == "__main__":
    for path, text in notebooks().items():
        path.write_text(text, encoding="utf-8")
        print(path)
