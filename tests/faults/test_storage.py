"""Damaged, full, read-only, shared and outdated storage: said in a line, and nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from ldd_jax.training import digests
from tests.cli import tools
from tests.cli.test_refusals import listing, refused
from tests.faults import storage
from tests.faults.drill import same

ITEMS = ("params", "ema", "optim", "meta")


@pytest.fixture
def copy(trained, tmp_path):
    """A workdir that the test may break, with checkpoints 10 and 12."""
    return shutil.copytree(trained("lddm_m"), tmp_path / "copy")


def train(workdir, train_flags):
    return tools.call("train", tools.recipe("lddm_m"), f"--workdir={workdir}", *train_flags)


@pytest.mark.slow
@pytest.mark.parametrize("item", ITEMS)
@pytest.mark.parametrize("harm", storage.HARM, ids=lambda f: f.__name__)
def test_a_damaged_checkpoint_is_known(harm, item, copy):
    folder = copy / "checkpoints" / "12"
    assert digests.fault(folder) == ""
    harm(storage.data_file(copy, 12, item))
    assert f"{item}/" in digests.fault(folder)
    assert f"{item}/" in digests.fault(folder, [item])
    assert digests.fault(folder, [i for i in ITEMS if i != item]) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "item"),
    zip((*storage.HARM, storage.flip), (*ITEMS, "ema")),
    ids=lambda value: getattr(value, "__name__", value),
)
def test_training_goes_on_from_the_newest_whole_one(harm, item, copy, trained, train_flags):
    harm(storage.data_file(copy, 12, item))
    (copy / "summary.json").unlink()
    out = train(copy, train_flags)
    assert out.status == 0 and "checkpoint 12 is damaged" in out.err, out
    assert "updates 10 to 12" in out.out
    assert (copy / "damaged" / "12.0").is_dir()
    same(trained("lddm_m"), copy)
    assert digests.fault(copy / "checkpoints" / "12") == ""


@pytest.mark.slow
def test_a_missing_item_and_lost_digests_count_as_damage(copy, train_flags):
    (copy / "checkpoints" / "12" / digests.FILE).unlink()
    shutil.rmtree(copy / "checkpoints" / "10" / "params")
    before = listing(copy)
    out = train(copy, train_flags)
    refused(out, "none of the checkpoints", "12: digests.json", "10: params/", "put a copy back")
    assert {k: v for k, v in listing(copy).items() if k != "lock"} == {
        k: v for k, v in before.items() if k != "lock"
    }


@pytest.mark.slow
def test_readers_take_what_is_whole(copy):
    """What a command does not read may be damaged; nothing is moved by a reader."""
    storage.flip(storage.data_file(copy, 12, "optim"))
    before = listing(copy)
    found = tools.good("evaluate", f"--workdir={copy}")
    assert "checkpoint 12" in found.out and "damaged" not in found.err
    storage.flip(storage.data_file(copy, 12, "ema"))
    found = tools.good("evaluate", f"--workdir={copy}")
    assert "checkpoint 10, averaged" in found.out and "checkpoint 10 is used" in found.err
    refused(tools.call("evaluate", f"--workdir={copy}", "--step=12"), "checkpoint 12", "damaged")
    storage.flip(storage.data_file(copy, 12, "ema"))
    assert listing(copy) == before


def edit_meta(workdir, step, **changes):
    path = workdir / "checkpoints" / str(step) / "meta" / "metadata"
    meta = json.loads(path.read_text())
    meta.update(changes)
    path.write_text(json.dumps({k: v for k, v in meta.items() if v is not None}))


@pytest.mark.slow
def test_the_format_before_this_one_is_read(copy, trained, train_flags):
    """It had no digests, no owed work and no watch."""
    shutil.rmtree(copy / "checkpoints" / "12")
    edit_meta(copy, 10, format=1, owed=None, watch=None)
    (copy / "checkpoints" / "10" / digests.FILE).unlink()
    interval = json.loads((copy / "checkpoints" / "10" / "meta" / "metadata").read_text())[
        "interval"
    ]
    del interval["skipped"]
    edit_meta(copy, 10, interval=interval)
    out = train(copy, train_flags)
    assert out.status == 0 and "updates 10 to 12" in out.out, out
    assert tools.curve(copy) == tools.curve(trained("lddm_m"))


@pytest.mark.parametrize("version", [0, "x", 99])
def test_other_formats_are_refused_in_words(version, copy, train_flags):
    for step in (10, 12):
        edit_meta(copy, step, format=version)
    words = "this library reads 1 to 2" if version == 99 else "meta) is missing or damaged"
    refused(train(copy, train_flags), words)
    refused(tools.call("sample", f"--workdir={copy}"), words)


@pytest.mark.slow
def test_a_workdir_belongs_to_one_run_at_a_time(copy, trained, train_flags):
    """The lock is the kernel's: it goes with its holder, whatever the file says."""
    (copy / "lock").write_text("process 1 on moon")  # left by a run that was killed
    with (copy / "lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = listing(copy)
        refused(train(copy, train_flags), "in use by another run (process 1 on moon)")
        assert listing(copy) == before
    assert train(copy, train_flags).status == 0
    assert (copy / "lock").read_text() == ""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(number, copy, train_flags, monkeypatch):
    """The run goes on, and says once that nothing keeps a second one out."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    out = train(copy, train_flags)
    assert out.status == 0 and out.out.count("without locks") == 1, out


def test_other_errors_of_locks_are_said(copy, train_flags, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    refused(train(copy, train_flags), "Input/output error")


@pytest.mark.slow
def test_clocks_may_go_backwards(tmp_path, train_flags, monkeypatch):
    """Nothing that matters is ordered by the time of day."""
    now = [time.time()]

    def backwards():
        now[0] -= 3600.0
        return now[0]

    short = (*train_flags, "--config.training.num_steps=6")
    plain, odd = tmp_path / "plain", tmp_path / "odd"
    assert train(plain, short).status == train(plain, train_flags).status == 0
    monkeypatch.setattr(time, "time", backwards)
    assert train(odd, short).status == 0
    for path in odd.rglob("*"):
        os.utime(path, (2**33, 2**33))  # written in the year 2242
    out = train(odd, train_flags)
    assert out.status == 0 and "updates 6 to 12" in out.out, out
    same(plain, odd)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB, or None where mounting is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], capture_output=True
    )
    if mounted.returncode:
        yield None
        return
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def line(result, *fragments):
    """The last line is ours; TensorStore's threads may print traces of their own before it."""
    last = result.err.strip().splitlines()[-1]
    assert last.startswith("ldd_jax: "), result.err
    for fragment in fragments:
        assert fragment in last, result.err


@pytest.mark.slow
def test_a_full_disk(small_disk, trained, train_flags, tmp_path):
    """It ends in a line; with room again the same command gets to the same end."""
    if small_disk is None:
        pytest.skip("mounting a small disk is not allowed here; see the next test")
    given = ("train", tools.recipe("lddm_m"), *train_flags)
    workdir = small_disk / "run"
    first = tools.process(*given, "--config.training.num_steps=5", f"--workdir={workdir}")
    assert first.status == 0, first
    free = shutil.disk_usage(small_disk).free
    with (small_disk / "filler").open("wb") as stream, contextlib.suppress(OSError):
        stream.write(b"x" * (free - 8192))
    out = tools.process(*given, f"--workdir={workdir}")
    assert out.status in (1, 2), out
    line(out, "No space left")
    (small_disk / "filler").unlink()
    kept = shutil.copytree(workdir, tmp_path / "kept")
    again = tools.process(*given, f"--workdir={kept}")
    assert again.status == 0, again
    pick = lambda w: [r for r in tools.curve(w) if "train_loss" in r]
    assert pick(kept) == pick(trained("lddm_m"))


LIMITED = """
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.slow
def test_files_that_may_not_grow(trained, train_flags, tmp_path):
    """The same by a limit on file sizes, for places where nothing can be mounted."""
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "ldd_jax", "train", tools.recipe("lddm_m")]
    limited = [sys.executable, "-c", LIMITED, *command[1:]]
    short = [*command, *train_flags, "--config.training.num_steps=5", f"--workdir={workdir}"]
    subprocess.run(short, check=True, cwd=tools.ROOT, capture_output=True)
    given = [*train_flags, f"--workdir={workdir}"]
    env = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    options = dict(cwd=tools.ROOT, capture_output=True, text=True)
    out = subprocess.run([*limited, *given], env=env, **options)
    assert out.returncode in (1, 2), out
    line(tools.Result(out.returncode, out.stdout, out.stderr), "File too large")
    again = subprocess.run([*command, *given], **options)
    assert again.returncode == 0, again
    pick = lambda w: [r for r in tools.curve(w) if "train_loss" in r]
    assert pick(workdir) == pick(trained("lddm_m"))


@pytest.mark.slow
def test_a_read_only_disk(small_disk, copy, train_flags):
    """Training is refused in a line; what only reads still works."""
    if small_disk is None:
        pytest.skip("mounting is not allowed here")
    workdir = shutil.copytree(copy, small_disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    given = (tools.recipe("lddm_m"), f"--workdir={workdir}", *train_flags)
    refused(tools.process("train", *given), "is read-only")
    fresh = (tools.recipe("lddm_m"), f"--workdir={small_disk / 'new'}", *train_flags)
    refused(tools.process("train", *fresh), "is read-only")
    assert tools.process("evaluate", f"--workdir={workdir}").status == 0
