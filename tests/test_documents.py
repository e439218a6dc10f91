"""The pages of the site hang together; tutorials, their notebooks, and recipes do what they say."""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
LONG = {"pictures"}  # takes minutes
PAGES = sorted(DOCS.rglob("*.md"))


def module_at(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


documents = module_at(ROOT / "tests" / "documents.py")
notebooks = module_at(DOCS / "notebooks.py")


def prose(page):
    return documents.FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page):
    """What hosts of repositories, and the site, make of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
    return {word if i == words.index(word) else f"{word}-{i}" for i, word in enumerate(words)}


def listed(page):
    """Pages in the tables of contents of a page, and of the pages there."""
    text = page.read_text(encoding="utf-8")
    for table in re.findall(r"^```{toctree}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for name in table.split("\n\n", 1)[1].split() if ":" in table else table.split():
            found = page.parent / f"{name}.md"
            yield found
            yield from listed(found)


def test_every_page_is_in_the_table_of_contents_once():
    index = DOCS / "index.md"
    assert sorted([index, *listed(index)]) == PAGES


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted(ROOT.glob("*.md"))], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_within_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", prose(page)):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


def constants(package):
    """Constants with a docstring, of the modules that a package imports from, and of its own."""
    names = set()
    source = Path(inspect.getsourcefile(package)).read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    for module in {node.module for node in imports} | {package.__name__}:
        body = ast.parse(inspect.getsource(importlib.import_module(module))).body
        for node, after in pairwise(body):
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                targets = [node.target] if isinstance(node, ast.AnnAssign) else []
                targets += node.targets if isinstance(node, ast.Assign) else []
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def referenced():
    """Packages that a page of the reference documents, by the page."""
    pages = sorted((DOCS / "api").glob("*.md"))
    return {
        package: page.stem
        for page in pages
        for package in re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8"))
    }


def public():
    """Packages with an `__all__`, the command line apart, which is no library."""
    inits = [*ROOT.glob("*/__init__.py"), *ROOT.glob("*/*/__init__.py")]
    rooms = [path.parent.relative_to(ROOT).parts for path in inits if "__all__" in path.read_text()]
    names = {".".join(parts if parts[0] == "apq_moo" else ("apq_moo", *parts)) for parts in rooms}
    return sorted(names - {"apq_moo.cli"})


def test_the_reference_has_every_package_with_public_names():
    found = referenced()
    assert sorted(found) == public()
    assert all(package.split(".")[1] == page for package, page in found.items())


@pytest.mark.parametrize("name", public())
def test_every_public_name_has_a_docstring(name):
    package = importlib.import_module(name)
    assert package.__doc__
    documented = constants(package)
    for public_name in package.__all__:
        value = getattr(package, public_name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert value.__doc__, public_name
        else:
            assert public_name in documented


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ("acc 88.1 %, from 1,457", "acc 89.0 %,  from 1,500\n", True),
        ("acc 88.1 %", "acc 93.0 %", False),
        ("a\n...\n3 rows", "a\nb\nc\n3 rows", True),
        ("a\n...\n3 rows", "a\nb\n3 columns", False),
        ("p = 0.008", "p = 0.008 or so", False),
        ("(8, 32)-W3", "(8, 32)-W4", False),
    ],
)
def test_what_agrees_with_an_output(expected, found, same):
    assert documents.agrees(expected, found) is same


def long_ones_slow(pages):
    return [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in LONG else [])
        for page in pages
    ]


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("page", long_ones_slow([*TUTORIALS, DOCS / "recipes.md"]))
def test_what_a_page_shows_is_what_its_reader_gets(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    shown = 0
    for text, expected, found in documents.run_page(page):
        assert expected is None or documents.agrees(expected, found), f"{text}\n{found}"
        shown += expected is not None
    assert shown


def test_notebooks_are_those_of_the_tutorials():
    made = notebooks.notebooks()
    assert sorted(made) == sorted(EXAMPLES.glob("*.ipynb"))
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, "run python docs/notebooks.py"
        cells = json.loads(text)["cells"]
        links = re.findall(r"\]\((?!\w+:)([^)#\s]+)", "".join("".join(c["source"]) for c in cells))
        assert all((EXAMPLES / link).exists() for link in links)


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_notebooks_run(page, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    folder = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    notebook = nbformat.read(EXAMPLES / f"{page.stem}.ipynb", as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(
        notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = [
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream"
    ]
    assert printed
    assert not any("error: " in text or "not found" in text for text in printed)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    from sphinx.application import Sphinx
    from sphinx.util.inventory import InventoryFile

    site = Sphinx(DOCS, DOCS, tmp_path, tmp_path / "trees", "html", warningiserror=True)
    site.build()
    assert not site.statuscode
    read = InventoryFile.loads((tmp_path / "objects.inv").read_bytes(), uri="")
    names = {name for kind, items in read.data.items() if kind.startswith("py:") for name in items}
    for package in public():
        of = importlib.import_module(package)
        assert {f"{package}.{name}" for name in of.__all__} <= names
