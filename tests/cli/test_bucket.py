"""A run, its data and what is made of it in a bucket: the same to the bit as in a folder."""

from __future__ import annotations

import json

import pytest
from safetensors.numpy import load_file

from ldd_jax.core import storage
from ldd_jax.core.checks import UserError
from ldd_jax.core.storage import at
from ldd_jax.data.prepared import read_prepared
from tests.cli import tools
from tests.cli.test_refusals import refused


def command(text, train_flags, *more):
    return ("train", tools.recipe("mdlm"), "--workdir=memory://b/run", *train_flags, *more)


def fetched(place, tmp_path):
    """A copy of a workdir in the bucket."""
    return at(place).download(tmp_path / "copy")


@pytest.mark.slow
def test_a_run_is_resumed_evaluated_and_sampled(
    bucket, faulty, monkeypatch, text, train_flags, trained, tmp_path
):
    monkeypatch.chdir(tmp_path)
    train = command(text, train_flags)
    faulty(OSError("503 Slow Down"), "pipe_file", where="metrics")
    failed = tools.call(*train)
    assert failed.status == 1 and failed.err.count("\n") == 1, failed
    assert not (bucket / "run" / "checkpoints" / "5").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    faulty(OSError("503 Slow Down"), "put_file", where="checkpoints/10/params")
    failed = tools.call(*train)
    assert failed.status == 1 and failed.err.count("\n") == 1, failed
    assert "503 Slow Down" in failed.err and "the same command goes on" in failed.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    again = tools.good(*train)
    assert "updates 5 to 12" in again.out, again.out
    mine, local = fetched("memory://b/run", tmp_path), trained("mdlm")
    assert tools.curve(mine) == tools.curve(local)
    # The folder is shared: other tests may have left samples there, and its lock stays.
    made = {p.name for p in local.iterdir()} - {"lock", "samples.jsonl", "report.html"}
    assert {p.name for p in mine.iterdir()} == made
    assert [p.name for p in sorted((mine / "checkpoints").iterdir())] == ["10", "12"]
    events = [sorted((w / "tensorboard").iterdir())[-1].read_bytes() for w in (mine, local)]
    assert events[0].count(b"validation/") == events[1].count(b"validation/") > 0
    sample = ("sample", "--num_samples=2", "--steps=4")
    one = tools.good(*sample, "--workdir=memory://b/run", "--output=memory://b/s.jsonl")
    two = tools.good(*sample, f"--workdir={local}", f"--output={tmp_path / 's.jsonl'}")
    del one, two
    assert at("memory://b/s.jsonl").read_bytes() == (tmp_path / "s.jsonl").read_bytes()
    assert (
        tools.good("evaluate", "--workdir=memory://b/run").out
        == tools.good("evaluate", f"--workdir={local}").out
    )
    assert not (tmp_path / "memory:").exists()


