"""The autoregressive baseline through the same commands."""

from __future__ import annotations

import pytest

from tests.cli import tools


@pytest.mark.slow
def test_train_evaluate_sample(trained, tmp_path):
    workdir, output = trained("ar"), tmp_path / "out.jsonl"
    run = tools.good("evaluate", f"--workdir={workdir}", f"--output={output}")
    (record,) = tools.json_lines(output)
    assert record["exact"] and record["bounds"] == "" and record["draws"] == 1
    assert "NLL" in run.out and "perplexity =" in run.out and "upper bound" not in run.out
    run = tools.good("sample", f"--workdir={workdir}", "--prompt=the ", f"--output={output}")
    records = tools.json_lines(output)
    assert all(r["text"].startswith("the ") and r["calls"] == 1 + 12 for r in records)
    assert records[0]["settings"]["step"] == {"name": "next_token"}
    refused = tools.call("sample", f"--workdir={workdir}", "--latent=off")
    assert refused.status == 2 and "no latent" in refused.err


def test_a_two_way_network_is_refused(train_flags, tmp_path):
    """It would read what it predicts."""
    flags = (*train_flags, "--config.model.causal=False")
    run = tools.call("train", tools.recipe("ar"), f"--workdir={tmp_path / 'run'}", *flags)
    assert run.status == 2 and "causal" in run.err and not (tmp_path / "run").exists()
