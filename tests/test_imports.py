"""Imports run downwards: between rooms as the table says, and in no circle between files.

Lazy and type-only imports count. Tools that read the source tree cannot follow the mapping of
top-level folders into the package, so it is walked here.
"""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ABOVE = {
    "space": (),
    "data": ("space",),
    "hardware": ("space",),
    "predictors": ("space", "data"),
    "supernet": ("space", "data"),
    "problems": ("space", "data", "hardware", "predictors", "supernet"),
    "algorithms": ("space", "data", "hardware", "predictors", "supernet", "problems"),
}
ABOVE["study"] = (*ABOVE["algorithms"], "algorithms")
ABOVE["results"] = (*ABOVE["study"], "study")
ABOVE["deploy"] = (*ABOVE["results"], "results")
ABOVE["benchmarks"] = (*ABOVE["deploy"], "deploy")
ABOVE["pipeline"] = (*ABOVE["benchmarks"], "benchmarks")
ABOVE["testing"] = ABOVE["benchmarks"]
ABOVE["cli"] = (*ABOVE["pipeline"], "pipeline")
"""What each room may import beside itself and the modules that stand directly in the package."""

TOP = "the package's own modules"
PACKAGE = ("apq_moo", "apq_moo.__main__")


def modules(root):
    """Files of all modules, by name."""
    found = {}
    folders = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    for name in folders["packages"]:
        prefix = max((p for p in folders["package-dir"] if name.startswith(p)), key=len)
        inside = name.removeprefix(prefix).lstrip(".").replace(".", "/")
        folder = root / folders["package-dir"][prefix] / inside
        for path in folder.glob("*.py"):
            found[name if path.stem == "__init__" else f"{name}.{path.stem}"] = path
    return found


def imports(name, source, known):
    """Modules of the package that a module's source imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            parts = {f"{node.module}.{alias.name}": node.module for alias in node.names}
            found |= {part if part in known else of for part, of in parts.items()}
    return {module for module in found if module in known} - {name}


def room(name):
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ABOVE else TOP


def circles(graph):
    """Sets of modules that import each other in a loop (Tarjan, 1972)."""
    number, lowest, stack, found = {}, {}, [], []

    def visit(node):
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for following in graph[node]:
            if following not in number:
                visit(following)
                lowest[node] = min(lowest[node], lowest[following])
            elif following in stack:
                lowest[node] = min(lowest[node], number[following])
        if lowest[node] == number[node]:
            loop = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(loop) > 1:
                found.append(sorted(loop))

    for node in graph:
        if node not in number:
            visit(node)
    return found


@pytest.fixture(scope="module")
def graph():
    known = modules(ROOT)
    return {name: imports(name, path.read_text(), known) for name, path in known.items()}


def test_all_rooms_are_walked(graph):
    assert {room(name) for name in graph} == {*ABOVE, TOP}
    assert len(graph) > 150


def test_rooms_import_only_what_stands_above_them(graph):
    wrong = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others
        if name not in PACKAGE
        and room(other) != room(name)
        and room(other) != TOP
        and room(other) not in ABOVE.get(room(name), ())
    ]
    assert not wrong


def test_no_circle_between_files(graph):
    assert circles(graph) == []


def test_the_supernet_needs_neither_pymoo_nor_xgboost():
    for path in (ROOT / "apq_moo" / "supernet").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] not in {"pymoo", "xgboost", "sklearn"}, path


def test_circles_and_lazy_imports_are_seen():
    known = {"a": None, "b": None, "c": None, "c.d": None}
    lazy = "def f():\n    import b\n    from c import d, e\n"
    assert imports("a", lazy, known) == {"b", "c.d", "c"}
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import x\n"
    assert imports("b", typed, known) == {"a"}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
