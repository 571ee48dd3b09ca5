"""`evaluate --bound=carried` and its twins from Python, in bench and in the report."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ldd_jax
from ldd_jax.core.checks import UserError
from ldd_jax.report import page
from tests.cli import tools

FEW = ("--bound=carried", "--max_sequences=48")


def evaluated(workdir, tmp_path, *flags):
    output = tmp_path / "out.jsonl"
    run = tools.good("evaluate", f"--workdir={workdir}", *FEW, f"--output={output}", *flags)
    return run, tools.json_lines(output)


@pytest.mark.slow
def test_each_number_of_steps_is_a_sampler_of_its_own(trained, tmp_path):
    run, records = evaluated(trained("lddm_m"), tmp_path, "--steps=2,8", "--trajectories=8")
    for record, steps in zip(records, (2, 8)):
        whose = f"the sampler that carries h for {steps} steps (ancestral, linear grid)"
        assert record["bounds"] == record["sampler"] == whose and f"bound for {whose}" in run.out
        assert record["estimator"] == "carried" and not record["exact"]
        assert record["network_calls_per_sequence"] == 8 * steps
        assert record["importance_nats_per_token"] < record["nelbo_nats_per_token"]
    assert records[0]["nelbo_nats_per_token"] != records[1]["nelbo_nats_per_token"]
    off = evaluated(trained("lddm_m"), tmp_path, "--steps=2", "--latent=off")[1][0]
    assert "with h = 0 at every call" in off["sampler"]


@pytest.mark.slow
def test_orders_without_chance_are_exact(trained, tmp_path):
    run, (record,) = evaluated(trained("lddm_m"), tmp_path, "--sampler=confidence")
    whose = "the sampler that carries h until all is revealed (confidence)"
    assert record["exact"] and record["draws"] == 1 and f"exact likelihood of {whose}" in run.out
    assert "NLL" in run.out and record["network_calls_per_sequence"] == 16


@pytest.mark.slow
def test_prompts_and_uniform_diffusion(trained, tmp_path):
    flags = ("--steps=3", "--prompt_tokens=10")
    _, (record,) = evaluated(trained("lddm_u"), tmp_path, *flags)
    assert record["prompt_tokens"] == 10 and record["tokens"] == 6 * record["sequences"]
    assert 0 < record["nelbo_nats_per_token"] < 10


@pytest.mark.parametrize(
    "method, flags, why",
    [
        ("lddm_m", ("--bound=caried",), "did you mean 'carried'"),
        ("lddm_m", ("--steps=4",), "--steps is about a sampler; add --bound=carried"),
        ("lddm_m", ("--trajectories=4",), "add --bound=carried"),
        ("lddm_m", (*FEW, "--passes=2"), "--passes does not go with --bound=carried"),
        ("lddm_m", (*FEW, "--steps=0"), "not positive whole numbers"),
        ("lddm_m", (*FEW, "--trajectories=0"), "at least 1"),
        ("lddm_m", (*FEW, "--sampler=remdm"), "takes tokens back"),
        ("lddm_m", (*FEW, "--sampler=confidence:order=sampled"), "thrown away"),
        ("lddm_m", (*FEW, "--tail=greedy"), "only with --tail=sample"),
        ("lddm_m", (*FEW, "--temperature=0"), "probability 0"),
        ("lddm_m", (*FEW, "--blocks=fill:size=4"), "whole rows"),
        ("lddm_u", (*FEW, "--sampler=euler"), "masked diffusion"),
        ("mdlm", (*FEW, "--latent=off"), "takes no latent"),
        ("ar", FEW, "leave --bound out"),
    ],
)
def test_refusals(trained, method, flags, why):
    run = tools.call("evaluate", f"--workdir={trained(method)}", *flags)
    assert run.status == 2 and why in run.err and len(run.err.splitlines()) == 1, run


@pytest.mark.slow
def test_scores_of_texts(trained):
    """The same program by row: exact orders agree with the split's, given contexts are free."""
    pipe = ldd_jax.load(trained("lddm_m"))
    how = dict(bound="carried", sampling=dict(steps=4))
    (score,) = pipe.nll("the house", trajectories=32, **how)
    assert score.draws == 32 and score.se > 0 and not score.exact
    assert score.importance < score.nats < 200
    again, other = pipe.nll(["the house", "a tree"], trajectories=32, **how)
    np.testing.assert_allclose(again.nats, score.nats, rtol=1e-5)
    (given,) = pipe.nll("house", context="the ", trajectories=32, **how)
    assert given.tokens == 6 and given.nats < score.nats
    sure = dict(bound="carried", sampling=dict(sampler="confidence"))
    (exact,) = pipe.nll("the house", **sure)
    assert exact.exact and exact.se == 0 and exact.nats == pytest.approx(exact.importance)
    for wrong in (dict(bound="x"), dict(bound="carried", num_passes=2), dict(sampling={})):
        with pytest.raises(UserError):
            pipe.nll("the house", **wrong)


@pytest.mark.slow
def test_bench_has_a_column(trained, tmp_path):
    """Each sampler's own bound at its own T; nothing where it is not known, as of the data."""
    few = ("--num_samples=3", "--steps=2,4", "--latents=carry,off", "--bound_sequences=32")
    rules = "--samplers=default,confidence,remdm"
    argv = (f"--workdir={trained('lddm_m')}", rules, *few, f"--output={tmp_path / 'out'}")
    run = tools.good("bench", *argv)
    cells = tools.json_lines(tmp_path / "out" / "cells.jsonl")
    own = {(c["sampler"], c["latent"], c["steps"]): c["own"] for c in cells if c["workdir"]}
    assert all((value is None) == (key[0] == "remdm") for key, value in own.items())
    assert len(set(filter(None, own.values()))) == 6
    assert all(c["own_exact"] == (c["sampler"] == "confidence") for c in cells)
    assert all(c["own"] is None for c in cells if not c["workdir"])
    assert "own bound +- s.e." in run.out and "| <= " in run.out and "| = " in run.out


def test_report_tells_whose_bounds_they_are(tmp_path):
    record = {"nelbo_nats_per_token": 2.5, "nelbo_se": 0.1, "bounds": "the sampler <b>", "draws": 4}
    lines = [record, record | {"sampler": "that of T", "importance_nats_per_token": 2.25}]
    (tmp_path / "bounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    text = page.bounds([page.read_run(tmp_path) | {"label": "run"}])
    assert "2.5000 +- 0.1000" in text and "the sampler &lt;b&gt;" in text and "2.2500" in text
    (tmp_path / "bounds.jsonl").write_text('{"nelbo_se": "x"}\n')
    with pytest.raises(UserError, match="does not write"):
        page.read_run(tmp_path)
