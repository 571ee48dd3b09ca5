"""A stranger's workdir whose names are links to files of the user's: nothing of those changes."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.cli import tools
from tests.cli.test_refusals import refused

# Written by training, and by the commands that write into a workdir unless told otherwise; and the
# names of drafts before they were unpredictable.
FILES = ("summary.json", "curve.png", "metrics.jsonl", "config.json")
OUTPUTS = {
    "sample": ("samples.jsonl", ("--num_samples=1", "--steps=1")),
    "mechanism": ("mechanism.jsonl", ("--num_samples=1", "--steps=2", "--every=1")),
    "report": ("report.html", ("--num_samples=1", "--steps=2")),
}
FOLDERS = ("checkpoints", "tensorboard", "tokenizer", "damaged", "skipped", "profile")


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained("lddm_m"), tmp_path / "copy")


@pytest.fixture
def home(tmp_path):
    """A folder of the user's."""
    place = tmp_path / "home"
    place.mkdir()
    return place


def plant(link, home):
    """Put a link to a file of the user's at `link`."""
    victim = home / link.name
    victim.write_bytes(link.read_bytes() if link.exists() else b"mine")
    link.unlink(missing_ok=True)
    link.symlink_to(victim)


def content(home):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in home.iterdir()}


@pytest.mark.slow
def test_files_of_a_run(copy, home, train_flags):
    drafts = [f"{n}.partial" for n in FILES] + ["metrics.partial", ".config.json.partial"]
    for name in (*FILES, *drafts, "curve.partial.png"):
        plant(copy / name, home)
    before = content(home)
    out = tools.call("train", tools.recipe("lddm_m"), f"--workdir={copy}", *train_flags)
    assert out.status == 0, out
    assert content(home) == before and not any((copy / n).is_symlink() for n in FILES)


def test_the_lock(copy, home, train_flags):
    plant(copy / "lock", home)
    (home / "lock").write_text("mine")
    given = ("train", tools.recipe("lddm_m"), f"--workdir={copy}", *train_flags)
    refused(tools.call(*given), "lock is a link")
    assert (home / "lock").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("command", OUTPUTS)
def test_outputs_of_commands(command, copy, home):
    name, flags = OUTPUTS[command]
    for link in (copy / name, copy / f"{name}.partial"):
        plant(link, home)
    before = content(home)
    tools.good(command, f"--workdir={copy}", *flags)
    assert content(home) == before and not (copy / name).is_symlink()


@pytest.mark.parametrize("name", [*FOLDERS, "checkpoints/12", "tensorboard/x"])
def test_folders_that_are_links(name, copy, home, train_flags):
    """`keep` would delete the other run's checkpoints."""
    link = copy / name
    if link.exists():
        shutil.move(link, home / link.name)
    else:
        (home / link.name).mkdir()
    link.symlink_to(home / link.name)
    (home / "other").mkdir()
    walk = lambda: sorted(os.path.join(a, f) for a, _, files in os.walk(home) for f in files)
    before = walk()
    given = ("train", tools.recipe("lddm_m"), f"--workdir={copy}", *train_flags)
    refused(tools.call(*given, "--config.training.num_steps=20"), f"{name} is a link to")
    assert walk() == before and (copy / "lock").read_text() == ""


def test_folders_beside_an_export_or_import_are_left(copy, tmp_path):
    for name in ("out.partial", "in.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("mine")
    tools.good("export", f"--workdir={copy}", f"--output={tmp_path / 'out'}", "--names=own")
    tools.good("import", tmp_path / "out", f"--workdir={tmp_path / 'in'}")
    for name in ("out.partial", "in.partial"):
        assert (tmp_path / name / "precious").read_text() == "mine"


@pytest.mark.slow
def test_links_that_the_user_names_are_followed(copy, home, tmp_path):
    target, link = home / "result", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    given = ("sample", f"--workdir={copy}", *OUTPUTS["sample"][1])
    tools.good(*given, f"--output={link}")
    assert link.is_symlink() and len(tools.json_lines(target)) == 1
    assert target.stat().st_mode & 0o777 == 0o600
    tools.good(*given, "--output=/dev/null")
    assert not os.path.isfile("/dev/null")
