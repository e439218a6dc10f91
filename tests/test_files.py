"""Atomic writing, reading, checksums, and their one-line errors."""

import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from apq_moo.errors import UserError, shown
from apq_moo.files import (
    check_writable,
    digest_of,
    is_file,
    is_folder,
    read_json,
    read_toml,
    replacing,
    sha256,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fail_within(path, error):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


def test_replacing_writes_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "out.npz"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".npz"
        temporary.write_bytes(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    with replacing(str(path)) as temporary:
        temporary.write_bytes(b"two")
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["out.npz"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, UserError, MemoryError])
@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_leaves_the_old_file(tmp_path, error, exists):
    path = tmp_path / "out.txt"
    if exists:
        path.write_text("old")
    with pytest.raises(error):
        fail_within(path, error("stop"))
    assert names(tmp_path) == (["out.txt"] if exists else [])
    assert not exists or path.read_text() == "old"


def test_a_full_disk(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(UserError) as caught:
        fail_within(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert str(caught.value) == f"cannot write {path}: No space left on device"
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.txt"]


def test_the_writer_may_remove_the_temporary_file(tmp_path):
    with (
        pytest.raises(UserError, match="No such file"),
        replacing(tmp_path / "out.txt") as temporary,
    ):
        temporary.unlink()
    assert names(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("here")
    (tmp_path / "folder").mkdir()
    for path, reason in [
        (tmp_path / "file" / "out.txt", "(File exists|Not a directory)"),
        (tmp_path / "file" / "deep" / "out.txt", "Not a directory"),
        (tmp_path / "folder", "Is a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ]:
        with pytest.raises(UserError, match=reason) as caught:
            write_text(path, "text")
        assert str(caught.value).startswith(f"cannot write {path}: "[:150])
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "here"


def test_a_folder_without_permission(tmp_path, monkeypatch):
    # The superuser may write anywhere, so the refusal is played.
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(UserError) as caught:
        write_text(tmp_path / "out.txt", "text")
    assert str(caught.value) == f"cannot write {tmp_path / 'out.txt'}: Permission denied"
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="Permission denied"):
            write_text(tmp_path / "out.txt", "text")
    finally:
        tmp_path.chmod(0o700)


def test_whether_a_file_can_be_written_is_known_before(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("here")
    for path in (tmp_path / "new", tmp_path / "no" / "such" / "new", tmp_path / "file"):
        check_writable(path)
    monkeypatch.chdir(tmp_path)
    check_writable("new")
    for path, reason in [
        (tmp_path / "file" / "new", "Not a directory"),
        (tmp_path / "file" / "no" / "new", "Not a directory"),
        (tmp_path, "Is a directory"),
    ]:
        with pytest.raises(UserError) as caught:
            check_writable(path)
        assert str(caught.value) == f"cannot write {path}: {reason}"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_files_have_the_permissions_of_any_new_file(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "out.txt", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.txt").stat().st_mode) == mode


def test_json_round_trip(tmp_path):
    value = {"a": [1, 2.5, None, True], "b": {"ü": "\n"}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == value
    assert text.endswith("}\n")
    assert '\n  "a"' in text


def test_an_unwritable_value_leaves_the_old_json(tmp_path):
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert read_json(tmp_path / "x.json") == 1
    assert names(tmp_path) == ["x.json"]


def test_toml(tmp_path):
    write_text(tmp_path / "x.toml", 'a = [1, 2]\n[b]\nc = "ü"\n')
    assert read_toml(tmp_path / "x.toml") == {"a": [1, 2], "b": {"c": "ü"}}


@pytest.mark.parametrize("read", [read_json, read_toml, sha256])
def test_files_that_cannot_be_read(tmp_path, read):
    for path, reason in [
        (tmp_path / "no", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "no" / "deeper", "No such file or directory"),
        ("x" * 5000, "File name too long"),
        ("a\0b", "embedded null byte"),
    ]:
        with pytest.raises(UserError, match=f"^cannot read .*: {reason}$") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_what_is_there(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    below = tmp_path / "file" / "below"
    assert [is_file(tmp_path / name) for name in ("file", "link", "no")] == [True, False, False]
    assert [is_folder(tmp_path / name) for name in ("file", "link", "no")] == [False, True, False]
    assert not is_file(below)
    assert not is_folder(below)
    for name, reason in [("x" * 300, "File name too long"), ("a\0b", "embedded null byte")]:
        for ask in (is_file, is_folder):
            with pytest.raises(UserError, match=f"^cannot read .*: {reason}$"):
                ask(name)

    def refuse(self):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(UserError, match=r"^cannot read .*link: Permission denied$"):
        is_folder(tmp_path / "link")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{'a': 1}", bytes(range(128, 256)), b"9" * 5000, b"[" * 100_000],
    ids=["empty", "open", "quotes", "binary", "long", "deep"],
)
def test_malformed_json(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path} is not valid JSON: ")
    assert "\n" not in str(caught.value)


def test_checksums(tmp_path):
    # FIPS 180-2, appendix B.1
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == abc


def test_digests_depend_on_the_value_alone():
    text = b'{"a":[1,2],"b":null}'
    assert digest_of({"b": None, "a": (1, 2)}) == hashlib.sha256(text).hexdigest()
    assert digest_of({"a": [1, 2], "b": None}) != digest_of({"a": [2, 1], "b": None})


class Multiline:
    def __repr__(self) -> str:
        return "one\ntwo"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ("a\nb", r"'a\nb'"),
        ([1, 2.5, None], "[1, 2.5, None]"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, 6, 7, ...]"),
        ([[[[1]]]], "[[[[...]]]]"),
        (10**5000, "<int too long to show>"),
        ([1, 10**5000], "<list too long to show>"),
        (Multiline(), "one two"),
    ],
    ids=["int", "newline", "list", "long list", "nested", "long int", "holds one", "lines"],
)
def test_shown(value, text):
    assert shown(value) == text


def test_shown_is_short_whatever_the_value():
    assert len(shown([["x" * 1000] * 1000] * 1000)) == 120
    assert len(shown("x" * 10**6)) < 70
