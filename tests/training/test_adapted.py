"""A mask that opens: resumed in the middle to the bit, and the same on many devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training import adapted

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_annealing_goes_on_to_the_bit_and_is_the_same_on_eight_devices(tmp_path):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.adapted", str(tmp_path)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["resumed"] == found["one"] and found["same"]
    assert len(set(found["one"])) == adapted.STEPS + adapted.MORE
    for name, losses in found["many"].items():
        np.testing.assert_allclose(losses, found["one"], rtol=0, atol=1e-5, err_msg=name)
