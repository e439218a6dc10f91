"""Checks that an environment has the oldest releases: ``python tests/lowest.py ENVIRONMENT``.

A bound of pyproject.toml is true if what it names can be installed, beside the oldest of all the
others; ``make test-lowest`` then runs the tests with them.
"""

import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def bounds(root=ROOT):
    """The oldest release of each distribution that pyproject.toml names for users and tests."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    found, lines = {}, [*project["dependencies"], f"{project['name']}[test]"]
    for of in map(Requirement, lines):  # lines grow
        if of.name == project["name"]:
            lines += [line for name in of.extras for line in project["optional-dependencies"][name]]
        else:
            found[of.name] = min(Version(part.version) for part in of.specifier)
    return found


def newer(wanted, installed):
    """What could not be installed at its bound."""
    return [
        f"{name}: {oldest} is allowed, but {installed.get(name)} is what could be installed"
        for name, oldest in wanted.items()
        if name not in installed or Version(Version(installed[name]).public) != oldest
    ]


def main(environment):
    (place,) = Path(environment).glob("lib/python*/site-packages")
    found = distributions(path=[str(place)])
    installed = {of.name.lower().replace("_", "-"): of.version for of in found}
    if wrong := newer(bounds(), installed):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
