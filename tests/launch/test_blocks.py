"""The table of blocks at its smallest, and what --speed times."""

import argparse
import importlib
import json

import numpy as np
import pytest

from tests.cli import tools
from tests.training.processes import ROOT


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    return importlib.import_module("blocks")


@pytest.mark.slow
def test_a_line_of_the_table(script, tmp_path, monkeypatch):
    text = tmp_path / "t.txt"
    text.write_text(tools.sentences(200))
    monkeypatch.setattr(script.cells, "logged", lambda _, argv: tools.good(*argv[3:]))
    monkeypatch.setattr(script, "operations", lambda name: {"full": 1.0}.get(name, 2.0))
    flags = [*tools.SIZES, *tools.OPTIM, *tools.corpus(text)]
    chosen = argparse.Namespace(output=tmp_path, updates=6, samples=2, judge="ngram")
    found = script.run("block4_latent", "0", chosen, flags)
    summary = json.loads((tmp_path / "block4_latent-0" / "summary.json").read_text())
    assert summary["step"] == found["updates"] == 3
    assert found["score"]["estimator"] == "k_form" and found["cell"]["latent"] == "carry"
    assert found["cell"]["calls"] == 4 * (4 + 1)
    line = script.table([found, found]).splitlines()[-1]
    assert line.startswith("| block4_latent | 3 | ") and "+- 0.0000" in line


@pytest.mark.slow
def test_doubled_rows_and_first_passes_cost_updates(script):
    """An update of blocks is at least twice one of whole rows, with the latent more."""
    full, block, latent = map(script.operations, ("full", "block16", "block16_latent"))
    assert 1.7 < block / full < 2.6 and 1.1 < latent / block < 1.5


@pytest.mark.slow
def test_what_is_timed_makes_the_same_tokens(script, monkeypatch):
    monkeypatch.setattr(script, "FIELDS", dict(width=16, depth=1, heads=2, cond_width=8))
    made = script.programs(8, 4, 1)
    cached, row = (made[f"block 4, {kind}, latent"](3) for kind in ("cached", "recomputed"))
    np.testing.assert_array_equal(cached, row)
    assert set(made) > {"left to right, cached", "block 4, cached"}
