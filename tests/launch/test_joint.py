"""Counted laws of pairs against the chain's own, pairs as files, and a line of the table."""

import importlib

import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.data import ChainData
from ldd_jax.data.signals import read_pairs
from tests.training.processes import ROOT


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    return importlib.import_module("joint")


@pytest.mark.slow
def test_laws_of_exact_draws_come_near_each_other_and_to_the_chain(script, tmp_path):
    data = ChainData(states=4, noise=0.5, length=16)
    one, other = (data.draw(3000, seed) for seed in (1, 2))
    apart = script.apart(script.laws(*one), script.laws(*other))
    assert set(apart) == {"pairs", "letters", "classes"} and max(apart.values()) < 0.04
    wrong = script.laws(one[0], np.roll(one[1], 1, -1))
    assert script.apart(script.laws(*one), wrong)["pairs"] > 0.5
    law = script.law_of(data)
    given = -law.log_given(jnp.asarray(one[0][:64], jnp.int32), jnp.asarray(one[1][:64]))
    assert 0 < float(given.mean()) < float(-law.chain.log_likelihood(one[0][:64]).mean())
    script.pairs_of(tmp_path / "p.jsonl", one[0][:3], one[1][:3])
    (text, signal), *_ = read_pairs(str(tmp_path / "p.jsonl"), 4)
    assert text == "".join("abcd"[i] for i in one[0][0])
    np.testing.assert_allclose(signal, one[1][0], atol=1e-5)


def test_a_line_of_the_table(script):
    bounds = {str(n): [1.0 + 0.1 / n, 0.01] for n in (1, 2, 4, 32)}
    run = {"method": "joint", "noise": 0.5, "joint": {"pairs": 0.02}, "entropy": 0.9}
    run |= {"correlation": 0.1, "teacher": bounds, "student": bounds, "student_learned": bounds}
    line = script.table([run, run | {"joint": {"pairs": 0.04}}]).splitlines()[-1]
    assert line.startswith("| joint | 0.5 | 0.0300 +- 0.0100 | 0.9000 | 0.1000 | 1.0031 +- 0.0000")
    assert "| 0.0969 +- 0.0000 | 1.0500 +- 0.0000; 1.0250 +- 0.0000 |" in line
