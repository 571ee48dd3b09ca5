"""The comparison with a plain PyTorch network runs, and the two networks agree."""

import os
import subprocess
import sys

import pytest

from tests.training.processes import ROOT

torch = pytest.importorskip("torch")
TINY = dict(width=16, depth=2, unroll=2, heads=2, length=16, batch=4, vocabulary=16, tile=16)


@pytest.mark.parametrize("method", ["mdlm", "lddm_m"])
def test_both_sides_are_the_same_network(method):
    done = subprocess.run(
        [sys.executable, "launch/compare_torch.py", f"--method={method}", "--calls=3",
         "--repeats=1", *(f"--{name}={value}" for name, value in TINY.items())],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        cwd=ROOT, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{method} train step" in done.stdout and f"{method} sample step" in done.stdout
