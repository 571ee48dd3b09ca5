"""The files of docs/extending.md, cut out of the page, do what it says from outside the package."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.config import plugins
from ldd_jax.core import registry
from ldd_jax.core.types import TokenSpace
from ldd_jax.objectives import Nelbo
from tests.cli import tools

DOCS = tools.ROOT / "docs"
TINY = {
    "train": (
        *("--config.data.path=text.txt", "--config.data.split=line", "--config.data.length=16"),
        *("--config.model.width=16", "--config.training.batch_size=8"),
        *("--config.training.num_steps=4", "--config.evaluation.max_sequences=16"),
        *("--config.evaluation.batch_size=16", "--config.sampling.num_steps=2"),
        *("--config.sampling.num_samples=2", "--config.sampling.batch_size=2"),
    ),
    "bench": ("--num_samples=2", "--steps=2", "--latents=carry"),
}


def blocks(page: str) -> list[str]:
    """Python code blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)


def files(page: str) -> dict[str, str]:
    """The files that a page shows: blocks that begin with a file's name, joined in their order."""
    found: dict[str, str] = {}
    for block in blocks(page):
        if name := re.match(r"# (\w+\.py)\n", block):
            found[name[1]] = found.get(name[1], "") + block
    return found


def commands() -> dict[str, list[str]]:
    """The commands of the page, by name."""
    page = (DOCS / "extending.md").read_text().partition("## The commands")[2]
    typed = [shlex.split(line) for line in page.split("```")[1].splitlines()[1:]]
    assert all(words[:3] == ["python", "-m", "ldd_jax"] for words in typed)
    return {words[3]: words[3:] for words in typed}


@pytest.fixture
def folder(tmp_path, monkeypatch, own_registry):
    """A folder of the user's with the files of the page."""
    for name, text in files("extending.md").items():
        (tmp_path / name).write_text(text)
    (tmp_path / "text.txt").write_text(tools.sentences(200))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_files_of_the_page_train_sample_evaluate_and_bench(folder, monkeypatch):
    """As a user types it: every command a process of its own, in a folder outside the package."""
    monkeypatch.setenv("PYTHONPATH", str(tools.ROOT))
    said = {}
    for name in ("train", "sample", "evaluate", "bench"):
        argv = [sys.executable, "-m", "ldd_jax", *commands()[name], *TINY.get(name, ())]
        run = subprocess.run(argv, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, (name, run.stdout, run.stderr)
        said[name] = run.stdout
    record = json.loads(Path("runs/mine/plugins.json").read_text())["plugins"]
    assert [one["path"] for one in record] == [str(folder / f) for f in files("extending.md")][::-1]
    assert "an upper bound for the sampler that runs two passes" in said["evaluate"]
    samples = tools.json_lines(Path("runs/mine/samples.jsonl"))
    code = {one["path"]: one["sha256"] for one in record}[str(folder / "my_parts.py")]
    assert samples[0]["plugins"] == {"step arg_max_all": code[:16]}
    cells = tools.json_lines(Path("runs/mine_bench/cells.jsonl"))
    named = {cell["sampler"] for cell in cells if cell["workdir"]}
    assert named == {"ancestral", f"arg_max_all@{code[:8]}"}


def test_they_are_listed_and_described(folder):
    out = tools.good(*commands()["list"]).out
    assert re.search(r"arg_max_all +Take the most .*\(my_parts.py\)", out)
    lines = [line.strip() for line in tools.good(*commands()["config"]).out.splitlines()]
    floor = "process.floor: float = 0.0001 (default 0.001): share of its mass that lies evenly on"
    assert f"{floor} all tokens." in lines
    assert "process.schedule = square_root: alpha = 1 - (1 - eps) sqrt(t)." in lines


def test_what_the_page_says_of_them(folder):
    with plugins.named(["my_parts.py", "my_config.py"]):
        find = registry.find
    t = jnp.linspace(0.1, 0.9, 5)
    schedule = find("schedule", "square_root")()
    assert jnp.allclose(schedule.d_alpha(t), -(1 - 1e-3) / 2 * t**-0.5, rtol=1e-5)

    tokens = TokenSpace(size=5, mask=4)
    process = find("process", "floored")(tokens=tokens, schedule=schedule, floor=0.1)
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(5, 5)) * 9, jnp.float32)
    z0, z = jnp.arange(5) % 4, jnp.full(5, 4)
    law = process.read(logits, z, t)
    assert jnp.allclose(jnp.exp(law).sum(-1), 1, atol=1e-6) and (law[:, 4] == -jnp.inf).all()
    assert jnp.exp(law[:, :4]).min() > 0.1 / 4 * (1 - 1e-5)
    nats = -schedule.weight(t) * law[jnp.arange(5), z0]
    assert jnp.allclose(process.bound(logits, z0, z, t), nats, rtol=1e-6)

    made = find("objective", "plain_cross_entropy")(process=process)
    assert jnp.allclose(made.integrand(logits, z0, z, t), nats / schedule.weight(t), rtol=1e-6)
    assert not made.bounds and made.as_bound(1).bounds  # its evaluation is one
    assert not Nelbo.as_bound(made, 1).bounds  # unless it says otherwise
    fields = {f.name for f in dataclasses.fields(find("method", "mine"))}
    for name in ("process", "objective", "model"):
        assert name in fields
