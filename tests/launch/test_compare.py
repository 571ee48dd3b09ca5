"""The comparison with the plainly written model runs, and the two sides agree."""

import os
import subprocess
import sys

import pytest

from tests.training.processes import ROOT

TINY = dict(width=16, depth=2, heads=2, length=16, batch=4, vocabulary=16, tile=16, repeats=1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lddm_m", "udlm"])
def test_plain_and_tiled_agree(method):
    done = subprocess.run(
        [sys.executable, "launch/compare.py", f"--method={method}", "--calls=3",
         *(f"--{name}={value}" for name, value in TINY.items())],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        cwd=ROOT, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{method} train step" in done.stdout and f"{method} sample step" in done.stdout


@pytest.mark.slow
def test_shares_of_an_update_add_up():
    given = {**TINY, "updates": 1}
    del given["repeats"]
    done = subprocess.run(
        [sys.executable, "launch/shares.py", *(f"--{n}={value}" for n, value in given.items())],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        cwd=ROOT, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *rows, total = done.stdout.splitlines()
    assert abs(sum(float(row.split()[0]) for row in rows) - 100) < 1
    assert any("products of weights, backward" in row for row in rows) and "one update" in total
