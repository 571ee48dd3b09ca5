"""Classes that are dropped in training and guide in sampling, from the command line."""

from __future__ import annotations

import json
import random

import pytest

from tests.cli import tools

LETTERS = {"vowels": "aeiou", "consonants": "bcdfg"}
CONFIG = tools.ROOT / "configs" / "labelled.py"


@pytest.fixture(scope="module")
def classed(tmp_path_factory):
    """Documents of two classes, told apart by their letters; a few letters are of the other."""
    draw, folder = random.Random(0), tmp_path_factory.mktemp("classed")
    path, lines = folder / "text.jsonl", []
    for i in range(600):
        label = ("vowels", "consonants")[i % 2]
        other = ("consonants", "vowels")[i % 2]
        letters = LETTERS[label] * 4 + LETTERS[other]
        text = "".join(draw.choice(letters) for _ in range(15))
        lines.append(json.dumps({"text": text, "label": label}))
    path.write_text("\n".join(lines) + "\n")
    return path


def train(path, workdir, *flags, classes="vowels+consonants", method="lddm_m"):
    config = f"--config={CONFIG}:method={method},classes={classes}"
    return tools.call(
        "train", config, f"--config.data.path={path}", f"--workdir={workdir}", *tools.SIZES, *flags
    )


@pytest.fixture(scope="module")
def workdir(classed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    flags = ("--config.training.num_steps=150", "--config.training.batch_size=32",
             "--config.optim.warmup_steps=10", "--config.optim.lr=1e-2",
             "--config.training.ema_decay=0.9", "--config.training.checkpoint_every=0",
             "--config.training.eval_every=0", "--config.training.sample_every=0")  # fmt: skip
    assert train(classed, folder, *flags).status == 0
    return folder


def share(workdir, *flags):
    """Of the letters, those of the vowels; and the calls of a sample."""
    tools.good("sample", f"--workdir={workdir}", "--num_samples=48", "--batch_size=48", *flags)
    records = tools.json_lines(workdir / "samples.jsonl")
    text = "".join(r["text"] for r in records)
    letters = [c for c in text if c in "aeioubcdfg"]
    return sum(c in "aeiou" for c in letters) / len(letters), records[0]["calls"]


@pytest.mark.slow
def test_a_class_guides(workdir):
    vowels, calls = share(workdir, "--label=vowels")
    consonants, _ = share(workdir, "--label=consonants")
    none, _ = share(workdir)
    assert vowels > 0.7 and consonants < 0.3 and 0.25 < none < 0.75
    strong, double = share(workdir, "--label=vowels", "--guidance=3")
    assert strong > vowels + 0.05 and double == 2 * calls
    record = tools.json_lines(workdir / "samples.jsonl")[0]
    assert record["label"] == "vowels" and record["settings"]["guidance"] == 3


@pytest.mark.slow
def test_refusals(workdir, classed, tmp_path):
    def refused(result, fragment):
        assert result.status == 2 and fragment in result.err, result
        assert len(result.err.strip().splitlines()) == 1

    sample = lambda *flags: tools.call("sample", f"--workdir={workdir}", *flags)
    refused(sample("--label=vowel"), "did you mean 'vowels'")
    refused(train(classed, tmp_path / "a", classes="vowels"), "'consonants' is not one of")
    refused(train(classed, tmp_path / "a", classes="vowels+consonants+x"), "class 'x' has no row")
    refused(
        train(classed, tmp_path / "a", "--config.model.num_classes=3"), "model.num_classes is 3"
    )
    refused(train(classed, tmp_path / "a", method="ar"), "condition_dropout")
    assert not (tmp_path / "a" / "config.json").exists()


def test_models_without_a_condition_refuse_guidance(trained):
    for flag, fragment in (
        ("--guidance=2", "never saw its condition missing"),
        ("--label=a", "trained without classes"),
    ):
        result = tools.call("sample", f"--workdir={trained('lddm_m')}", flag)
        assert result.status == 2 and fragment in result.err
