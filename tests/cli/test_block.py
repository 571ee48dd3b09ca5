"""Block diffusion through the commands: trained, bounded, sampled at any length, refused."""

from __future__ import annotations

import json

import pytest

from tests.cli import tools
from tests.cli.test_refusals import refused

CONFIG = tools.ROOT / "configs" / "block.py"
GIVEN = (*tools.SIZES, *tools.OPTIM, "--config.training.num_steps=6")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_text(tools.sentences(200))
    return path


@pytest.mark.slow
def test_train_evaluate_sample_bench(text, tmp_path):
    """With the latent and clipped shares of masks; every command that goes with blocks."""
    work = f"--workdir={tmp_path / 'run'}"
    argument = f"--config={CONFIG}:method=lddm_block,block=4,clip=0.3:0.8"
    tools.good("train", argument, work, *GIVEN, *tools.corpus(text))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["objective"]["times"] == {"name": "clipped", "low": 0.3, "high": 0.8}
    assert config["sampling"]["blocks"]["name"] == "cached" and config["model"]["block"] == 4
    said = tools.good("evaluate", work, "--estimator=nelbo,k_form").out
    assert said.count("an upper bound") == 2 and "2 passes" in said
    output, prompt = tmp_path / "s.jsonl", tools.sentences(1)[:6]
    tools.good("sample", work, f"--output={output}", "--length=22", f"--prompt={prompt}")
    rows = tools.json_lines(output)
    assert all(r["text"].startswith(prompt) and len(r["tokens"]) == 22 for r in rows)
    assert {r["calls"] for r in rows} == {1 + 5 * (4 + 1)}  # a prompt; 5 blocks of 4 steps
    other = tmp_path / "o.jsonl"
    more = ("--length=22", f"--prompt={prompt}", "--blocks=recomputed")
    tools.good("sample", work, f"--output={other}", *more)
    assert [r["tokens"] for r in tools.json_lines(other)] == [r["tokens"] for r in rows]
    tuned = (
        f"--config={tools.ROOT}/configs/finetune.py:from={tmp_path / 'run'}",
        "--config.seed=1",
    )
    more = ("--config.model.block=8", "--config.training.num_steps=1", *tools.OPTIM)
    said = tools.good("train", *tuned, *more, f"--workdir={tmp_path / 'tuned'}").out
    assert "begins with the averaged parameters" in said
    refused(tools.call("sample", work, "--blocks=whole"), "goes by blocks of 4")
    refused(tools.call("sample", work, "--guidance=2"), "finished blocks stand in one cache")
    refused(tools.call("evaluate", work, "--bound=carried"), "goes block by block")
    refused(tools.call("mechanism", work), "goes block by block")


@pytest.mark.parametrize(
    "argument, override, why",
    [
        ("block=0", "", "1 or more positions"),
        ("method=mdlm", "", "has no blocks"),
        ("clip=0.3", "", "is not low:high"),
        ("clip=0.8:0.3", "", "low <= high"),
        ("block=5", "", "no multiple of model.block 5"),
        ("", "model.block=0", "set model.block"),
    ],
)
def test_what_is_refused(argument, override, why, text, tmp_path):
    flags = (f"--config.{override}",) if override else ()
    argv = (f"--config={CONFIG}:{argument}", *GIVEN, *tools.corpus(text), *flags)
    refused(tools.call("train", *argv, f"--workdir={tmp_path / 'w'}"), why)
    assert not (tmp_path / "w").exists()


def test_whole_rows_go_without_blocks(text, tmp_path):
    argv = (tools.recipe("mdlm"), *GIVEN, *tools.corpus(text), "--config.model.block=4")
    refused(tools.call("train", *argv, f"--workdir={tmp_path / 'w'}"), "asks about whole rows")
