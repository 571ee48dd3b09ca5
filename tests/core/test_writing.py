"""Files appear whole or not at all, and nothing is written through a link that was left there."""

from __future__ import annotations

import os
import socket
import stat
import threading

import pytest

from ldd_jax.core import outputs, writing
from ldd_jax.core.checks import UserError


@pytest.fixture
def victim(tmp_path):
    """A file of the user's, outside."""
    path = tmp_path / "home" / "bashrc"
    path.parent.mkdir()
    path.write_text("mine")
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    return path


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_link_is_replaced_and_its_target_left_alone(folder, victim):
    path = folder / "summary.json"
    path.symlink_to(victim)
    writing.write(path, "new")
    assert victim.read_text() == "mine"
    assert path.read_text() == "new" and not path.is_symlink() and names(folder) == ["summary.json"]


def test_no_name_can_be_prepared(folder, victim, monkeypatch):
    """Even a link under the very name of the draft is not followed."""
    monkeypatch.setattr(writing, "_unknown", lambda: "known")
    (folder / "known").symlink_to(victim)
    with pytest.raises(FileExistsError):
        writing.write(folder / "x", "new")
    assert victim.read_text() == "mine"


def test_a_failure_leaves_all_as_it_was(folder):
    path = folder / "x"
    path.write_text("old")
    with pytest.raises(RuntimeError), writing.replacing(path) as stream:
        stream.write("half")
        raise RuntimeError
    assert path.read_text() == "old" and names(folder) == ["x"]


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o444, 0o664])
def test_permissions_are_kept(kept, folder):
    path = folder / "x"
    path.write_text("old")
    path.chmod(kept)
    before = os.umask(0o022)
    try:
        writing.write(path, "new")
        writing.write(folder / "fresh", b"new")
    finally:
        os.umask(before)
    assert mode(path) == kept and mode(folder / "fresh") == 0o644


def test_half_a_character_is_written_as_its_escape(folder):
    writing.write(folder / "x", '"\ud800\u00e9"')
    assert (folder / "x").read_bytes() == b'"\\ud800\xc3\xa9"'


def test_nothing_is_appended_through_links(folder, victim):
    (folder / "log").symlink_to(victim)
    with pytest.raises(UserError, match="log is a link"):
        writing.append(folder / "log")
    os.mkfifo(folder / "pipe")
    with pytest.raises((UserError, OSError)):
        writing.append(folder / "pipe")
    assert victim.read_text() == "mine"
    for _ in range(2):
        with writing.append(folder / "plain") as stream:
            stream.write("a")
    assert (folder / "plain").read_text() == "aa"


def test_links_in_folders_are_refused(folder, victim):
    (folder / "deep" / "er").mkdir(parents=True)
    writing.refuse_links([folder, folder / "absent"])
    (folder / "deep" / "er" / "x").symlink_to(victim)
    with pytest.raises(UserError, match="x is a link to .*bashrc"):
        writing.refuse_links([folder])
    (folder / "link").symlink_to(victim.parent)
    with pytest.raises(UserError, match="link is a link"):
        writing.subfolder(folder / "link")


class TestNewFolder:
    def test_it_appears_whole_or_not_at_all(self, tmp_path):
        theirs = tmp_path / "out.partial"  # a folder of the user's, with the name of old drafts
        theirs.mkdir()
        (theirs / "precious").write_text("mine")
        with pytest.raises(RuntimeError), writing.new_folder(tmp_path / "out") as draft:
            (draft / "x").write_text("half")
            raise RuntimeError
        assert names(tmp_path) == ["out.partial"]
        with writing.new_folder(tmp_path / "out") as draft:
            (draft / "x").write_text("whole")
        assert (tmp_path / "out" / "x").read_text() == "whole"
        assert names(tmp_path) == ["out", "out.partial"] and names(theirs) == ["precious"]

    def test_an_empty_folder_keeps_its_permissions(self, tmp_path):
        place = tmp_path / "out"
        place.mkdir(0o700)
        with writing.new_folder(place) as draft:
            (draft / "x").write_text("whole")
        assert mode(place) == 0o700 and names(place) == ["x"]

    def test_behind_a_link(self, tmp_path, victim):
        real = tmp_path / "real"
        real.mkdir()
        (tmp_path / "link").symlink_to(real)
        with writing.new_folder(tmp_path / "link") as draft:
            (draft / "x").write_text("whole")
        assert names(real) == ["x"] and (tmp_path / "link").is_symlink()

    def test_what_is_taken_is_refused(self, tmp_path, victim):
        for path in (victim, victim.parent):
            with pytest.raises(UserError, match="not an empty folder"), writing.new_folder(path):
                pass
        assert victim.read_text() == "mine"


