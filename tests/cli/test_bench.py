"""bench and gen-ppl: the cells, what is shared and resumed, a kill, the page, and refusals."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import signal
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.bench import baselines, cells, judging, report, rows, run, timing
from ldd_jax.config import experiment
from ldd_jax.config.sections import Sampling
from ldd_jax.core.checks import UserError
from ldd_jax.core.registry import _CLASSES, register
from ldd_jax.evaluation import mauve, quality
from ldd_jax.inference import generate, json_lines, loading
from ldd_jax.samplers import Cached, Chained, Dual, Fill, Slide, Step, Still, Whole
from tests.cli import tools

pytestmark = pytest.mark.slow  # three runs are trained for it

FIELDS = {
    "sampler",
    "process",
    "workdir",
    "recipe",
    "group",
    "config",
    "checkpoint",
    "model_seed",
    "steps",
    "calls",
    "temperature",
    "latent",
    "seed",
    "samples",
    "length",
    "seconds",
    "tokens_per_s",
    "latency_s",
    "first_s",
    "row_tokens_per_s",
    "entropy",
    "entropy_se",
    "distinct",
    "self_bleu",
    "repetition",
    "judge",
    "judge_nats",
    "judge_nats_se",
    "judge_ppl",
    "judge_ppl_low",
    "judge_ppl_high",
    "judges",
    "sample",
}
TIMES = ("seconds", "tokens_per_s", "latency_s", "first_s", "row_tokens_per_s")
FEW = ("--steps=2,3", "--num_samples=5")


@pytest.fixture(scope="module")
def workdirs(trained):
    return f"--workdir={trained('lddm_m')},{trained('udlm')}", f"--workdir={trained('ar')}"


@pytest.fixture(scope="module")
def benched(workdirs, trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("bench") / "out"
    judge = f"--judge={trained('ar')},ngram"
    argv = ("bench", *workdirs, *FEW, "--seeds=0,7", judge, f"--output={output}")
    return argv, output, tools.good(*argv)


def timeless(path):
    return [{k: v for k, v in c.items() if k not in TIMES} for c in tools.json_lines(path)]


def test_every_cell_is_there_and_whole(benched):
    _, output, result = benched
    found = tools.json_lines(output / "cells.jsonl")
    real = [c for c in found if c["workdir"]]
    key = lambda c: tuple(c[k] for k in ("workdir", "sampler", "latent", "steps", "seed"))
    grid = {
        (w, "ancestral", latent, n, seed)
        for w, latent in (("lddm_m", "carry"), ("lddm_m", "off"), ("udlm", "none"))
        for n in (2, 3)
        for seed in (0, 7)
    } | {("ar", "next_token", "none", None, seed) for seed in (0, 7)}
    assert {key(c) for c in real} == grid and len(real) == len(grid)
    rest = [(c["sampler"], c["seed"]) for c in found if not c["workdir"]]
    assert sorted(rest) == sorted((n, s) for n in ("data", "unigram", "frequent") for s in (0, 7))
    for cell in real:
        assert set(cell) >= FIELDS
        removal = cell["workdir"] == "udlm"  # no mask is left to the others
        assert cell["calls"] == (16 if cell["steps"] is None else cell["steps"] + removal)
        assert cell["samples"] == 5 and cell["length"] == 16 and cell["tokens_per_s"] > 0
        assert cell["row_tokens_per_s"] == pytest.approx(16 / cell["latency_s"])
        in_one = cell["first_s"] == cell["latency_s"]
        assert in_one == (cell["workdir"] != "ar") and cell["first_s"] > 0
        assert cell["judge"] == "ar" and set(cell["judges"]) == {"ar", "ngram"}
        assert cell["judge_ppl"] == pytest.approx(math.exp(cell["judge_nats"]))
        assert cell["judge_ppl_low"] <= cell["judge_ppl"] <= cell["judge_ppl_high"]
        assert cell["judges"]["ar"]["tokens"] == 5 * 16
    assert (output / "frontier.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (output / "table.md").read_text().strip() in result.out


def test_a_cell_holds_what_sample_draws(benched, trained):
    """The first sample is that of `sample` with the same settings; entropy is of all five."""
    _, output, _ = benched
    cell = next(
        c
        for c in tools.json_lines(output / "cells.jsonl")
        if (c["workdir"], c["latent"], c["steps"], c["seed"]) == ("lddm_m", "off", 3, 7)
    )
    out = output.parent / "same.jsonl"
    flags = ("--latent=off", "--steps=3", "--seed=7", "--num_samples=5", f"--output={out}")
    tools.good("sample", f"--workdir={trained('lddm_m')}", *flags)
    records = tools.json_lines(out)
    assert cell["sample"] == records[0]["text"]
    rows = [np.asarray(r["tokens"]) for r in records]
    assert cell["entropy"] == pytest.approx(quality.unigram_entropy(rows).mean())
    run_ = tools.good("gen-ppl", out, f"--judge={trained('ar')}", f"--output={out}.json")
    (told,) = tools.json_lines(out.with_name(out.name + ".json"))
    assert told["nats"] == pytest.approx(cell["judge_nats"], rel=1e-6)
    assert told["self_bleu"] == pytest.approx(cell["self_bleu"])
    assert "gen_ppl[ar] of 5 samples, by their own ids" in run_.out


def test_the_same_command_changes_nothing_and_more_steps_only_add(benched, tmp_path):
    argv, output, _ = benched
    before = (output / "cells.jsonl").read_bytes()
    began = time.monotonic()
    tools.good(*argv)
    assert (output / "cells.jsonl").read_bytes() == before and time.monotonic() - began < 30
    copy = tmp_path / "more"
    copy.mkdir()
    for name in ("bench.json", "cells.jsonl"):
        (copy / name).write_bytes((output / name).read_bytes())
    more = [a.replace("2,3", "3,5") if a.startswith("--steps") else a for a in argv[:-1]]
    tools.good(*more, f"--output={copy}")
    after = (copy / "cells.jsonl").read_bytes()
    new = [json.loads(line) for line in after[len(before) :].decode().splitlines()]
    assert after.startswith(before) and len(new) == 6 and {c["steps"] for c in new} == {5}
    refused = tools.call(*[a.replace("=5", "=6") if "num" in a else a for a in argv])
    assert refused.status == 2 and "num_samples: 5 there, 6 given" in refused.err


@pytest.mark.slow
def test_one_program_for_all_steps_and_seeds(trained, tmp_path):
    """Runs that differ in their seed alone share theirs too."""
    twin = tmp_path / "twin"
    twin.mkdir()
    for name in ("tokenizer", "checkpoints"):
        (twin / name).symlink_to(trained("lddm_m") / name)
    config = json.loads((trained("lddm_m") / "config.json").read_text()) | {"seed": 5}
    (twin / "config.json").write_text(json.dumps(config))
    bench = run.Bench(
        run.Settings(
            workdirs=[trained("lddm_m"), twin],
            output=tmp_path / "out",
            samplers=["ancestral", "ancestral:top_p=0.9"],
            steps=[2, 5],
            temperatures=[1.0],
            latents=["carry"],
            seeds=[0, 1],
            judges=["ngram"],
            num_samples=4,
        )
    )
    found = bench.execute()
    assert len([c for c in found if c["workdir"]]) == 2 * 2 * 2 * 2
    assert [p.compiled._cache_size() for p in bench._programs.values()] == [1, 1]
    table = rows.gathered(found)
    assert [len(r.cells) for r in table if r.model] == [4] * 4  # two runs and two seeds a row


@pytest.fixture
def newcomer():
    @register("step", "all_at_once")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class AllAtOnce(Step):
        token: int = 1
        calls = 0

        def __call__(self, net, state, s, draw, segment):
            return state._replace(z=jnp.full_like(state.z, self.token))

    yield
    del _CLASSES["step"]["all_at_once"]


def test_a_new_step_is_benched_by_its_name(newcomer, trained, tmp_path):
    samplers = "--samplers=all_at_once:token=2:temperature=0.5"
    output = f"--output={tmp_path / 'out'}"
    run_ = tools.good("bench", f"--workdir={trained('mdlm')}", samplers, *FEW, output)
    found = [c for c in tools.json_lines(tmp_path / "out" / "cells.jsonl") if c["workdir"]]
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()  # of the file that registers it
    name = f"all_at_once:token=2:temperature=0.5@{code[:8]}"
    assert [c["sampler"] for c in found] == [name] * 2
    assert found[0]["temperature"] == 0.5 and found[0]["entropy"] == 0
    output = f"--output={tmp_path / 'next'}"
    run_ = tools.good("bench", f"--workdir={trained('ar')}", "--samplers=all", *FEW, output)
    assert "left out: ancestral on method=ar" in run_.err and "no reverse diffusion" in run_.err


@pytest.mark.slow
def test_killed_and_restarted(trained, tmp_path):
    """SIGKILL after some cells; the same command keeps them all and ends as if never killed."""
    argv = (
        *("bench", f"--workdir={trained('mdlm')}", "--num_samples=3", "--seeds=0,1,2"),
        "--steps=" + ",".join(map(str, range(60, 72))),
    )
    torn = tmp_path / "torn"
    path = torn / "cells.jsonl"
    running = tools.start(*argv, f"--output={torn}")
    count = lambda: path.read_text().count("\n") if path.exists() else 0
    until = time.monotonic() + 120
    while count() < 9 + 2:  # the baselines and two cells
        assert running.poll() is None and time.monotonic() < until, running.communicate()
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    kept = path.read_bytes()
    assert kept.endswith(b"\n") and 11 <= count() < 9 + 36
    (torn / f".ldd_jax-{'0' * 16}.partial").write_text("torn in the middle of a wri")
    tools.good(*argv, f"--output={torn}")
    assert path.read_bytes().startswith(kept)  # no finished cell is lost, nor done again
    whole = tmp_path / "whole"
    tools.good(*argv, f"--output={whole}")
    assert timeless(path) == timeless(whole / "cells.jsonl") and count() == 9 + 36


def test_the_page_is_self_contained_and_escaped(benched):
    _, output, _ = benched
    found = tools.json_lines(output / "cells.jsonl")
    for cell in found:
        cell["sample"] = '<script>alert("x")</script>&'
    text = report.page(rows.gathered(found), b"png", "a <title>", show_data=True)
    assert "<script" not in text and text.count("&lt;script&gt;") == len(rows.gathered(found))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'\">" in text
    assert "a &lt;title&gt;" in text and "data:image/png;base64,cG5n" in text
    for outside in ("http://", "https://", 'src="/', "<link", "@import"):
        assert outside not in (output / "frontier.html").read_text()


def test_table_by_hand(benched):
    """Mean and standard error over the two seeds of a row."""
    _, output, _ = benched
    found = tools.json_lines(output / "cells.jsonl")
    row = next(r for r in rows.gathered(found) if (r.model, r.steps) == ("udlm", 3))
    a, b = (c["judge_nats"] for c in row.cells)
    nats, error = row.nats("ar")
    assert nats == pytest.approx((a + b) / 2) and error == pytest.approx(abs(a - b) / 2)
    assert f"{nats:.3f} +- {error:.3f}" in report.table([row])
    single = row._replace(cells=row.cells[:1])
    assert single.nats("ar")[1] == row.cells[0]["judge_nats_se"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "--output is missing"),
        (("--output={out}", "--samplers=ancestal"), "did you mean 'ancestral'?"),
        (("--output={out}", "--samplers=ancestral:heat=2"), "has no field 'heat'"),
        (("--output={out}", "--samplers=ancestral:top_k=a"), "top_k=a is no int"),
        (("--output={out}", "--samplers=ancestral:top_p=7"), "top_p is 7.0"),
        (("--output={out}", "--samplers=next_token"), "fits none of the workdirs"),
        (("--output={out}", "--steps=4,x"), "'x' is no int"),
        (("--output={out}", "--steps=0"), "below 1"),
        (("--output={out}", "--temperatures=-1"), "below 0"),
        (("--output={out}", "--latents=caried"), "did you mean 'carry'?"),
        (("--output={out}", "--num_samples=1"), "at least 2"),
        (("--output={out}", "--judge=nobody"), "workdir of an autoregressive run"),
        (("--output={out}", "--judge={mdlm}"), "only a bound"),
        (("--output={mdlm}",), "holds other files"),
        (("--output={out}", "--workdir=/nowhere"), "is not a workdir"),
    ],
)
def test_refusals(flags, says, trained, tmp_path):
    names = dict(out=tmp_path / "out", mdlm=trained("mdlm"))
    flags = [f.format(**names) for f in flags]
    run_ = tools.call("bench", f"--workdir={trained('mdlm')}", *flags)
    assert run_.status == 2 and says in run_.err and run_.err.strip().count("\n") <= 1, run_
    assert not (tmp_path / "out" / "cells.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--samplers=next_token",), "fits none of the workdirs"),
        (("--judge=ngram,nobody",), "workdir of an autoregressive run"),
    ],
)
def test_what_needs_no_corpus_is_refused_before_it_is_read(
    flags, says, trained, tmp_path, monkeypatch
):
    given = (f"--workdir={trained('mdlm')}", f"--output={tmp_path / 'out'}", *flags)

    def read(experiment):
        raise AssertionError("the corpus was read before the refusal")

    monkeypatch.setattr(judging, "corpus_of", read)
    run_ = tools.call("bench", *given)
    assert run_.status == 2 and says in run_.err, run_


def test_a_damaged_cell_file_is_named(benched, tmp_path):
    argv, output, _ = benched
    (tmp_path / "bench.json").write_bytes((output / "bench.json").read_bytes())
    (tmp_path / "cells.jsonl").write_text('{"sampler": "data"}\n')
    run_ = tools.call(*argv[:-1], f"--output={tmp_path}")
    assert run_.status == 2 and "line 1 is no cell" in run_.err


def test_gen_ppl_of_any_text(trained, tmp_path):
    """Plain lines under the n-gram model of a run's corpus, which is found beside the file too."""
    workdir = trained("mdlm")
    experiment_ = experiment.restore(workdir)
    judge = judging.ngram_judge(judging.corpus_of(experiment_))
    file = tmp_path / "plain.txt"
    file.write_text("the old house.\nwe walk along\n")
    run_ = tools.good("gen-ppl", file, f"--workdir={workdir}", f"--output={tmp_path / 'o.json'}")
    (told,) = tools.json_lines(tmp_path / "o.json")
    rows = [experiment_.tokenizer.encode(t) for t in ("the old house.", "we walk along")]
    nats = sum(-np.log(judge.model.probabilities(np.array(r))).sum() for r in rows)
    assert told["nats"] == pytest.approx(nats / sum(map(len, rows))) and "by the text" in run_.out
    tools.good("sample", f"--workdir={workdir}")
    assert "by their own ids" in tools.good("gen-ppl", workdir / "samples.jsonl").out
    for argv, says in (
        ((), "which samples?"),
        ((tmp_path / "none.txt",), "no such file"),
        ((file,), "--workdir is missing"),
        ((file, file), "takes flags only"),
    ):
        refused = tools.call("gen-ppl", *argv)
        assert refused.status == 2 and says in refused.err
    file.write_text('{"text": "a"}\n{"tokens": [1]}\n')
    refused = tools.call("gen-ppl", file, f"--workdir={workdir}")
    assert refused.status == 2 and "line 2 has no 'text'" in refused.err


