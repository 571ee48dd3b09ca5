"""train, evaluate and sample as a user types them, for every method."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
from tensorboardX.proto import event_pb2

from ldd_jax.config.stored import fingerprint, load_config
from ldd_jax.data import load_tokenizer
from ldd_jax.evaluation.likelihood import bounds
from tests.cli import tools

UNIFORM = ("udlm", "lddm_u")
FILL = "the [MASK][MASK][MASK][MASK][MASK][MASK] house"  # 16 characters, as long as a row


# One method in the fast set: what differs is tested in the computing rooms.
SLOW = dict.fromkeys(("mdlm", "udlm", "lddm_u"), pytest.mark.slow)


@pytest.fixture(
    scope="module", params=[pytest.param(m, marks=SLOW.get(m, ())) for m in tools.METHODS]
)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def sampled(trained, tmp_path_factory):
    """(method, flags) -> the records written; nothing but --workdir, --output and the flags."""
    folder, done = tmp_path_factory.mktemp("samples"), {}

    def get(method, *flags, fresh=False):
        if fresh or (method, flags) not in done:
            output = folder / f"{len(done)}-{method}.jsonl"
            run = tools.good("sample", f"--workdir={trained(method)}", f"--output={output}", *flags)
            done[method, flags] = run, tools.json_lines(output)
        return done[method, flags]

    return get


def tokens(found):
    return [record["tokens"] for record in found[1]]


def events(folder):
    """(step, tag) of every value in the event files."""
    out = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            out += [(event.step, value.tag) for value in event.summary.value]
            at += size + 16
    return out


def test_train_writes_all_its_files(trained, method):
    workdir = trained(method)
    config = json.loads((workdir / "config.json").read_text())
    assert config["recipe"] == f"method={method},size=tiny,tokenizer=characters"
    tokenizer = load_tokenizer(workdir / "tokenizer")
    assert tokenizer.decode(tokenizer.encode("the river")) == "the river"
    assert {p.name for p in (workdir / "checkpoints").iterdir()} >= {"10", "12"}
    lines = tools.json_lines(workdir / "metrics.jsonl")
    assert [r["step"] for r in lines if "train_loss" in r] == [3, 6, 9, 12]
    assert [r["step"] for r in lines if "validation/nelbo_se" in r] == [6, 12]
    speeds = [r for r in lines if "speed/tokens_per_second" in r]
    assert speeds and all(r["speed/model_flops_per_second"] > 0 for r in speeds)
    assert not any("speed/mfu" in r for r in lines)  # a CPU has no published peak
    assert all(r["validation/nelbo_se"] > 0 for r in lines if "validation/nelbo_se" in r)
    assert (workdir / "curve.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["step"] == 12 and 1 < summary["nelbo_nats_per_token"] < 5
    found = events(workdir / "tensorboard")
    assert {(s, "train_loss") for s in (3, 6, 9, 12)} <= set(found)
    assert (12, "validation/nelbo_nats_per_token") in found


def test_evaluate_needs_only_the_workdir(trained, method, tmp_path):
    passes = (1, 2) if method.startswith("lddm") else (1,)
    output = tmp_path / "bounds.jsonl"
    given = "--passes=" + ",".join(map(str, passes))
    run = tools.good("evaluate", f"--workdir={trained(method)}", given, f"--output={output}")
    records = tools.json_lines(output)
    assert [r["passes"] for r in records] == list(passes)
    for record in records:
        assert record["nelbo_se"] > 0 and record["step"] == 12
        assert f"+- {record['nelbo_se']:.4f}" in run.out
        assert record["bounds"] == bounds(record["passes"]) and record["bounds"] in run.out
    summary = json.loads((trained(method) / "summary.json").read_text())
    same = ("nelbo_nats_per_token", "nelbo_se", "passes", "bounds", "tokens")
    assert {k: records[-1][k] for k in same} == {k: summary[k] for k in same}


def test_one_draw_has_no_monte_carlo_error_and_is_still_json(trained, tmp_path):
    output = tmp_path / "bounds.jsonl"
    tools.good("evaluate", f"--workdir={trained('mdlm')}", "--draws=1", f"--output={output}")
    (record,) = tools.json_lines(output)
    assert record["monte_carlo_se"] is None and record["nelbo_se"] > 0


def test_sample_needs_only_the_workdir(trained, method):
    run = tools.good("sample", f"--workdir={trained(method)}")
    records = tools.json_lines(trained(method) / "samples.jsonl")
    config = fingerprint(load_config(trained(method)))
    assert len(records) == 3
    removal = method in UNIFORM  # a call more; no mask is left to the others
    for number, record in enumerate(records):
        assert (record["index"], record["seed"], record["steps"]) == (number, 0, 4)
        assert record["calls"] == 4 + removal
        assert record["config"] == config and record["checkpoint"] == 12
        assert record["precision"] == "float32, tail-exact"
        assert len(record["tokens"]) == 16
        assert record["text"] in run.out and "[MASK]" not in record["text"]
    assert f"{4 + removal} network calls" in run.err


@pytest.mark.slow
def test_samples_depend_on_the_seed_alone(sampled, method):
    first = sampled(method)
    assert tokens(sampled(method, fresh=True)) == tokens(first)
    assert tokens(sampled(method, "--seed=1")) != tokens(first)
    assert len({tuple(t) for t in tokens(first)}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lddm_m", "udlm"])
def test_samples_do_not_depend_on_the_batch(sampled, name):
    few = sampled(name, "--batch_size=2", "--num_samples=5")
    assert tokens(few)[:3] == tokens(sampled(name))


def test_more_steps_are_more_calls(sampled, method):
    assert [r["calls"] for r in sampled(method, "--steps=16")[1]] == [16 + (method in UNIFORM)] * 3


def test_prompt_stays_in_place(sampled, trained, method):
    tokenizer = load_tokenizer(trained(method) / "tokenizer")
    prompt = tokenizer.encode("the old ")
    found = sampled(method, "--prompt=the old ")
    assert all(t[: len(prompt)] == prompt for t in tokens(found))
    assert len({tuple(t) for t in tokens(found)}) == 3


def test_fill_fills_the_gaps_only(sampled, trained, method):
    tokenizer = load_tokenizer(trained(method) / "tokenizer")
    ids, free = tokenizer.encode_template(FILL)
    found = sampled(method, f"--fill={FILL}")
    for record in found[1]:
        assert len(record["tokens"]) == len(ids) == 16
        assert [t for t, f in zip(record["tokens"], free) if not f] == [
            t for t, f in zip(ids, free) if not f
        ]
        assert max(record["tokens"]) < tokenizer.size and "[MASK]" not in record["text"]
        assert record["text"].startswith("the ") and record["text"].endswith(" house")


@pytest.mark.slow
def test_a_sampler_with_its_own_clock(sampled):
    """One call for every free token, none for the tail; the rule and its fields are recorded."""
    run, records = sampled("lddm_m", "--sampler=first_hitting", f"--fill={FILL}")
    free = FILL.count("[MASK]")
    assert [r["calls"] for r in records] == [free] * 3 and records[0]["steps"] is None
    run, records = sampled("lddm_m", "--sampler=theta_trapezoidal:theta=0.4", "--grid=cosine")
    step = records[0]["settings"]["step"]
    assert step == {"name": "theta_trapezoidal", "theta": 0.4, "leap": "first_jump"}
    assert records[0]["settings"]["grid"]["name"] == "cosine"
    assert {r["calls"] - 2 * r["steps"] for r in records} <= {0, 1}  # a mask may be left


@pytest.mark.slow
def test_a_clock_of_its_own_along_the_steps_that_are_asked_for(sampled):
    """A row of 16 masks pays a call for each of few intervals, and is seldom idle in many."""
    calls = {}
    for steps in (2, 1000):
        found = sampled("mdlm", "--sampler=skipping", f"--steps={steps}")[1]
        assert {r["steps"] for r in found} == {steps}
        calls[steps] = [r["calls"] for r in found]
    assert max(calls[2]) <= 3 and min(calls[1000]) >= 12


@pytest.mark.slow
def test_rows_longer_than_the_training_rows(sampled):
    run, records = sampled("lddm_m", "--blocks=slide:size=8", "--length=40", "--steps=3")
    assert [len(r["tokens"]) for r in records] == [40] * 3
    window = len(sampled("lddm_m")[1][0]["tokens"])
    assert [r["calls"] for r in records] == [3 * (1 + -(-(40 - window) // 8))] * 3
    assert records[0]["settings"]["blocks"] == {"name": "slide", "size": 8, "latent": "shift"}


@pytest.mark.slow
def test_settings_are_taken_and_recorded(sampled):
    flags = ("--temperature=0.7", "--top_p=0.9", "--top_k=5", "--reset_every=2", "--tail=greedy")
    run, records = sampled("lddm_m", *flags, "--length=12")
    settings = records[0]["settings"]
    readout = {"temperature": 0.7, "temperatures": [], "top_p": 0.9, "top_k": 5}
    assert settings["readout"] == readout
    assert settings["latent"] == {
        "reset_every": 2,
        "frozen": False,
        "reset_on_remask": False,
    }
    assert settings["tail"] == "greedy" and settings["step"]["name"] == "ancestral"
    assert [len(r["tokens"]) for r in records] == [12] * 3
    assert [r["calls"] for r in records] == [4] * 3  # no mask is left to the tail
    own = sampled("lddm_m", "--sampler=confidence:threshold=0.1")[1]
    assert sampled("lddm_m", "--sampler=confidence:threshold=0.1", "--compact=2")[1] == own
    run, records = sampled("lddm_m", "--stop=entropy:threshold=99", "--length=12")
    assert records[0]["settings"]["stop"] == {"name": "entropy", "threshold": 99.0}
    assert [r["calls"] for r in records] == [2] * 3 and records[0]["steps"] > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "settings"),
    [
        ("off", {"reset_every": 1, "frozen": False}),
        ("frozen", {"reset_every": 0, "frozen": True}),
    ],
)
def test_latent_modes(sampled, flag, settings):
    run, records = sampled("lddm_m", f"--latent={flag}")
    expected = {**settings, "reset_on_remask": False}
    assert records[0]["settings"]["latent"] == expected and f"latent {flag}" in run.err


@pytest.mark.slow
def test_a_cache_of_a_network_that_sees_both_ways_is_no_secret(sampled):
    run, records = sampled("mdlm", "--blocks=dual:size=8,refresh=2", "--length=16", "--steps=4")
    assert [r["exact"] for r in records] == [False] * 3
    assert records[0]["settings"]["blocks"] == {
        "name": "dual", "size": 8, "refresh": 2, "latent": "reset", "ahead": 0
    }  # fmt: skip
    assert [r["calls"] for r in records] == [2 * (4 + 2)] * 3  # passes before steps 0 and 2
    assert "exact" not in sampled("mdlm")[1][0]


@pytest.mark.slow
def test_without_a_tail_masks_may_remain_and_calls_are_the_steps(sampled):
    _, records = sampled("mdlm", "--tail=none")
    assert [r["calls"] for r in records] == [4] * 3


def test_an_older_checkpoint_and_raw_parameters(trained, tmp_path):
    output = tmp_path / "bounds.jsonl"
    flags = ("--step=10", "--noema", f"--output={output}")
    run = tools.good("evaluate", f"--workdir={trained('mdlm')}", *flags)
    assert "checkpoint 10, raw parameters" in run.out
    assert tools.json_lines(output)[0]["step"] == 10


@pytest.mark.slow
def test_running_a_finished_command_again_changes_no_metric(trained, train_flags):
    workdir = trained("mdlm")
    before = (workdir / "metrics.jsonl").read_text()
    tools.good("train", tools.recipe("mdlm"), f"--workdir={workdir}", *train_flags)
    assert (workdir / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_an_average_on_the_host_changes_no_figure(trained, train_flags, tmp_path):
    """Evaluated, sampled, gone on with; also on the device from some update on."""
    workdir = tmp_path / "run"
    given = ("train", tools.recipe("mdlm"), f"--workdir={workdir}", *train_flags)
    for on in (True, True, False):
        begun = (workdir / "checkpoints" / "12").exists()
        if begun:
            shutil.rmtree(workdir / "checkpoints" / "12")
        said = tools.good(*given, f"--config.training.ema_on_host={on}").out
        assert ("updates 10 to 12" in said) == begun, said
        assert tools.curve(workdir) == tools.curve(trained("mdlm"))
        assert tools.summary(workdir) == tools.summary(trained("mdlm"))


@pytest.mark.slow
def test_a_profile_is_written(train_flags, tmp_path):
    flags = (*train_flags, "--profile=2")
    run = tools.good("train", tools.recipe("mdlm"), f"--workdir={tmp_path / 'run'}", *flags)
    assert "profile: " in run.out
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


def test_help_and_version():
    assert "train" in tools.good("--help").out and tools.good("--version").out.strip()
    for command in ("train", "evaluate", "sample", "prepare"):
        assert "--workdir" in tools.good(command, "--help").out or command == "prepare"
    assert tools.call().status == 2
