"""Finished samples are in the file at once; Ctrl-C keeps them, and the same command goes on."""

from __future__ import annotations

import json
import shutil

import pytest

from ldd_jax.cli.commands.sample_file import SampleFile
from ldd_jax.core import outputs
from ldd_jax.inference import generate
from tests.cli import tools

COMMON = {"seed": 1, "settings": {"a": (1, 2)}}


def record(number, **other):
    own = {"index": number, "text": f"t{number}\u2028", "calls": 4, "tokens": [number, 1]}
    return {**own, **COMMON, **other}


def open_file(path, count=4, common=COMMON):
    return SampleFile(outputs.place(path), common, 2, count)


def fill(path, numbers):
    file = open_file(path)
    for number in numbers:
        file.add(record(number))
    return file


def indices(path):
    return [json.loads(line)["index"] for line in path.read_text("utf-8").split("\n") if line]


def test_every_sample_is_there_at_once(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text("old\n")
    file = open_file(path)
    assert path.read_text() == "old\n"  # until the first one is finished
    for number in range(3):
        file.add(record(number))
        assert indices(path) == list(range(number + 1))


def test_the_same_command_goes_on(tmp_path):
    path = tmp_path / "s.jsonl"
    fill(path, range(2)).close()
    file = open_file(path)
    assert len(file.records) == 2
    file.add(record(2))
    assert indices(path) == [0, 1, 2]


def test_a_torn_line_is_drawn_again(tmp_path):
    path = tmp_path / "s.jsonl"
    fill(path, range(3)).close()
    path.write_bytes(path.read_bytes()[:-5])
    file = open_file(path)
    assert len(file.records) == 2
    file.add(record(2))
    assert indices(path) == [0, 1, 2]


@pytest.mark.parametrize(
    "line",
    [json.dumps(record(0, seed=2)), json.dumps(record(1)), "[]", "5", "{}", "x", "[" * 99999,
     json.dumps(record(0, tokens=[1])), json.dumps(record(0, calls="4")),
     json.dumps(record(0, more=1))],
)  # fmt: skip
def test_what_is_of_no_such_command_is_replaced(line, tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text(line + "\n")
    file = open_file(path)
    assert file.records == []
    file.add(record(0))
    assert indices(path) == [0]


def test_a_whole_file_is_drawn_anew(tmp_path):
    path = tmp_path / "s.jsonl"
    fill(path, range(4)).close()
    assert open_file(path).records == [] and len(open_file(path, count=5).records) == 4


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained("mdlm"), tmp_path / "copy")


@pytest.mark.slow
def test_an_interrupted_command(copy, monkeypatch):
    given = ("sample", f"--workdir={copy}", "--num_samples=7", "--steps=2", "--batch_size=3")
    tools.good(*given)
    whole = (copy / "samples.jsonl").read_bytes()
    (copy / "samples.jsonl").unlink()
    plain = generate.Sampler.batch

    def interrupted(self, params, seed, first, *args):
        if first == 3:
            raise KeyboardInterrupt
        return plain(self, params, seed, first, *args)

    with monkeypatch.context() as patch:
        patch.setattr(generate.Sampler, "batch", interrupted)
        out = tools.call(*given)
    assert out.status == 1 and "3 of 7 samples are in" in out.err, out
    assert whole.startswith((copy / "samples.jsonl").read_bytes())
    assert indices(copy / "samples.jsonl") == [0, 1, 2]
    out = tools.good(*given)
    assert "has 3 samples of this command already" in out.err
    assert (copy / "samples.jsonl").read_bytes() == whole


@pytest.mark.slow
def test_samples_of_training_have_a_name_of_their_own(copy, train_flags):
    """`sample` leaves them alone, and a run that goes on drops and repeats none."""
    path = copy / "training_samples.jsonl"
    before = path.read_bytes()
    lines = tools.json_lines(path)
    assert [(r["step"], r["index"]) for r in lines] == [(12, 0), (12, 1), (12, 2)]
    texts = tools.curve(copy)[-1]["samples"].split("\n")
    assert "\n".join(r["text"] for r in lines).split("\n") == texts
    tools.good("sample", f"--workdir={copy}", "--num_samples=1", "--steps=2")
    assert path.read_bytes() == before
    tools.good("train", tools.recipe("mdlm"), f"--workdir={copy}", *train_flags)
    assert path.read_bytes() == before
