"""Commands of the how-to pages are typed, in a folder where FILE, DIR and the like are there."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli import tools

PAGES = sorted((tools.ROOT / "docs" / "howto").glob("*.md"))
TYPED = re.compile(r"^ {4,6}(python -m ldd_jax (?:.*\\\n)*.*)$", re.M)
PYTHON = re.compile(r"```python\n(.*?)```", re.S)

# What makes a command small: the last flag of a name counts.
STEPS = ("--config.training.num_steps=4", "--config.training.eval_every=4",
         "--config.training.sample_every=4", "--config.training.checkpoint_every=2")  # fmt: skip
TINY = {
    "train": (*tools.SIZES, *STEPS),
    "prepare": ("--config.data.tokenizer.vocab_size=280",),
    "sample": ("--num_samples=2",),
    "bench": ("--num_samples=4", "--steps=2"),
    "distill": ("--num_samples=8",),
}
TEXT = ("--config.data.path=FILE", "--config.data.split=line")
CHANGED = {
    ("resume.md", "train"): TEXT,  # the quickstart's text is longer
    ("judge.md", "bench"): ("--nomauve",),
    ("watch.md", "watch"): ("--once",),
}
# Answers with a line, as nothing of the kind is there.
REFUSED = {("resume.md", "replay"): "no skipped update 1200"}
# Needs what is not here. Their flags are read all the same.
UNTYPED = {
    "bucket.md": "a store: tests/faults, tests/runs/test_buckets.py",
    "hosts.md": "hosts: tests/training/test_distributed.py, tests/planning",
    "import.md": "checkpoints of others: tests/interop",
    "lm_eval.md": "the harness: tests/interop",
    "target.md": "minutes: tests/cli/test_energy.py",
    "publish.md": "a hub: tests/interop/test_publish.py",
}


def commands(page: Path) -> list[list[str]]:
    """Words of every command of a page, in order."""
    return [shlex.split(x.replace("\\\n", " "))[3:] for x in TYPED.findall(page.read_text())]


def trained(workdir: str, method: str, *flags: str) -> None:
    config = f"--config=text:method={method}"
    tools.good("train", config, f"--workdir={workdir}", *TEXT, *TINY["train"], *flags)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What the pages take for granted, under the names that they give it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("howto")
        patch.chdir(folder)
        Path("FILE").write_text(tools.sentences(200))
        trained("DIR", "lddm_m", "--config.data.length=48")
        trained("runs/ar", "ar")
        for copy in ("A", "B", "BASE", "runs/first"):
            shutil.copytree("DIR", copy)
    return folder


def lines(page: str) -> list[dict[str, str]]:
    """What FILE.jsonl holds on a page."""
    texts = tools.sentences(60).splitlines()
    if page == "guide.md":
        return [{"text": x, "label": ("ham", "spam")[i % 2]} for i, x in enumerate(texts)]
    return [{"prompt": f"{i}", "response": x[:8]} for i, x in enumerate(texts)]


@pytest.fixture
def folder(runs, tmp_path, monkeypatch, request):
    """A folder of the page's own; a page that trains DIR does not find it there."""
    page = request.node.callspec.params["page"]
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    makes = any(c[0] in ("train", "import") and "--workdir=DIR" in c for c in commands(page))
    if makes:
        shutil.rmtree(tmp_path / "DIR")
    text = "".join(f"{json.dumps(x)}\n" for x in lines(page.name))
    (tmp_path / "FILE.jsonl").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pages_that_are_not_typed_are_there():
    assert set(UNTYPED) <= {p.name for p in PAGES} and len(PAGES) - len(UNTYPED) > 10


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in UNTYPED], ids=lambda p: p.stem)
def test_commands_run_as_written(folder, page):
    typed = commands(page)
    assert typed
    for words in typed:
        name = words[0]
        done = tools.call(*words, *TINY.get(name, ()), *CHANGED.get((page.name, name), ()))
        refused = REFUSED.get((page.name, name))
        assert done.status == (2 if refused else 0) and (refused or "") in done.err, done
    script = folder / "page.py"
    script.write_text("\n".join(PYTHON.findall(page.read_text())))
    runpy.run_path(str(script))
