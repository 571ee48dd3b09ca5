"""Kept programs: only from a folder that is ours alone, never damaged, never too many."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest

from ldd_jax.core import compilation
from ldd_jax.core.compilation import Entries, folder
from ldd_jax.core.private import private


def test_the_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/ada")
    for base, place in (
        (str(tmp_path), tmp_path / "ldd_jax" / "programs"),
        ("", "/home/ada/.cache/ldd_jax/programs"),
        ("relative", "/home/ada/.cache/ldd_jax/programs"),  # the standard says: ignore it
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        assert str(folder()) == str(place)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert str(folder()) == "/home/ada/.cache/ldd_jax/programs"
    monkeypatch.setenv("HOME", "nowhere")
    assert folder() is None


def test_the_folder_is_made_for_the_user_alone(tmp_path):
    before = os.umask(0)
    try:
        made = private(tmp_path / "a" / "ldd_jax" / "programs")
    finally:
        os.umask(before)
    assert made == tmp_path / "a" / "ldd_jax" / "programs"
    for place in (made, made.parent, made.parent.parent):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    made.chmod(0o755)  # others could read, not write
    assert private(made) == made and stat.S_IMODE(made.stat().st_mode) == 0o700


def others_write(place):
    place.chmod(0o777)


def group_writes(place):
    place.chmod(0o770)


def others_write_above(place):
    place.parent.chmod(0o777)


def a_file(place):
    place.rmdir()
    place.write_text("")


def a_loop(place):
    place.rmdir()
    place.symlink_to(place)


def a_link_to_a_folder_of_all(place):
    shared = place.parent.parent / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    place.rmdir()
    place.symlink_to(shared)


HARMS = (others_write, group_writes, others_write_above, a_file, a_loop, a_link_to_a_folder_of_all)


@pytest.mark.parametrize("harm", HARMS, ids=lambda f: f.__name__)
def test_a_folder_that_others_may_write_is_not_used(harm, tmp_path):
    place = tmp_path / "ldd_jax" / "programs"
    assert private(place) == place
    harm(place)
    assert private(place) is None


def test_a_folder_of_another_user_is_not_used(tmp_path, monkeypatch):
    place = private(tmp_path / "programs")
    monkeypatch.setattr(os, "geteuid", lambda: place.stat().st_uid + 1)
    assert private(place) is None


def test_a_link_into_ones_own_folders_is_followed(tmp_path):
    private(tmp_path / "scratch")
    (tmp_path / "cache").symlink_to(tmp_path / "scratch")
    assert private(tmp_path / "cache" / "ldd_jax") == tmp_path / "scratch" / "ldd_jax"


@pytest.fixture
def entries(tmp_path):
    return Entries(private(tmp_path / "programs"), limit=1000)


def test_what_is_put_comes_back(entries):
    assert entries.get("a") is None
    entries.put("a", b"x" * 10)
    entries.put("k" * 1000, b"")  # keys may be longer than file names
    assert entries.get("a") == b"x" * 10 and entries.get("k" * 1000) == b""
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in entries.place.iterdir())
    assert [f.suffix for f in entries.place.iterdir()] == [".program"] * 2


@pytest.mark.parametrize("cut", [0, 5, 32, 40])
def test_a_torn_entry_is_removed(entries, cut):
    entries.put("a", b"x" * 10)
    entries.file("a").write_bytes(entries.file("a").read_bytes()[:cut])
    assert entries.get("a") is None and list(entries.place.iterdir()) == []


def test_a_changed_byte_is_seen(entries):
    entries.put("a", b"x" * 10)
    whole = bytearray(entries.file("a").read_bytes())
    for at in range(len(whole)):
        entries.file("a").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert entries.get("a") is None


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "zero"])
def test_what_is_no_file_is_no_entry(entries, kind, tmp_path):
    path = entries.file("a")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        entries.put("b", b"x")
        path.symlink_to(entries.file("b") if kind == "link" else "/dev/zero")
    waiting = threading.Thread(target=lambda: found.append(entries.get("a")), daemon=True)
    found: list = []
    waiting.start()
    waiting.join(10)
    assert found == [None]
    entries.put("a", b"y")
    assert (entries.get("a") is None) == (kind == "folder")


def test_the_least_recently_used_go(entries):
    for number, key in enumerate("abc"):
        entries.put(key, bytes(268))  # 300 with its digest
        os.utime(entries.file(key), (number, number))
    assert entries.get("a") is not None  # now the most recently used
    entries.put("d", bytes(268))
    assert [entries.get(k) is not None for k in "abcd"] == [True, False, True, True]
    entries.put("e", bytes(2000))
    assert entries.get("e") is None and entries.get("a") is not None
    total = sum(f.stat().st_size for f in entries.place.iterdir())
    assert total <= entries.limit


def test_a_folder_that_vanishes_or_fills_is_no_error(entries, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        entries.put("a", b"x")
    assert list(entries.place.iterdir()) == []
    entries.place.rmdir()
    entries.put("a", b"x")
    assert entries.get("a") is None


def test_another_processor_has_other_entries(entries, monkeypatch):
    entries.put("a", b"x")
    monkeypatch.setattr(compilation, "processor", lambda: "another")
    assert Entries(entries.place, limit=1000).get("a") is None


def test_asking_imports_nothing():
    """A refusal must not wait for JAX."""
    code = (
        "import sys; from ldd_jax.cli.main import main; "
        "status = main(['sample'], own_process=True); "
        "print(status, 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["2", "False"], done
