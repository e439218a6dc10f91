"""What sphinx needs to know to build the documentation: ``make docs``."""

import ast
import re
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx.pycode import ModuleAnalyzer

project = "apq-moo"
author = project_copyright = "The apq-moo authors"
release = version = version_of("apq-moo")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["data/*"]

# Anchors are made of headings as hosts of repositories make them: links hold in both places.
myst_heading_anchors = 4

# A page of the reference documents what `__all__` of its package names.
autodoc_default_options = {
    "members": True,
    "imported-members": True,
    "show-inheritance": True,
    "no-value": True,
}
autodoc_member_order = "groupwise"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
default_role = "py:obj"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Fixtures", "params_style")]

html_theme = "furo"
html_title = "apq-moo"
html_show_sourcelink = False

NAME = r"~?(?:\w+\.)*"
ARRAY = re.compile(rf"{NAME}ndarray\[tuple\[{NAME}Any, \.\.\.\], {NAME}dtype\[({NAME}\w+)\]\]")
ARRAY_LIKE = re.compile(rf"{NAME}_Buffer \| {NAME}_SupportsArray\[.*?\]\] \| .*?\bstr\]")


def name_arrays(
    _app: Any, _what: str, _name: str, _obj: Any, _options: Any, signature: str, returns: str
) -> tuple[str | None, str | None]:
    """Signatures with numpy's names for arrays, which autodoc sees written out."""
    texts = [
        text and ARRAY_LIKE.sub("ArrayLike", ARRAY.sub(r"NDArray[\1]", text))
        for text in (signature, returns)
    ]
    return texts[0], texts[1]


def origins(package: str) -> dict[str, str]:
    """The module that each name of a package was imported from."""
    spec = find_spec(package)
    assert spec
    assert spec.origin
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


def document_constants(_app: Any) -> None:
    """Give constants that a package only passes on the docstrings of where they are defined."""
    for page in (Path(__file__).parent / "api").glob("*.md"):
        for package in re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8")):
            here = ModuleAnalyzer.for_module(package)
            here.analyze()
            for name, module in origins(package).items():
                there = ModuleAnalyzer.for_module(module)
                there.analyze()
                if ("", name) in there.attr_docs:
                    here.attr_docs["", name] = there.attr_docs["", name]


def setup(app: Any) -> None:
    """Called by sphinx."""
    app.connect("builder-inited", document_constants)
    app.connect("autodoc-process-signature", name_arrays)
