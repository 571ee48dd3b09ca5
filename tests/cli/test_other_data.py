"""What belongs to a file stays with it, and what a longer run or fewer sequences change is told."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from ldd_jax.cli.command_line import parse
from ldd_jax.cli.commands.train import TRAIN
from tests.cli import tools


@pytest.fixture
def with_validation_file(trained, tmp_path):
    """A run whose data section names a validation file and a number of documents."""
    workdir, held = tmp_path / "run", tmp_path / "held.txt"
    shutil.copytree(trained("mdlm"), workdir)
    held.write_text(tools.sentences(60, seed=9))
    config = json.loads((workdir / "config.json").read_text())
    config["data"] |= {"validation_path": str(held), "max_documents": 50}
    (workdir / "config.json").write_text(json.dumps(config))
    return workdir


def test_another_text_is_scored_itself_and_whole(with_validation_file, tmp_path):
    """Not the run's validation file, and not a share of the text, nor its first documents."""
    other, output = tmp_path / "other.txt", tmp_path / "bounds.jsonl"
    other.write_text("river bank the quiet old day\n" * 90)
    flags = (f"--output={output}", "--max_sequences=0", "--draws=1")
    workdir = f"--workdir={with_validation_file}"
    run = tools.good("evaluate", workdir, f"--data={other}", *flags)
    characters = 90 * (len("river bank the quiet old day") + 1)  # an EOS ends each line
    assert f"all: 90 documents, {characters:,} tokens" in run.out and str(other) in run.out
    (record,) = tools.json_lines(output)
    assert record["tokens"] == characters // 16 * 16 and record["data"] == str(other)
    tools.good("evaluate", workdir, *flags)
    (own,) = tools.json_lines(output)
    assert own["tokens"] != record["tokens"] and own["data"] != str(other)


def test_evaluate_scores_just_so_many_sequences(trained, tmp_path):
    output = tmp_path / "bounds.jsonl"
    flags = ("--max_sequences=7", f"--output={output}")
    run = tools.good("evaluate", f"--workdir={trained('mdlm')}", *flags)
    (record,) = tools.json_lines(output)
    assert record["sequences"] == 7 and f"7 of {record['sequences_available']} seq" in run.out
    bad = tools.call("evaluate", f"--workdir={trained('mdlm')}", "--max_sequences=-1")
    assert bad.status == 2 and "must be 0 (all) or more" in bad.err


def test_settings_of_a_file_do_not_travel_to_another(with_validation_file):
    """Fine-tuning: they stay with the path of the first run, unless they are given again."""
    old = json.loads((with_validation_file / "config.json").read_text())["data"]
    read = lambda **data: fine_tuned(with_validation_file, **data)
    same = read()
    assert {k: same[k] for k in old} == {k: tuple(v) if type(v) is list else v for k, v in
                                         old.items()}  # fmt: skip
    other = read(path="new.txt")
    assert (other["validation_path"], other["max_documents"]) == ("", 0)
    assert other["split"] == old["split"] == "line"
    given = read(path="new.txt", validation_path="held.txt", max_documents=7)
    assert (given["validation_path"], given["max_documents"]) == ("held.txt", 7)


def fine_tuned(workdir, **data):
    """The data section that `train` gets, as typed."""
    flags = [f"--config.data.{name}={value}" for name, value in data.items()]
    argument = f"--config={tools.ROOT}/configs/finetune.py:from={workdir}"
    return parse("train", TRAIN, [argument, *flags]).config.to_dict()["data"]


@pytest.mark.slow
def test_a_lengthened_run_tells_the_rate_on_both_sides(trained, train_flags, tmp_path):
    """Cosine decay ends at 0 after 12 updates and stands high again at the 13th of 24."""
    workdir = tmp_path / "run"
    shutil.copytree(trained("mdlm"), workdir)
    flags = (*train_flags, "--config.training.num_steps=24")
    run = tools.good("train", tools.recipe("mdlm"), f"--workdir={workdir}", *flags)
    lines = tools.json_lines(workdir / "metrics.jsonl")
    rates = {r["step"]: r["learning_rate"] for r in lines if "train_loss" in r}
    assert list(rates) == [3, 6, 9, 12, 15, 18, 21, 24]
    assert rates[3] == pytest.approx(3e-3 * 3 / 4)  # warming up over 4 updates
    assert rates[12] == pytest.approx(3e-3 * (1 + math.cos(math.pi * 7 / 8)) / 2, rel=1e-4)
    (line,) = [x for x in run.out.splitlines() if x.startswith("learning rate")]
    now = 3e-3 * (1 + math.cos(math.pi * 8 / 20)) / 2
    assert f"{rates[12]:.3g} at update 12" in line and f"{now:.3g} at update 13" in line
    again = tools.good("train", tools.recipe("mdlm"), f"--workdir={workdir}", *flags)
    assert "learning rate" not in again.out
