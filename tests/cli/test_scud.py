"""Counted events through the commands: kernels by name, from a matrix, from an embedding."""

from __future__ import annotations

import json

import pytest

from tests.cli import tools
from tests.cli.test_refusals import refused

CONFIG = tools.ROOT / "configs" / "scud.py"
STEPS = (*tools.OPTIM, "--config.training.num_steps=6")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_text(tools.sentences(200))
    return path


@pytest.mark.slow
def test_train_evaluate_sample_bench(text, tmp_path):
    """A band with the latent, then the neighbours that its embedding knows."""
    given, first = (*tools.SIZES, *STEPS, f"--config.data.path={text}"), tmp_path / "first"
    tools.good("train", f"--config={CONFIG}:method=lddm_scud,kernel=band",
               f"--workdir={first}", *given)  # fmt: skip
    said = tools.good("evaluate", f"--workdir={first}").out
    assert "2 passes" in said and "an upper bound" in said
    output = tmp_path / "s.jsonl"
    for rule, most in ("", 64), ("--sampler=events:most_calls=3", 3):
        tools.good("sample", f"--workdir={first}", f"--output={output}", *filter(None, [rule]))
        rows = tools.json_lines(output)
        assert all(1 <= r["calls"] <= most and len(r["tokens"]) == 16 for r in rows)
        assert rows[0]["settings"]["step"] == {"name": "events", "most_calls": most}
    prompt = tools.sentences(1)[:5]
    tools.good("sample", f"--workdir={first}", f"--output={output}", f"--prompt={prompt}")
    assert all(r["text"].startswith(prompt) for r in tools.json_lines(output))
    tools.good("bench", f"--workdir={first}", f"--output={tmp_path / 'bench'}", "--num_samples=2",
               "--samplers=events:most_calls=2", "--latents=carry")  # fmt: skip
    cell = tools.json_lines(tmp_path / "bench" / "cells.jsonl")[-1]
    assert cell["sampler"] == "events:most_calls=2" and cell["calls"] == 2
    sampled = tools.call("sample", f"--workdir={first}", "--sampler=ancestral")
    assert sampled.status == 2 and "counts events (use events)" in sampled.err
    learned = ("--steps=4", f"--output={tmp_path / 'd.json'}")
    refused(tools.call("distill", f"--workdir={first}", *learned), "counts events")

    second = tmp_path / "second"
    tools.good("train", f"--config={CONFIG}:kernel=neighbours,from={first},near=3",
               f"--workdir={second}", *given)  # fmt: skip
    kernel = json.loads((second / "config.json").read_text())["process"]["kernel"]
    assert kernel["name"] == "neighbours" and all(len(row) == 3 for row in kernel["near"])
    tools.good("sample", f"--workdir={second}", f"--output={output}")


@pytest.mark.parametrize(
    "argument, override, why",
    [
        ("", "process.gamma=1.0", "must lie in"),
        ("kernel=masked", "process.gamma=0.5", "leave gamma"),
        ("kernel=circle", "seed=0", "unknown kernel 'circle'"),
        ("method=udlm", "seed=0", "has no kernel"),
        ("kernel=neighbours", "seed=0", "give from=WORKDIR"),
        ("kernel=band", "process.kernel.shape=round", "gaussian"),
        ("", "process.schedule.eps=0.0", "leaves nothing"),
        ("", "objective.times.eps=2.0", "eps"),
    ],
)
def test_wrong_configs_are_refused_before_a_text_is_read(text, argument, override, why, tmp_path):
    work = tmp_path / "run"
    given = (f"--config.{override}", f"--workdir={work}", f"--config.data.path={text}")
    refused(tools.call("train", f"--config={CONFIG}:{argument}", *given), why)
    assert not work.exists()


def test_a_band_of_too_many_symbols_is_refused_when_they_are_known(text, tmp_path):
    """Not before: the most symbols that a text may have are more than any matrix holds."""
    work = tmp_path / "run"
    given = ("--config.process.gamma=0.9999", f"--config.data.path={text}", f"--workdir={work}")
    refused(tools.call("train", f"--config={CONFIG}:kernel=band", *given), "until it is forgotten")
    assert not work.exists()
