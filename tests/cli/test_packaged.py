"""Recipes by name, from the repository and from a wheel that stands alone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ldd_jax.config import packaged
from tests.cli import tools

CONFIGS = sorted(p.stem for p in (tools.ROOT / "configs").glob("*.py"))


def test_all_recipes_have_a_name():
    assert packaged.names() == CONFIGS and "quickstart" in CONFIGS
    listed = tools.good("list", "recipe").out.splitlines()
    assert [line.split()[0] for line in listed[1:]] == CONFIGS
    assert listed == tools.good("list").out.splitlines()[-len(listed) :]


def test_a_name_is_its_file(monkeypatch, tmp_path):
    file = str(packaged.FOLDER / "quickstart.py")
    for given, found in (
        (["train", "--config=quickstart"], ["train", f"--config={file}"]),
        (["--config=quickstart:method=mdlm,size=tiny"], [f"--config={file}:method=mdlm,size=tiny"]),
        (["--config", "quickstart:method=mdlm"], ["--config", f"{file}:method=mdlm"]),
        (["--config=configs/quickstart.py"], None),
        (["--config=quickstar"], None),
        (["--config.optim.lr=quickstart", "quickstart", "--config"], None),
    ):
        assert packaged.spelled_out(given) == (found or given)
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("")
    assert packaged.spelled_out(["--config=quickstart"]) == ["--config=quickstart"]


def test_its_fields_are_said_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    whole = tools.good("config", "--config=text8:method=udlm", "--field=optim").out
    assert "optim.lr" in whole
    refused = tools.call("config", "--config=quickstar")
    assert refused.status == 2
    assert "no such file" in refused.err and "did you mean 'quickstart'?" in refused.err


@pytest.mark.slow
def test_a_wheel_works_without_the_repository(tmp_path):
    """Built from what git knows, unpacked beside nothing else, run in an empty folder."""
    source, wheel, site, empty = (tmp_path / n for n in ("source", "wheel", "site", "empty"))
    empty.mkdir()
    for name in ("ldd_jax", "configs"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(tools.ROOT / name, source / name, symlinks=True, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(tools.ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, f"--wheel-dir={wheel}", str(source)], check=True, capture_output=True)
    [made] = wheel.iterdir()
    zipfile.ZipFile(made).extractall(site)
    assert sorted(p.stem for p in (site / "ldd_jax" / "recipes").glob("*.py")) == CONFIGS

    def run(*argv):
        env = {**os.environ, "PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu"}
        return subprocess.run(
            [sys.executable, *argv], cwd=empty, env=env, check=True, capture_output=True, text=True
        ).stdout

    assert str(site) in run("-c", "import ldd_jax; print(ldd_jax.__file__)")
    command = ("-m", "ldd_jax")
    given = [s for s in tools.SIZES if "data.length" not in s]
    run(*command, "train", "--config=quickstart:method=lddm_m", "--workdir=run", *given,
        "--config.training.num_steps=2")  # fmt: skip
    assert "NELBO" in run(*command, "evaluate", "--workdir=run", "--max_sequences=16")
    run(*command, "sample", "--workdir=run", "--num_samples=2", "--output=samples.jsonl")
    assert len((empty / "samples.jsonl").read_text().splitlines()) == 2
