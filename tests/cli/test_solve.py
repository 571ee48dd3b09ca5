"""The solve command: a run trained on problems, a problem, the denoising, the verdict."""

from __future__ import annotations

import re

import pytest

from tests.cli import tools

FLAGS = (
    *tools.SIZES,
    "--config.data.length=18",
    "--config.data.train_count=64",
    "--config.data.validation_count=16",
    "--config.training.num_steps=2",
)
PROBLEM = "12,5,17"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    found = {}

    def get(method):
        if method not in found:
            found[method] = tmp_path_factory.mktemp("solve") / method
            config = tools.recipe(method, "countdown")
            tools.good("train", config, f"--workdir={found[method]}", *FLAGS)
        return found[method]

    return get


@pytest.mark.slow
def test_steps_equations_and_verdict(workdir):
    """A barely trained model solves nothing, in four steps that reveal ever more."""
    run = tools.good("solve", f"--workdir={workdir('lddm_g')}", PROBLEM)
    lines = run.out.splitlines()
    steps = [re.fullmatch(r" {3}(\d)  (.{10})", line) for line in lines]
    steps = [m for m in steps if m]
    assert [int(m[1]) for m in steps] == [1, 2, 3, 4]
    assert [m[2].count("_") for m in steps] == [7, 5, 2, 0]
    verdict = f"{PROBLEM}: does not solve it (strict 0, legacy 0); 4 network calls, checkpoint 2"
    assert lines[-1] == verdict
    again = tools.good("solve", f"--workdir={workdir('lddm_g')}", f"--problem={PROBLEM}")
    assert again.out == run.out
    flags = ("--steps=2", "--latent=off", "--sampler=ancestral", "--seed=3")
    other = tools.good("solve", f"--workdir={workdir('lddm_g')}", PROBLEM, *flags)
    assert "2 network calls" in other.out


@pytest.mark.slow
def test_left_to_right(workdir):
    """The problem and its mark, 8 of 18 tokens, enter the cache by one call."""
    run = tools.good("solve", f"--workdir={workdir('ar')}", PROBLEM)
    assert "11 network calls" in run.out


@pytest.mark.slow
def test_refusals(workdir, trained):
    here = f"--workdir={workdir('lddm_g')}"
    for argv, why in (
        ((here,), "--problem is missing"),
        ((PROBLEM,), "--workdir is missing"),
        ((here, "one,two"), "is no problem of countdown, such as"),
        ((here, "1,2"), "is no problem"),
        ((here, PROBLEM, "--steps=0"), "--steps=0"),
        ((here, PROBLEM, "--seed=-1"), "--seed=-1"),
        ((here, PROBLEM, "--sampler=fastest"), "unknown step"),
        ((here, PROBLEM, "--sampler=skipping"), "cannot carry a latent"),
        ((here, ",".join(["12"] * 9)), "rows have 18"),
        ((f"--workdir={trained('mdlm')}", PROBLEM), "not on problems"),
    ):
        run = tools.call("solve", *argv)
        assert run.status == 2 and why in run.err and run.err.count("\n") == 1, run
        assert not run.out