@pytest.mark.parametrize("judge", ["ngram", "ar"])
def test_mauve_of_a_sample_file(judge, trained, tmp_path):
    workdir, out = trained("mdlm"), tmp_path / "m.json"
    own = tmp_path / "s.jsonl"
    tools.good("sample", f"--workdir={workdir}", "--num_samples=20", f"--output={own}")
    given = ("gen-ppl", own, f"--workdir={workdir}", f"--output={out}")
    given = (*given, f"--judge={judge if judge == 'ngram' else trained(judge)}")
    values = {}
    for reference in (own, "validation"):
        run_ = tools.good(*given, f"--reference={reference}")
        (told,) = tools.json_lines(out)
        values[reference] = told["mauve"]
        assert told["mauve_clusters"] == 2 and told["mauve_references"] == 20
        assert f"MAUVE-style {told['mauve']:.4f}" in run_.out
    assert values[own] == pytest.approx(1) and values["validation"] < 1
    tools.good(*given)
    assert "mauve" not in tools.json_lines(out)[0]
    refused = tools.call(*given, "--reference=none.txt")
    assert refused.status == 2 and "--reference=none.txt: no such file" in refused.err


def test_mauve_of_every_cell(trained, tmp_path):
    """Asked for, it is in every cell and the table, each seed with rows of its own."""
    output, workdir = tmp_path / "out", trained("mdlm")
    argv = ("bench", f"--workdir={workdir}", "--steps=2", "--num_samples=14", f"--output={output}")
    run_ = tools.good(*argv, "--seeds=0,1", "--mauve")
    found = tools.json_lines(output / "cells.jsonl")
    assert len(found) == 8 and {c["mauve_references"] for c in found} == {14}
    corpus = judging.corpus_of(loading.load_trained(workdir)[0])
    features = judging.ngram_judge(corpus).features
    for cell in (c for c in found if c["sampler"] == "data"):
        sides = [
            features(make(14, 16, cell["seed"]))
            for make in (
                lambda *asked: baselines.data(corpus, np.ones(1), *asked),
                lambda *asked: baselines.references(corpus, *asked),
            )
        ]
        assert cell["mauve"] == mauve.mauve(*sides).value
    assert len({c["mauve"] for c in found}) > 4
    assert report.MAUVE in run_.out and report.MAUVE in (output / "frontier.html").read_text()
    refused = tools.call(*argv, "--seeds=0,1")
    assert refused.status == 2 and "mauve: True there, None given" in refused.err