def test_prepared_shards_and_sources_are_those_of_a_folder(bucket, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (bucket / "text" / "one.txt").put(text.read_bytes())
    prepare = ("prepare", "--config=text", "--config.data.split=line", "--config.data.length=16")
    far = tools.good(*prepare, "--config.data.path=memory://b/text/*.txt", "--output=memory://b/d")
    here = tools.good(*prepare, f"--config.data.path={text}", f"--output={tmp_path / 'd'}")
    strip = lambda said: said.partition("(")[2]
    assert strip(far.out) == strip(here.out)
    copy = at("memory://b/d").download(tmp_path / "copy")
    for path in sorted(p for p in (tmp_path / "d").rglob("*") if p.is_file()):
        mine, other = (f / path.relative_to(tmp_path / "d") for f in (copy, tmp_path / "d"))
        if path.name == "manifest.json":
            found = [json.loads(p.read_text()) for p in (mine, other)]
            assert found[0].pop("source") == "memory://b/text/*.txt" and found[1].pop("source")
            assert found[0] == found[1]
        else:
            assert mine.read_bytes() == other.read_bytes()
    rows = [read_prepared(p).rows["train"] for p in ("memory://b/d", tmp_path / "d")]
    assert len(rows[0]) == len(rows[1]) and all(
        (rows[0][i]["tokens"] == rows[1][i]["tokens"]).all() for i in range(0, len(rows[0]), 50)
    )
    refused(tools.call(*prepare, f"--config.data.path={text}", "--output=memory://b/d"), "empty")
    plan = ("plan", "--config=text", "--what=parameters", "--json")
    planned = [tools.good(*plan, f"--config.data.path={p}").out for p in ("memory://b/d", "d")]
    assert planned[0] == planned[1]
    (bucket / "d" / "train-00000-of-00004.array_record").put(b"torn")
    with pytest.raises(UserError, match="its manifest says"):
        read_prepared("memory://b/d")
    assert {p.name for p in tmp_path.iterdir()} == {"d", "copy"}


@pytest.mark.parametrize("error", [PermissionError("403"), OSError("503")])
def test_a_bucket_that_refuses_is_one_line(bucket, faulty, text, train_flags, error):
    faulty(error, "exists", "isfile", "isdir", "ls", "info", "pipe_file", "put_file", "cat_file")
    for argv in (
        command(text, train_flags),
        ("evaluate", "--workdir=memory://b/run"),
        ("watch", "--once", "--workdir=memory://b/run"),
        ("prepare", "--config=text", "--config.data.path=memory://b/x", "--output=memory://b/d"),
        ("prepare", "--config=text", f"--config.data.path={text}", "--output=memory://b/d"),
    ):
        found = tools.call(*argv)
        assert found.status in (1, 2) and found.err.count("\n") == 1, found
        assert "memory://b" in found.err and "Traceback" not in found.err, found


@pytest.mark.slow
def test_what_is_made_of_a_run(bucket, trained, tmp_path, monkeypatch):
    local = trained("mdlm")
    monkeypatch.chdir(tmp_path)
    (bucket / "run").upload(local)
    tools.good("export", "--workdir=memory://b/run", "--output=memory://b/out")
    tools.good("export", f"--workdir={local}", f"--output={tmp_path / 'out'}")
    for name in ("config.json", "README.md"):
        assert (bucket / "out" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    files = (storage.local(p / "out" / "model.safetensors") for p in (bucket, tmp_path))
    mine, other = map(load_file, files)
    assert mine.keys() == other.keys() and all((mine[n] == other[n]).all() for n in mine)
    said = tools.good("import", "memory://b/out", "--workdir=memory://b/again")
    assert "tensors come back byte for byte" in said.out
    tools.good("sample", "--workdir=memory://b/again", "--num_samples=1", "--steps=2")
    tools.good("publish", "--workdir=memory://b/run", "--output=memory://b/page", "--samples=1")
    assert b"memory://" not in (bucket / "page" / "README.md").read_bytes()
    tools.good("report", "--workdir=memory://b/run")
    assert b"<html" in (bucket / "run" / "report.html").read_bytes()[:400]
    assert "mdlm" in tools.good("watch", "--once", "--workdir=memory://b/run").out
    assert {p.name for p in tmp_path.iterdir()} == {"out"}


@pytest.mark.slow
def test_samples_are_judged_and_runs_compared(bucket, trained, tmp_path, monkeypatch):
    """What is read may lie in a bucket, a judge's folder too; the figures are those of a folder."""
    monkeypatch.chdir(tmp_path)
    places = {"run": trained("mdlm"), "ar": trained("ar"), "s.jsonl": tmp_path / "s.jsonl"}
    tools.good("sample", f"--workdir={places['run']}", "--num_samples=3", "--output=s.jsonl")
    for name, local in places.items():
        (bucket / name).upload(local)
    far = {name: f"memory://b/{name}" for name in places}
    found = {}
    for where, place in (("far", far), ("here", places)):
        output = "memory://b/told.json" if where == "far" else tmp_path / "told.json"
        judged = ("gen-ppl", place["s.jsonl"], f"--judge={place['ar']}", f"--output={output}")
        said = tools.good(*judged, f"--reference={place['s.jsonl']}").out
        told = json.loads(at(output).read_bytes())
        assert told.pop("file") == str(place["s.jsonl"])
        given = (f"--workdir={place['run']}", f"--judge={place['ar']}", "--latents=off")
        tools.good("bench", *given, "--steps=2", "--num_samples=3", f"--output={where}")
        cells = tools.json_lines(tmp_path / where / "cells.jsonl")
        own = [(c["sampler"], c["judge_nats"], c["calls"], c["sample"]) for c in cells]
        found[where] = said, told, own
    assert found["far"] == found["here"]
    assert {p.name for p in tmp_path.iterdir()} == {"s.jsonl", "told.json", "far", "here"}


def test_what_is_written_locally_alone_is_refused_in_a_line(bucket):
    config = ("--config=text", "--config.data.path=x")
    for argv, flag in (
        (("bench", "--workdir=memory://b/run", "--output=memory://b/o"), "--output"),
        (("lm-eval", "--workdir=memory://b/run", "--tasks=t", "--include=gs://b/t"), "--include"),
        (("lm-eval", "--workdir=s3://b/r", "--tasks=t", "--output_path=s3://b/o"), "--output_path"),
        (("plan", *config, "--topology=gs://b/t"), "--topology"),
        (("lab", "--plot=gs://b/p.png"), "--plot"),
    ):
        refused(tools.call(*argv), f"{flag}=", "only local files can be given here")


@pytest.mark.parametrize(
    "argv",
    [
        ("bench", "--workdir=memory://b/run,memory://b/two", "--output=o"),
        ("gen-ppl", "memory://b/none.jsonl", "--workdir=memory://b/run"),
        ("gen-ppl", "memory://b/there.jsonl", "--judge=memory://b/none"),
        ("lm-eval", "--workdir=memory://b/run", "--tasks=t"),
    ],
)
def test_what_is_not_in_the_bucket_is_a_line(bucket, argv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (bucket / "there.jsonl").put(b"a text")
    said = tools.call(*argv)
    refused(said)
    assert "only local files" not in said.err, said