class TestPlace:
    """What `--output` names."""

    def test_behind_a_link_the_target_is_replaced_at_once(self, folder, victim):
        victim.chmod(0o600)
        (folder / "one").symlink_to(folder / "two")
        (folder / "two").symlink_to(victim)
        with outputs.place(str(folder / "one")).open() as stream:
            stream.write("new")
            assert victim.read_text() == "mine"
        assert victim.read_text() == "new" and mode(victim) == 0o600
        assert (folder / "one").is_symlink() and names(victim.parent) == ["bashrc"]

    def test_a_link_to_nothing_yet(self, folder, victim):
        (folder / "link").symlink_to(victim.parent / "fresh")
        with outputs.place(folder / "link").open() as stream:
            stream.write("new")
        assert (victim.parent / "fresh").read_text() == "new" and (folder / "link").is_symlink()

    def test_a_default_in_a_workdir_is_not_followed(self, folder, victim):
        default = folder / "samples.jsonl"
        default.symlink_to(victim)
        with outputs.place("", default).open() as stream:
            stream.write("new")
        assert victim.read_text() == "mine" and default.read_text() == "new"

    def test_a_default_that_is_a_pipe_does_not_hang(self, folder):
        default = folder / "samples.jsonl"
        os.mkfifo(default)
        with outputs.place("", default).open() as stream:
            stream.write("new")
        assert default.is_file() and default.read_text() == "new"

    def test_devices_are_written_through(self):
        place = outputs.place("/dev/null")
        with place.open() as stream:
            stream.write("gone")
        assert place.through and stat.S_ISCHR(os.stat("/dev/null").st_mode)

    @pytest.mark.parametrize("binary", [False, True])
    def test_pipes_are_written_through(self, binary, folder):
        path, found = folder / "pipe", []
        os.mkfifo(path)
        reader = threading.Thread(target=lambda: found.append(path.read_text()))
        reader.start()
        with outputs.place(path).open(binary=binary) as stream:
            stream.write(b"new" if binary else "new")
        reader.join(5)
        assert found == ["new"] and stat.S_ISFIFO(path.stat().st_mode)

    def test_a_full_device_is_said(self):
        with (
            pytest.raises(UserError, match="/dev/full: No space left"),
            outputs.place("/dev/full").open() as stream,
        ):
            stream.write("x")

    def test_what_is_refused(self, tmp_path, folder):
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(tmp_path / "socket"))
            for path, why in {
                folder: "is a folder",
                f"{tmp_path}/x/": "is a folder",
                tmp_path / "no" / "x": "does not exist",
                tmp_path / "socket": "is a socket",
                tmp_path / "loop": "leads back to itself",
            }.items():
                with pytest.raises(UserError, match=f"--gif=.*{why}"):
                    outputs.place(path, flag="gif")
        with pytest.raises(UserError, match="--output is missing"):
            outputs.place("")


def test_a_place_that_is_taken_is_named_by_its_flag(tmp_path):
    writing.check_new_folder(tmp_path, "output")  # empty
    (tmp_path / "here").touch()
    with pytest.raises(UserError, match=f"^--output={tmp_path} exists"):
        writing.check_new_folder(tmp_path, "output")
    with pytest.raises(UserError, match=f"^{tmp_path} exists"):
        writing.check_new_folder(tmp_path)
