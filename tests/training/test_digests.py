"""What a folder's digests name, how the folder itself is named, and who takes the digests."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import pytest

from ldd_jax.core.storage import at
from ldd_jax.training import digests
from ldd_jax.training.checkpoints import Checkpoints
from ldd_jax.training.state import TrainState
from tests.children import ROOT, environment
from tests.training.test_distributed import free_port


def test_a_folder_reached_by_its_parent_is_whole(tmp_path, monkeypatch):
    """`--workdir=../runs/mine`: only what digests.json names must stay inside."""
    folder, beside = tmp_path / "run", tmp_path / "beside"
    (folder / "ema").mkdir(parents=True)
    beside.mkdir()
    (folder / "ema" / "data").write_bytes(b"some")
    digests.write(folder)
    monkeypatch.chdir(beside)
    for way in ("../run", str(folder / ".." / "run"), "../beside/../run"):
        assert digests.fault(type(folder)(way)) == ""
    (folder / "ema" / "data").write_bytes(b"same")
    assert digests.fault(type(folder)("../run")) == "ema/data is not what was written"


@pytest.mark.parametrize("name", ["../other", "ema/../../other", "/etc/hostname"])
def test_what_it_names_outside_is_refused(tmp_path, name):
    stated = json.dumps({"sha256": {name: [0, ""]}})
    (tmp_path / digests.FILE).write_text(stated)
    assert "is not in the folder" in digests.fault(tmp_path)


def test_the_first_fault_is_told_of_many_files(tmp_path, monkeypatch):
    """Files are read side by side; what is said does not depend on which is read first."""
    for i in range(40):
        (tmp_path / f"{i:02d}").write_bytes(bytes([i]) * 1000)
    digests.write(tmp_path)
    assert digests.fault(tmp_path) == ""
    for i in (7, 31):
        (tmp_path / f"{i:02d}").write_bytes(b"x" * 1000)
    (tmp_path / "35").unlink()
    for most in (1, 16):
        monkeypatch.setattr(digests, "MOST", most)
        assert digests.fault(tmp_path) == "07 is not what was written"


@pytest.mark.parametrize("count", [1, 2, 3, 11])
def test_shares_of_a_check_are_all_files_and_about_as_large(count, tmp_path, monkeypatch):
    sizes = {f"{item}/{i}": 100 * i * i for item in ("ema", "optim") for i in range(1, 8)}
    for name, size in sizes.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    digests.write(tmp_path)
    shares, seen = [], counted(monkeypatch)
    for rank in range(count):
        assert digests.fault(tmp_path, ["optim"], rank, count) == ""
        shares.append([str(p).removeprefix(f"{tmp_path}/") for p in seen])
        seen.clear()
    assert sorted(sum(shares, [])) == [name for name in sizes if name.startswith("optim")]
    bytes_of = [sum(sizes[name] for name in share) for share in shares]
    assert max(bytes_of) - min(bytes_of) <= max(sizes.values())
    (tmp_path / "optim" / "3").write_bytes(b"y" * 900)
    told = [digests.fault(tmp_path, (), rank, count) for rank in range(count)]
    assert sorted(told) == [""] * (count - 1) + ["optim/3 is not what was written"]


def written(folder, count=2):
    """Two items as several processes leave them, and a record."""
    for item in ("params", "optim"):
        for rank in range(count):
            (folder / item / f"ocdbt.process_{rank}" / "d").mkdir(parents=True)
            (folder / item / f"ocdbt.process_{rank}" / "d" / "a").write_text(f"{item} {rank}")
        (folder / item / "_METADATA").write_text(item)
    (folder / "meta").mkdir()
    (folder / "meta" / "metadata").write_text("{}")
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
    return {str(p.relative_to(folder)): [p.stat().st_size, digest(p)] for p in files}


def counted(monkeypatch):
    """Names of the files that are hashed."""
    seen, sha256 = [], digests._sha256
    monkeypatch.setattr(digests, "_sha256", lambda path: seen.append(str(path)) or sha256(path))
    return seen


def test_shares_are_joined_and_no_byte_is_hashed_twice(tmp_path, monkeypatch):
    wanted, seen = written(tmp_path), counted(monkeypatch)
    for rank in (1, 0):
        for item in ("params", "optim"):
            digests.share(tmp_path / item, rank)
        assert len(seen) == (4 if rank == 0 else 2) and f"process_{rank}" in seen[-1]
    digests.write(tmp_path, 2)
    assert json.loads((tmp_path / digests.FILE).read_text())["sha256"] == wanted
    assert sorted(seen) == sorted(str(tmp_path / name) for name in wanted)
    assert len(list(tmp_path.rglob("*.json"))) == 1 and digests.fault(tmp_path) == ""


def test_without_all_shares_nothing_is_whole(tmp_path):
    written(tmp_path)
    for item, rank in (("params", 0), ("params", 1), ("optim", 0)):
        digests.share(tmp_path / item, rank)
    with pytest.raises(OSError, match="No such file"):
        digests.write(tmp_path, 2, patience=0.1)
    assert "missing" in digests.fault(tmp_path)
    digests.share(tmp_path / "optim", 1)
    digests.write(tmp_path, 2)
    assert digests.fault(tmp_path) == ""


def small(step):
    """A state."""
    params = {"kernel": jnp.ones((20, 30))}
    return TrainState(step=jnp.asarray(step, jnp.int32), params=params, ema=params, opt_state=())


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_arrays_are_hashed_once(place, tmp_path, monkeypatch, request):
    """In a folder as soon as they are written, before Orbax joins the items."""
    workdir = at(request.getfixturevalue("bucket")) / "run" if place == "bucket" else tmp_path
    seen, saver = counted(monkeypatch), Checkpoints(workdir)
    saver.save(small(3), {"step": 3})
    saver.close()
    folder = saver.kept.folder(3)
    names = json.loads((folder / digests.FILE).read_text())["sha256"]
    hashed = [re.sub(r"\.orbax-checkpoint-tmp[^/]*", "", n).split("/3/")[1] for n in seen]
    assert sorted(hashed) == sorted(names) and digests.fault(folder) == ""
    assert hashed.index("meta/metadata") > max(
        i for i, name in enumerate(hashed) if "/ocdbt.process_0/" in name
    )


def two(folder, dies=0):
    """Two processes that save."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "tests.training.hashed", str(folder), address]
    return [
        subprocess.Popen(
            [*command, str(rank), str(dies)],
            env=environment(1), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for rank in (0, 1)
    ]  # fmt: skip


@pytest.mark.slow
def test_each_of_two_processes_hashes_what_it_wrote(tmp_path):
    """The first has the records besides; and no byte is hashed twice."""
    running = two(tmp_path)
    said = [one.communicate(timeout=200)[0] for one in running]
    assert [one.returncode for one in running] == [0, 0], said
    found = [json.loads((tmp_path / f"found.{rank}").read_text()) for rank in (0, 1)]
    seen = [one["saved"] for one in found]
    for rank, other in ((0, 1), (1, 0)):
        assert any(f"ocdbt.process_{rank}/" in name for name in seen[rank])
        assert not any(f"ocdbt.process_{other}/" in name for name in seen[rank])
    assert all("ocdbt.process_1/" in name for name in seen[1])
    for step, place in (("1", "checkpoints/1"), ("2", "damaged/2.0")):
        names = json.loads((tmp_path / place / digests.FILE).read_text())["sha256"]
        assert len(names) == sum(f"checkpoints/{step}." in name for name in seen[0] + seen[1])
    # At a start each checks a share of the newest, and all are told of a fault in any of them.
    assert all(one["told"][0] == "" and one["told"][1] == one["told"][2] for one in found)
    checked = [one["checked"] for one in found]
    folder = tmp_path / "checkpoints" / "2"
    assert sorted(checked[0] + checked[1]) == [f"{folder}/{n}" for n in names]
    assert min(map(len, checked)) == len(names) // 2
    name = next(n for n in names if n.startswith("ema/") and f"{folder}/{n}" in checked[1])
    line = f"checkpoint 2 in {tmp_path} is damaged ({name} is not what was written)"
    assert [one["said"] for one in found] == [line] * 2 and "\n" not in line
    assert digests.fault(tmp_path / "checkpoints" / "1") == ""
    assert [one["newest"] for one in found] == [[2, 1]] * 2
    assert [(f"checkpoint 2 is damaged ({name}" in text.decode()) for text in said] == [True, False]


@pytest.mark.slow
def test_one_that_dies_while_it_hashes_leaves_no_whole_checkpoint(tmp_path):
    first, second = two(tmp_path, dies=2)
    assert second.wait(timeout=200) == -signal.SIGKILL
    time.sleep(2)  # for the first to do what it will
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    place = tmp_path / "checkpoints"
    assert any(p.name.startswith("2.") for p in place.iterdir())  # it was begun
    assert Checkpoints(tmp_path, read_only=True).latest() == 1
    assert digests.fault(place / "1") == "" and not (place / "2").exists()
    again = Checkpoints(tmp_path)
    assert again.latest() == 1
    again.save(small(2), {"step": 2})
    again.close()
    names = json.loads((place / "2" / digests.FILE).read_text())["sha256"]
    assert digests.fault(place / "2") == "" and not any("process_1" in name for name in names)