def test_mauve_has_rows_of_its_own(trained):
    """No row is on both sides, and a split too small for that is refused."""
    corpus = judging.corpus_of(loading.load_trained(trained("mdlm"))[0])
    size = len(corpus.rows("validation"))
    texts = lambda rows: {tuple(r) for r in rows}
    shown = baselines.data(corpus, np.ones(1), size // 2, 16, 3)
    others = baselines.references(corpus, size // 2, 16, 3)
    everything = texts(r["tokens"][:16] for r in corpus.rows("validation"))
    assert len(others) == size // 2 and len(texts(others)) == len(others)
    assert not texts(shown) & texts(others) and texts(others) <= everything
    with pytest.raises(UserError, match="take fewer samples"):
        baselines.references(corpus, size, 16, 3)


def test_what_a_reader_waits_for():
    """A clock that says how often it was asked; a part of a row is made where one comes first."""
    now = [0.0]

    def spend(seconds):
        def run(first):
            now[0] += seconds + first
            return np.full((2, 8), first), np.full(2, 3)

        return run

    found = timing.draw(spend(4.0), spend(0.5), 5, 2, clock=lambda: now[0])
    assert found.batches == [4.0, 6.0, 8.0] and found.firsts == [0.5, 2.5, 4.5]
    assert found.tokens.shape == (6, 8) and found.tokens[:, 0].tolist() == [0, 0, 2, 2, 4, 4]
    assert found.record() == {
        "seconds": 18.0, "tokens_per_s": 48 / 18, "latency_s": 6.0, "first_s": 2.5,
        "row_tokens_per_s": 8 / 6,
    }  # fmt: skip
    assert timing.draw(spend(4.0), None, 5, 2, clock=lambda: now[0]).record()["first_s"] == 6.0
    firsts = {Whole(): 20, Fill(size=4): 4, Slide(size=4): 16, Dual(size=8): 8, Cached(): 5}
    assert {b: b.first(20, 16, 5) for b in firsts} == firsts


def test_parts_of_a_sampler_have_fields_of_their_own():
    text = "ancestral:stop=chained:stop.second.steps=2:blocks=slide:blocks.size=8:top_p=0.9"
    chosen = cells.parse_sampler(text, Sampling())
    assert chosen.stop == Chained(second=Still(steps=2)) and chosen.blocks == Slide(size=8)
    assert chosen.readout.top_p == 0.9 and cells.told(text)[1] == "stop.second.steps=2"
    for wrong, why in (
        ("ancestral:stop.steps=2", "give stop=NAME before"),
        ("ancestral:stop=x", "x"),
    ):
        with pytest.raises(UserError, match=why):
            cells.parse_sampler(wrong, Sampling())


def test_samples_with_masks_are_refused(trained, tmp_path):
    built, params, _ = loading.load_trained(trained("mdlm"))
    sampling = cells.parse_sampler("ancestral:tail=none", built.sampling)
    assert sampling.tail == "none"
    sampler = generate.Sampler.make(built, sampling, 16)
    records = list(sampler.records(params, seed=0, count=3, num_steps=1))
    records[0]["tokens"][0] = built.tokens.mask
    json_lines.write(str(tmp_path / "s.jsonl"), records)
    refused = tools.call("gen-ppl", tmp_path / "s.jsonl", f"--workdir={trained('mdlm')}")
    assert refused.status == 2 and "still hold masks" in refused.err
