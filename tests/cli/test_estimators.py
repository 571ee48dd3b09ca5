"""Estimators and prompts through `evaluate`."""

from __future__ import annotations

import math

import pytest

from tests.cli import tools


@pytest.mark.slow
def test_estimators_agree_within_their_errors(trained, tmp_path):
    workdir, output = trained("lddm_m"), tmp_path / "out.jsonl"
    names = "nelbo,k_form,time_free,lambda"
    flags = (f"--estimator={names}", "--draws=32", f"--output={output}")
    run = tools.good("evaluate", f"--workdir={workdir}", *flags)
    records = tools.json_lines(output)
    assert [r["estimator"] for r in records] == names.split(",") and "time_free" in run.out
    for record in records[1:]:
        gap = record["nelbo_nats_per_token"] - records[0]["nelbo_nats_per_token"]
        assert abs(gap) < 4 * math.hypot(record["monte_carlo_se"], records[0]["monte_carlo_se"])


def test_a_prompt_is_given(trained, tmp_path):
    output = tmp_path / "out.jsonl"
    flags = ("--prompt_tokens=10", f"--output={output}")
    tools.good("evaluate", f"--workdir={trained('lddm_m')}", *flags, "--estimator=time_free")
    (record,) = tools.json_lines(output)
    assert record["prompt_tokens"] == 10 and record["tokens"] <= 6 * record["sequences"]


@pytest.mark.parametrize(
    "method, flag, why",
    [
        ("lddm_m", "--estimator=timefree", "did you mean 'time_free'"),
        ("ar", "--estimator=k_form", "counts masks"),
        ("lddm_m", "--prompt_tokens=16", "rows have 16 tokens"),
    ],
)
def test_refusals(trained, method, flag, why):
    run = tools.call("evaluate", f"--workdir={trained(method)}", flag)
    assert run.status == 2 and why in run.err and len(run.err.splitlines()) == 1, run
