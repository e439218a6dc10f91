"""Checks what is released: ``python tests/distribution.py DIST``, where ``make dist`` has built it.

The wheel must hold the package with all its data and nothing else, the licence, and no path of the
machine that built it; installed into an empty environment, it must run the README's first command
from another folder.
"""

import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAX_BYTES = 30 * 2**20


def of_wheel(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}


def of_sdist(path):
    with tarfile.open(path) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        return {
            member.name.partition("/")[2]: archive.extractfile(member).read() for member in files
        }


def packaged():
    """Files of the tree that users need, by their names in the wheel."""
    rooms = {"apq_moo": "apq_moo"}
    rooms |= {
        name: f"apq_moo/{name}" for name in ("benchmarks", "hardware", "predictors", "problems")
    }
    found = set()
    for folder, name in rooms.items():
        listed = subprocess.run(
            ["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        found |= {name + path.removeprefix(folder) for path in listed}
    return found


def check_contents(files):
    """Files of a wheel, or what of them is wrong."""
    about = {name for name in files if ".dist-info/" in name}
    package = files.keys() - about
    lacking, foreign = packaged() - package, package - packaged()
    assert not lacking, f"the wheel lacks {sorted(lacking)[:5]}"
    assert not foreign, f"the wheel holds {sorted(foreign)[:5]}"
    (metadata,) = (files[name] for name in about if name.endswith("/METADATA"))
    headers = message_from_bytes(metadata)
    assert headers["License-Expression"] == "Apache-2.0", headers["License-Expression"]
    licences = [name for name in about if name.endswith("licenses/LICENSE")]
    own = (ROOT / "LICENSE").read_bytes()
    assert [files[name] for name in licences] == [own], "the licence is not the project's"
    assert len(headers.get_payload()) > 1000, "the description is not the README"


def check_paths(files):
    """No file names this machine's folders."""
    for place in (ROOT.resolve(), Path.home()):
        if len(place.parts) > 2 or place == ROOT.resolve():
            pattern = re.compile(re.escape(str(place).encode()) + rb"(?![\w.-])")
            for name, content in files.items():
                assert not pattern.search(content), f"{name} names {place}"


def first_command():
    text = (ROOT / "Makefile").read_text()
    (line,) = re.findall(r"^run:.*\n\t\$\(BIN\)/(.*)$", text, flags=re.MULTILINE)
    return shlex.split(line)


def check_installed(wheel):
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder, "venv")
        venv.create(environment, with_pip=True)
        pip = [environment / "bin" / "pip", "install", "--quiet", wheel.resolve()]
        subprocess.run(pip, check=True)
        elsewhere = Path(folder, "elsewhere")
        elsewhere.mkdir()
        command, *arguments = first_command()
        run = [environment / "bin" / command, *arguments, "--out", "run"]
        subprocess.run(run, cwd=elsewhere, check=True)
        rows = (elsewhere / "run" / "front.csv").read_text().splitlines()
        assert len(rows) > 20, rows


def main(folder):
    dist = Path(folder)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    files, sources = of_wheel(wheel), of_sdist(sdist)
    check_contents(files)
    check_paths({**sources, **files})
    for path in (wheel, sdist):
        assert path.stat().st_size < MAX_BYTES, (path, path.stat().st_size)
    print(f"{wheel.name}: {len(files)} files, {wheel.stat().st_size / 2**20:.1f} MiB")
    check_installed(wheel)
    print("installed and run from another folder")


if __name__ == "__main__":
    main(*sys.argv[1:])
