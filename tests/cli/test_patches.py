"""Patches through the commands: static, by spaces, by a model's entropies; prompts; refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.cli import tools
from tests.cli.test_refusals import refused

CONFIG = tools.ROOT / "configs" / "patches.py"
SIZES = tuple(f for f in tools.SIZES if "cond_width" not in f and "data.length" not in f)
SIZES += ("--config.training.num_steps=6", *tools.OPTIM)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_text(tools.sentences(300))
    return path


def recipe(argument):
    return f"--config={CONFIG}:{argument}"


@pytest.mark.slow
def test_static_patches_run_everywhere(text, tmp_path):
    """Train, evaluate, both bounds, per-patch clocks, a prompt; the latent is by patch."""
    work, output = tmp_path / "run", tmp_path / "s.jsonl"
    tools.good("train", recipe("method=patch_lddm,patch=8"), f"--workdir={work}",
               f"--config.data.path={text}", *SIZES)  # fmt: skip
    assert "2 passes" in tools.good("evaluate", f"--workdir={work}").out
    clock = "--sampler=patch_clock:alpha=0.1,size=8,most=3"
    prompt = "the old river "
    for rule in ("--sampler=ancestral", clock, "--sampler=first_hitting"):
        tools.good("sample", f"--workdir={work}", f"--output={output}", rule, f"--prompt={prompt}")
        rows = tools.json_lines(output)
        assert all(r["text"].startswith(prompt) and len(r["tokens"]) == 64 for r in rows)
        output.unlink()
    said = tools.good("evaluate", f"--workdir={work}", "--bound=carried", clock,
                      "--trajectories=2").out  # fmt: skip
    assert "patch_clock" in said and "carries h" in said
    tools.good("mechanism", f"--workdir={work}", "--steps=3", "--num_samples=2")
    refused(tools.call("sample", f"--workdir={work}", "--sampler=remdm", "--reset_on_remask",
                       f"--output={output}"), "by patch")  # fmt: skip


@pytest.mark.slow
def test_patches_of_the_data(text, tmp_path):
    """A small model on bytes, patches by its entropies, a run on them; and patches by spaces."""
    given = (f"--config.data.path={text}", *SIZES)
    first, folder, work = (tmp_path / n for n in ("bytes", "prepared", "run"))
    tools.good("train", recipe("method=patch_ar,by=byte"), f"--workdir={first}", *given)
    entropy = f"patches=entropy,from={first}"
    threshold = "--config.data.patches.threshold=5.4"
    refused(tools.call("train", recipe(f"method=patch_mdlm,{entropy}"), f"--workdir={work}",
                       threshold, *given), "come from a model, once")  # fmt: skip
    tools.good("prepare", recipe(entropy), f"--output={folder}", f"--config.data.path={text}",
               threshold)  # fmt: skip
    record = json.loads((folder / "patches.json").read_text())
    assert record["rule"]["threshold"] == 5.4
    starts = np.fromfile(folder / "patches-train.u8", np.uint8).reshape(-1, 64)
    assert (starts[:, 0] == 1).all() and 64 < starts.sum() <= 16 * len(starts)
    assert record["splits"]["train"]["patches"] == starts.sum()
    stored = (threshold, f"--config.data.path={folder}", *SIZES)
    for method in ("patch_mdlm", "patch_ar"):
        here = tmp_path / method
        tools.good("train", recipe(f"method={method},{entropy}"), f"--workdir={here}", *stored)
        tools.good("sample", f"--workdir={here}", "--prompt=we walk")
        rows = tools.json_lines(here / "samples.jsonl")
        assert all(r["text"].startswith("we walk") for r in rows[-3:])
        assert "nats/token" in tools.good("evaluate", f"--workdir={here}").out
    other = tools.call("train", recipe(f"method=patch_mdlm,{entropy}"), f"--workdir={work}",
                       f"--config.data.path={folder}", *SIZES)  # fmt: skip
    refused(other, "threshold=5.4, not 1.3354")
    bad = folder / "patches-train.u8"
    bad.write_bytes(bytes([1]) + bad.read_bytes()[:0:-1])
    refused(tools.call("train", recipe(f"method=patch_mdlm,{entropy}"), f"--workdir={work}",
                       *stored), "not what prepare wrote")  # fmt: skip
    spaced = tmp_path / "spaced"
    tools.good("train", recipe("method=patch_mdlm,patches=space"), f"--workdir={spaced}", *given)
    tools.good("sample", f"--workdir={spaced}", "--sampler=patch_clock:alpha=0.1")
    rows = tools.json_lines(spaced / "samples.jsonl")
    assert not any("[MASK]" in r["text"] for r in rows)
    refused(tools.call("sample", f"--workdir={spaced}", "--length=32"), "which have 64 tokens")


@pytest.mark.slow
def test_whole_patches(text, tmp_path):
    """Trained, scored and sampled; other rules and estimators are refused in a line."""
    work = tmp_path / "run"
    tools.good("train", recipe("method=patch_whole_lddm,patch=8"), f"--workdir={work}",
               f"--config.data.path={text}", *SIZES)  # fmt: skip
    assert "an upper bound" in tools.good("evaluate", f"--workdir={work}").out
    tools.good("sample", f"--workdir={work}", "--prompt=the old river ")
    rows = tools.json_lines(work / "samples.jsonl")
    assert rows[-1]["text"].startswith("the old river ") and "[MASK]" not in rows[-1]["text"]
    asked = ("sample", f"--workdir={work}", f"--output={tmp_path / 's'}", "--sampler=ancestral")
    refused(tools.call(*asked), "step patch_ancestral")
    refused(tools.call("evaluate", f"--workdir={work}", "--estimator=k_form"), "masks of tokens")


@pytest.mark.slow
def test_equal_operations_by_one_word(tmp_path):
    """`plan --what=flops` says them; patches and bytes within 3 %."""
    each = {}
    for by in ("patch", "byte"):
        out = tools.good("plan", recipe(f"method=patch_mdlm,by={by}"), "--what=flops",
                         "--json").out  # fmt: skip
        each[by] = json.loads(out)["forward_per_token"]
    assert abs(each["byte"] / each["patch"] - 1) < 0.03


@pytest.mark.parametrize(
    "argument, override, why",
    [
        ("method=mdlm", "seed=0", "method=mdlm is not for patches"),
        ("patches=words", "seed=0", "patches=words"),
        ("by=both", "seed=0", "by=both"),
        ("patch=0", "seed=0", "1 to 64 bytes"),
        ("", "model.patches=4", "give the bytes of a patch"),
        ("", "model.time_conditioning=True", "not told the time"),
        ("patches=entropy", "data.patches.rule=loud", "rule 'loud'"),
        ("patches=space", "data.segments=True", "segments False"),
    ],
)
def test_wrong_configs_are_refused(text, argument, override, why, tmp_path):
    given = (f"--config.{override}", f"--workdir={tmp_path}/run", f"--config.data.path={text}")
    refused(tools.call("train", recipe(argument), *given), why)
    assert not (tmp_path / "run").exists()
