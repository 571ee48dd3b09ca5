"""Terminals that know ASCII alone, and pipes whose reader leaves: no run ends of either."""

from __future__ import annotations

import contextlib
import io
import json
import shutil

import pytest

from ldd_jax.cli.main import main
from tests.cli import tools

BYTES = f"--config={tools.ROOT / 'configs' / 'text.py'}:method=mdlm,tokenizer=bytes"


@pytest.mark.slow
def test_a_byte_level_run_on_an_ascii_terminal(tmp_path, train_flags):
    """A sample of nearly random bytes has letters that ASCII has not."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    short = ("--config.training.num_steps=2", "--config.training.sample_every=1")
    workdir = tmp_path / "run"
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert main(["train", BYTES, f"--workdir={workdir}", *train_flags, *short]) == 0
        assert main(["sample", f"--workdir={workdir}"]) == 0
    out.flush()
    assert b"sample" in out.buffer.getvalue() and (workdir / "summary.json").exists()
    texts = [r["text"] for r in tools.json_lines(workdir / "samples.jsonl")]
    assert any(not t.isascii() for t in texts)


@pytest.mark.slow
def test_a_pipe_whose_reader_leaves(tmp_path, trained, train_flags):
    """`train | head -1`, `sample | head -1`: all is done and kept, with exit status 0."""
    copy = shutil.copytree(trained("mdlm"), tmp_path / "copy")
    more = ("--config.training.num_steps=14", "--config.training.log_every=1")
    given = ("train", tools.recipe("mdlm"), f"--workdir={copy}", *train_flags, *more)
    for command in (given, ("sample", f"--workdir={copy}", "--num_samples=5")):
        running = tools.start(*command)
        running.stdout.readline()
        running.stdout.close()
        errors = running.stderr.read()
        assert running.wait(120) == 0, errors
        assert "Broken pipe" not in errors and "Error" not in errors
    assert json.loads((copy / "summary.json").read_text())["step"] == 14
    assert len(tools.json_lines(copy / "samples.jsonl")) == 5


@pytest.mark.slow
def test_a_config_that_steers_terminals(tmp_path, trained):
    """What a stranger's config and folder are called is shown, not obeyed."""
    copy = shutil.copytree(trained("mdlm"), tmp_path / "copy\x1b]0;x\x07")
    config = json.loads((copy / "config.json").read_text())
    config["recipe"] = "evil\x1b[2J\u202e"
    (copy / "config.json").write_text(json.dumps(config))
    found = tools.good("mechanism", f"--workdir={copy}", "--num_samples=1", "--steps=2")
    assert "evil\u241b[2J" in found.out
    assert "\x1b" not in found.out + found.err and "\u202e" not in found.out + found.err
