"""Tokens and a signal through the commands: all three tasks, a student, its grid, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.cli import tools
from tests.cli.test_refusals import refused

CONFIG = tools.ROOT / "configs" / "joint.py"
DATA = "--config.data.train_count=64", "--config.data.validation_count=24"
STEPS = (*tools.OPTIM, "--config.training.num_steps=6")
RUN = (*tools.SIZES, *STEPS)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A joint run with the latent."""
    workdir = tmp_path_factory.mktemp("joint") / "teacher"
    argument = f"--config={CONFIG}:method=lddm_joint"
    tools.good("train", argument, f"--workdir={workdir}", *RUN, *DATA)
    return workdir


@pytest.fixture(scope="module")
def pairs(teacher):
    """What it draws."""
    output = teacher.parent / "pairs.jsonl"
    flags = ("--num_samples=40", "--batch_size=8", f"--output={output}")
    tools.good("sample", f"--workdir={teacher}", *flags)
    return output


@pytest.mark.slow
def test_one_model_draws_both_and_either_given_the_other(teacher, pairs, tmp_path):
    rows = tools.json_lines(pairs)
    signal = np.asarray([r["signal"] for r in rows])
    assert signal.shape == (40, 16, 6) and np.isfinite(signal).all() and signal.std() > 0.1
    assert all(set(r["text"]) <= set("abcdef\ufffd") and r["calls"] == 5 for r in rows)
    assert rows[0]["settings"]["step"]["name"] == "joint_flow"
    for part in ("signal", "text"):
        output = tmp_path / f"{part}.jsonl"
        flags = (f"--given={part}:{pairs}", "--batch_size=8", "--seed=5", f"--output={output}")
        rule = ("--sampler=joint_flow:eta=2,purity=true",) if part == "text" else ()
        tools.good("sample", f"--workdir={teacher}", *flags, *rule)
        found = tools.json_lines(output)
        assert len(found) == 40
        for key in ("text", "signal"):
            same = [a[key] == b[key] for a, b in zip(found, rows)]
            assert all(same) if key == part else sum(same) < 20, (part, key)
    said = tools.good("evaluate", f"--workdir={teacher}").out
    assert "an upper bound for the sampler that runs two passes" in said
    assert "of tokens given their signal" in said
    # The same command goes on: its file is of the same settings, signals are a sample's own.
    tools.good("sample", f"--workdir={teacher}", "--num_samples=44", "--batch_size=8",
               f"--output={pairs}")  # fmt: skip
    assert [r["signal"] for r in tools.json_lines(pairs)][:40] == [r["signal"] for r in rows]


@pytest.mark.slow
def test_a_student_of_its_pairs(teacher, pairs, tmp_path):
    student = tmp_path / "student"
    argument = f"--config={CONFIG}:method=lddm_given,from={teacher}"
    flags = (f"--config.data.path={pairs}", "--config.data.validation_fraction=0.3")
    tools.good("train", argument, f"--workdir={student}", *RUN, *flags)
    lines = tools.json_lines(student / "training_samples.jsonl")
    assert all(len(r["signal"]) == 16 for r in lines)
    grid, output = tmp_path / "grid.json", tmp_path / "s.jsonl"
    few = ("--steps=2", "--num_samples=16")
    for workdir in (student, teacher):
        tools.good("distill", f"--workdir={workdir}", f"--output={grid}", *few)
        record = json.loads(grid.read_text())
        assert len(record["grid"]["times"]) == 3
    tools.good("sample", f"--workdir={student}", f"--grid={grid}", f"--given=signal:{pairs}",
               "--num_samples=6", f"--output={output}")  # fmt: skip
    rows, given = tools.json_lines(output), tools.json_lines(pairs)
    assert [r["signal"] for r in rows] == [r["signal"] for r in given[:6]]
    assert {r["calls"] for r in rows} == {2}
    said = tools.good("evaluate", f"--workdir={student}", "--bound=carried", "--steps=1,2").out
    assert said.count("the sampler that carries h for") == 2
    how = "draws tokens to a signal that is given; `sample --given=signal:FILE` does"
    refused(tools.call("sample", f"--workdir={student}"), how)
    refused(tools.call("sample", f"--workdir={student}", f"--given=text:{pairs}"), "give signal")


@pytest.mark.slow
def test_a_text_with_the_shapes_of_its_characters(tmp_path):
    text, work = tmp_path / "t.txt", f"--workdir={tmp_path / 'run'}"
    text.write_text(tools.sentences(200))
    argument = f"--config={CONFIG}:method=joint,data=shapes"
    tools.good("train", argument, work, *RUN, f"--config.data.path={text}")
    tools.good("sample", work, f"--output={tmp_path / 's.jsonl'}")
    rows = tools.json_lines(tmp_path / "s.jsonl")
    assert np.asarray([r["signal"] for r in rows]).shape == (3, 16, 6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv, words",
    [
        (("sample", "--prompt=ab"), "--prompt and --fill are for models of tokens alone"),
        (("sample", "--sampler=euler"), "sampler euler moves tokens alone"),
        (("sample", "--given=sound:x"), "give text or signal:FILE"),
        (("sample", "--given=signal:/no/such/file"), "/no/such/file"),
        (("sample", "--blocks=slide:size=8"), "is made whole"),
        (("sample", "--guidance=2"), "never saw its condition missing"),
        (("evaluate", "--bound=carried"), "it may take tokens back"),
        (("mechanism",), "is for models of tokens alone"),
        (("play",), "is for models of tokens alone"),
        (("report",), "is for models of tokens alone"),
        (("bench", "--output=b"), "bench is for models of tokens alone"),
    ],
)
def test_what_is_refused(argv, words, teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(tools.call(argv[0], f"--workdir={teacher}", *argv[1:]), words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "argument, overrides, words",
    [
        ("method=mdlm", (), "method 'mdlm' has no signal"),
        ("data=sound", (), "unknown data 'sound'"),
        ("noise=loud", (), "noise=loud"),
        ("channels=0", (), "channels=0"),
        ("from=/no/such/run", (), "/no/such/run"),
        ("", ("process.signal.channels=5",), "process.signal.channels is 5, but the network has 6"),
        ("", ("objective.share_forward=0.95",), "shares of the whole"),
        ("", ("model.time_conditioning=True",), "told always"),
        ("method=given", ("data.states=4",), "has 4 channels, but model.channels is 6"),
        ("data=pairs", (), "data.path is empty"),
    ],
)
def test_wrong_configs_are_refused(argument, overrides, words, tmp_path):
    work, flags = tmp_path / "run", [f"--config.{o}" for o in overrides]
    given = (f"--config={CONFIG}:{argument}", f"--workdir={work}", *DATA * ("data" not in argument))
    refused(tools.call("train", *given, *flags), words)
    assert not work.exists()


def test_a_text_model_takes_no_signal(text, trained, tmp_path):
    run = tools.call("sample", f"--workdir={trained('mdlm')}", "--given=signal:x.jsonl")
    refused(run, "this model is told no signal")
    flags = (*tools.corpus(text), *tools.SIZES, f"--workdir={tmp_path / 'run'}")
    refused(tools.call("train", tools.recipe("given"), *flags), "the network takes one")
