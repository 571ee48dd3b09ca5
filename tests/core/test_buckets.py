"""One interface to files here and in buckets: what is written is whole, one run holds a folder."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import threading
import time

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile

from ldd_jax.core import kept, lease, reading, storage, writing
from ldd_jax.core.buckets import Bucket
from ldd_jax.core.checks import RunError, UserError
from ldd_jax.core.storage import at
from ldd_jax.training import digests
from ldd_jax.training.retention import Retention
from tests.buckets import objects


def test_names_are_those_of_pathlib():
    path = at("gs://b/run") / "checkpoints" / "12"
    assert (str(path), path.name, path.parent.name) == (
        "gs://b/run/checkpoints/12",
        "12",
        "checkpoints",
    )
    assert os.fspath(at("gs://b/run/")) == "gs://b/run" and at(path) is path
    assert at(pathlib.Path("gs://b/run")) == at("gs://b/run")  # pathlib drops a slash
    assert isinstance(at("run/gs"), pathlib.PosixPath) and at("tfds:lm1b").name == "tfds:lm1b"


@pytest.mark.parametrize("url", ["https://h/x", "file:///etc/passwd", "ssh://h/x", "zip://a::b"])
def test_what_is_no_store_is_not_opened(url):
    with pytest.raises(UserError, match="only local files and buckets"):
        at(url).exists()


def test_what_is_not_installed_is_named(monkeypatch):
    def missing(*_, **__):
        raise ImportError("gcsfs")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(UserError, match=r"pip install 'ldd-jax\[gcs\]'"):
        at("gs://b/run").exists()


def test_files_are_written_whole_or_not_at_all(bucket):
    writing.write(bucket / "a.txt", "one")
    with contextlib.suppress(RuntimeError), writing.replacing(bucket / "a.txt") as stream:
        stream.write("half of two")
        raise RuntimeError
    assert reading.read_text(bucket / "a.txt") == "one" and list(objects()) == ["/b/a.txt"]
    assert [p.name for p in bucket.iterdir()] == ["a.txt"] and not (bucket / "b").exists()
    with pytest.raises(FileNotFoundError):
        reading.read(bucket / "none")


def test_a_store_that_knows_no_new_objects_is_asked_before(bucket, monkeypatch):
    class Old:
        def __getattr__(self, name):
            return getattr(fsspec.filesystem("memory"), name)

        def pipe_file(self, path, data):
            fsspec.filesystem("memory").pipe_file(path, data)

    monkeypatch.setattr(Bucket, "fs", property(lambda self: Old()))
    for place in (bucket / "lock", at("memory://b/lock")):
        with contextlib.suppress(FileExistsError):
            place.put(str(place.exists()).encode(), new=True)
    assert objects()["/b/lock"] == b"False"


def test_what_is_appended_is_there_when_it_rests(bucket):
    writing.write(bucket / "m.jsonl", "0\n")
    with writing.append(bucket / "m.jsonl") as stream:
        stream.write("1\n")
        stream.flush()
        assert reading.read_text(bucket / "m.jsonl") == "0\n"
        storage.settle()
        assert reading.read_text(bucket / "m.jsonl") == "0\n1\n"
        stream.write("2\n")
    assert reading.read_text(bucket / "m.jsonl") == "0\n1\n2\n"


def test_it_rests_by_itself(bucket, monkeypatch):
    monkeypatch.setattr(storage, "REST", 0.02)
    storage._resting.cache_clear()
    with writing.append(bucket / "s.jsonl") as stream:
        stream.write("1\n")
        until = time.monotonic() + 20
        while not (bucket / "s.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert reading.read_text(bucket / "s.jsonl") == "1\n"


def test_it_rests_again_as_long_as_writing_took_or_longer(bucket):
    with writing.append(bucket / "s.jsonl") as stream:
        stream.write("1\n")
        began = time.monotonic()
        storage.settle()
        took = time.monotonic() - began
        (one,) = [o for o in storage._OPEN if str(o.place).endswith("s.jsonl")]
        rests = one.due - began
        assert storage.REST <= rests <= took + max(storage.REST, storage.SHARE * took)


def test_what_could_not_be_written_stays_to_be_written(bucket, faulty, monkeypatch):
    stream = writing.append(bucket / "m.jsonl")
    stream.write("1\n")
    faulty(OSError("503 Slow Down"), "pipe_file")
    with pytest.raises(OSError, match="503 Slow Down"):
        storage.settle()
    monkeypatch.undo()
    stream.close()
    assert reading.read_text(bucket / "m.jsonl") == "1\n"


def test_a_folder_gets_its_index_last(bucket, faulty, monkeypatch):
    with writing.new_folder(bucket / "out") as draft:
        (draft / "manifest.json").write_text("{}")
        (draft / "tokenizer").mkdir()
        for name in ("a", "z", "tokenizer/t"):
            (draft / name).write_text(name)
    assert len(objects()) == 4
    with pytest.raises(UserError, match="not an empty folder"), writing.new_folder(bucket / "out"):
        pass
    for failing in ("two/z", "two/manifest"):
        faulty(OSError("reset"), "put_file", where=failing)
        with pytest.raises(OSError), writing.new_folder(bucket / "two") as draft:
            for name in ("manifest.json", "a", "b", "z"):
                (draft / name).write_text(name)
        monkeypatch.undo()
        assert "/b/two/a" in objects() and "/b/two/manifest.json" not in objects()
        at("memory://b/two").remove_all()


def test_a_library_writes_into_a_folder_that_follows(bucket):
    folder = writing.subfolder(bucket / "tensorboard")
    (folder / "events").write_bytes(b"1")
    storage.settle()
    (folder / "events").write_bytes(b"12")
    storage.settle()
    assert objects()["/b/tensorboard/events"] == b"12"


def numbered(folder, text):
    folder.mkdir()
    for name in ("params/a", "optim/b"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "digests.json").write_text(json.dumps({"sha256": {"params/a": [1, text]}}))
    return folder


def newest(count):
    return Retention(count).stay


def test_numbered_folders_are_whole_once_their_digests_are_there(
    bucket, tmp_path, faulty, monkeypatch
):
    place = kept.kept(bucket / "checkpoints")
    for step in (2, 4, 6):
        place.publish(numbered(tmp_path / f"{step}.tmp", str(step)), step, newest(2), kept.Share())
    assert place.steps() == [4, 6]
    faulty(OSError("reset"), "put_file", where="8/optim")
    with pytest.raises(OSError, match="reset"):
        place.publish(numbered(tmp_path / "8.tmp", "8"), 8, newest(2), kept.Share())
    monkeypatch.undo()
    assert place.steps() == [4, 6] and "/b/checkpoints/8/params/a" in objects()
    found = kept.kept(bucket / "checkpoints").folder(6, ["params"])
    assert (found / "params" / "a").read_text() == "6" and not (found / "optim").exists()
    place.move(6, bucket / "damaged" / "6.0")
    assert place.steps() == [4] and objects()["/b/damaged/6.0/params/a"] == b"6"
    place.publish(tmp_path / "8.tmp", 8, newest(1), kept.Share())
    assert place.steps() == [8] and not any("checkpoints/4" in n for n in objects())


def test_processes_that_work_apart_write_one_folder(bucket, tmp_path):
    """Each has files of its own and some that all have; what an attempt left is no matter."""
    parts = ({"a": "0", "same": "first"}, {"b": "1", "same": "second"}, {"c": "2"})
    (bucket / "checkpoints" / "4" / ".digests-1-0.json").put(b'{"sha256": {"b": [1, "old"]}}')
    threads = []
    for rank, files in enumerate(parts):
        folder = tmp_path / str(rank)
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        digests.write(folder)
        share = kept.Share(rank, len(parts), attempt=2, patience=20)
        place = kept.kept(bucket / "checkpoints")
        threads.append(threading.Thread(target=place.publish, args=(folder, 4, newest(2), share)))
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join()
    found = kept.kept(bucket / "checkpoints").folder(4)
    texts = {p.name: p.read_text() for p in found.iterdir() if p.name != "digests.json"}
    assert texts == {"a": "0", "b": "1", "c": "2", "same": "first"}
    assert digests.fault(found) == ""


def test_one_that_never_comes_ends_the_wait(bucket, tmp_path):
    folder = numbered(tmp_path / "4.tmp", "4")
    place, share = kept.kept(bucket / "checkpoints"), kept.Share(0, 2, attempt=2, patience=0.1)
    with pytest.raises(FileNotFoundError):
        place.publish(folder, 4, newest(2), share)
    assert place.steps() == []


def holding(bucket):
    held = contextlib.ExitStack()
    lease.hold(bucket / "lock", held)
    return held


def test_one_run_holds_a_folder(bucket, monkeypatch, capsys):
    monkeypatch.setattr(lease, "STALE", 0.5)
    monkeypatch.setattr(lease, "BEAT", 0.1)
    writing.write(bucket / "lock", "")  # as a copied folder has it
    with holding(bucket):
        assert reading.read_text(bucket / "lock").startswith(f"process {os.getpid()} on ")
        with pytest.raises(UserError, match=f"in use by another run .process {os.getpid()} on"):
            holding(bucket)
        lease.check(bucket)
    assert not objects()


def test_a_lease_that_does_not_change_is_taken_over(bucket, monkeypatch, capsys):
    monkeypatch.setattr(lease, "STALE", 0.2)
    facts = {"token": "other", "beats": 1, "machine": "another"}
    writing.write(bucket / "lock", f"process 1 on elsewhere\n{json.dumps(facts)}\n")
    with holding(bucket):
        stream = writing.append(bucket / "m.jsonl")
        stream.write("mine\n")
        said = capsys.readouterr().out
        assert "held by process 1 on elsewhere; looking for 0.2 s" in said
        assert "process 1 on elsewhere, which is gone; taken over" in said
        writing.write(bucket / "lock", "process 2 on far\n{}\n")  # that one thought we were gone
        with pytest.raises(RunError, match="taken over by another run .process 2 on far"):
            lease.check(bucket)
        stream.close()
        assert not (bucket / "m.jsonl").exists()
    assert "process 2 on far" in reading.read_text(bucket / "lock")


def test_that_of_an_ended_process_of_this_machine_at_once(bucket, capsys):
    ended = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(ended, 0)
    facts = {"token": "other", "beats": 1, "machine": lease._machine()}
    writing.write(bucket / "lock", f"process {ended} on here\n{json.dumps(facts)}\n")
    with holding(bucket):
        assert "looking" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "error, words",
    [(PermissionError("403"), "permission denied"), (RuntimeError("a\nb"), "answers: a b")],
)
def test_whatever_a_library_raises_has_words_and_the_name(bucket, faulty, error, words):
    faulty(error, "pipe_file", "cat_file", "exists", "put_file", "get_file", "isfile")
    for action in (
        bucket.exists,
        lambda: writing.write(bucket / "x", ""),
        lambda: reading.opened(bucket / "x"),
    ):
        with pytest.raises(OSError) as caught:
            action()
        assert words in caught.value.strerror and caught.value.filename.startswith("memory://b")


def test_a_damaged_name_leads_nowhere(bucket, tmp_path):
    fs = fsspec.filesystem("memory")
    fs.store["/b/run/../../x"] = MemoryFile(fs, "/b/run/../../x", b"1")
    with pytest.raises(UserError, match="leads out of its folder"):
        (bucket / "run").download(tmp_path / "in")
    assert not (tmp_path.parent / "x").exists()
