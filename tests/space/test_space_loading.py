"""Finding spaces by name and by path."""

from importlib.resources import files

import pytest

from apq_moo.errors import UserError
from apq_moo.space import Space, load_space, presets


def refused(space):
    with pytest.raises(UserError) as caught:
        load_space(space)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.fixture
def preset_text():
    return (files("apq_moo.space") / "presets" / "digits.toml").read_text()


def test_presets_are_named_as_they_say():
    assert {"imagenet", "digits", "fashion"} <= set(presets())
    for name in presets():
        space = load_space(name)
        assert space.name == name
        assert repr(space) == f"Space({name!r}, n_var={space.n_var}, n_blocks={space.n_blocks})"


@pytest.mark.parametrize("file", ["mine.toml", "mine.txt", "mine"])
@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_a_users_file(tmp_path, preset_text, file, kind):
    path = tmp_path / file
    path.write_text(preset_text.replace('name = "digits"', 'name = "mine"'))
    space = load_space(kind(path))
    assert isinstance(space, Space)
    assert space.name == "mine"
    assert space.digest == load_space("digits").digest


def test_a_preset_goes_before_a_file_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "digits").write_text("junk")
    monkeypatch.chdir(tmp_path)
    assert load_space("digits").name == "digits"


@pytest.mark.parametrize("name", ["image-net", "", ".", "two\nlines"])
def test_unknown_names(name):
    message = refused(name)
    assert "unknown space" in message
    assert f"known: {', '.join(presets())}" in message
    assert len(message) < 300


def test_missing_file(tmp_path):
    assert refused(tmp_path / "no.toml") == (
        f"cannot read {tmp_path / 'no.toml'}: No such file or directory"
    )
    assert "cannot read" in refused("a\0b.toml")
    assert refused("x" * 5000).endswith("xxx: File name too long")
    assert refused("a\0b") == "cannot read 'a\\x00b': embedded null byte"


def test_a_directory(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    assert "Is a directory" in refused(tmp_path / "folder.toml")
    assert "unknown space" in refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(256)),
        b"\xff\xfe\x00",
        b"name = \n",
        b"name = 'a'\nname = 'b'\n",
        b"[stem\n",
        b"x = " + b"[" * 5000 + b"]" * 5000,
        b"x = " + b"9" * 5000,
    ],
    ids=["bytes", "utf-16", "no value", "twice", "bracket", "deep", "long"],
)
def test_files_that_are_not_toml(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    assert refused(path).startswith(f"{path} is not valid TOML: ")


def test_messages_about_content_name_the_file(tmp_path, preset_text):
    path = tmp_path / "bad.toml"
    path.write_text(preset_text.replace("classes = 10", "classes = nan"))
    assert refused(path) == (f"{path}: classes must be an integer from 2 to 1000000, not nan")
    path.write_text(f"stem = 3\n{preset_text}".replace("[stem]", "[other]"))
    assert refused(path).startswith(f"{path}: unknown key 'other' in the file")
    path.write_bytes(b"")
    assert refused(path).startswith(f"{path}: name must be up to 64 letters")
    path.write_text("input_size = 0x" + "f" * 6000)
    assert refused(path).startswith(f"{path}: name must be up to 64 letters")


def test_floats_between_blocks_of_sixteen_bits(tmp_path, preset_text):
    path = tmp_path / "half.toml"
    found = {}
    for between in ("32", "16", "8"):
        path.write_text(preset_text.replace("between = 8", f"between = {between}"))
        found[between] = load_space(path)
    assert found["8"].digest == load_space("digits").digest
    assert len({space.digest for space in found.values()}) == 3
    assert [space.spec.between_bits for space in found.values()] == [32, 16, 8]
    path.write_text(preset_text.replace("between = 8\n", ""))
    assert load_space(path).digest == found["32"].digest


@pytest.mark.parametrize("between", ["4", "true", "16.0", "[16]"])
def test_other_floats_between_blocks_are_refused(tmp_path, preset_text, between):
    path = tmp_path / "odd.toml"
    path.write_text(preset_text.replace("between = 8", f"between = {between}"))
    assert "between must be 8, 16 or 32" in refused(path)
