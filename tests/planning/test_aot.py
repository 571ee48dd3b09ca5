"""The tiny train step and sampler compile for a named slice where libtpu is at hand."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TPU = ROOT / ".tpu"  # where `make test` puts libtpu, away from the environment


def plan(*argv):
    path = os.pathsep.join(filter(None, (str(TPU), os.environ.get("PYTHONPATH", ""))))
    return subprocess.run(
        [sys.executable, "-m", "ldd_jax", "plan", *argv],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_bad_slices_are_refused_in_one_line():
    for given in ("v5e", "h100:2x2"):
        done = plan("--config=configs/quickstart.py", f"--topology={given}")
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert given.partition(":")[0] in done.stderr


@pytest.mark.slow
def test_operations_as_json():
    done = plan("--config=configs/quickstart.py", "--what=flops", "--vocabulary=95", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["step"] > found["plain_step"] > 0
    assert found["ratio_to_plain"] == pytest.approx(found["step"] / found["plain_step"])


HAVE = TPU.is_dir() or importlib.util.find_spec("libtpu") is not None


@pytest.mark.slow
@pytest.mark.parametrize("what", ["train", "sample"] if HAVE else [])
def test_the_tiny_program_compiles_for_a_slice(what):
    done = plan(
        "--config=configs/text.py:method=lddm_m,size=tiny",
        f"--what={what}",
        "--topology=v5e:2x2",
        "--vocabulary=9999",
        "--per_chip=8",
        "--config.objective.tile=64",
        "--config.sampling.tile=64",
        "--config.mesh.data=2",
        "--config.mesh.fsdp=2",
        "--json",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["mesh"]["fsdp"] == 2 and 0 < found["gib_per_device"]["peak"] < 1
    # Nothing of [sequences of a chip, length, vocabulary] in float32.
    assert found["largest_float32_elements"] < 8 * 64 * 10_000
    if what == "sample":
        assert found["ratio_to_plain"] < 0.75
    else:
        assert found["collectives"]["all-gather"]["runs"] >= 3  # once a layer
        assert found["per_host"]["hosts"] == 1 and found["checkpoint_gib"] > 0
        assert all(s > 0 for s in found["estimate"]["roofline_seconds"].values())
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["host"] if HAVE else [])
def test_an_average_on_the_host_is_no_argument_of_the_chip(place):
    """Parameters and moments are, a fifth of their size being the layout's; a third tree is not."""
    done = plan(
        "--config=configs/text.py:method=mdlm,size=tiny",
        "--topology=v5e:2x2",
        "--vocabulary=9999",
        "--per_chip=8",
        "--config.mesh.data=1",
        "--config.mesh.fsdp=4",
        "--config.objective.tile=64",
        "--config.training.ema_on_host=True",
        "--json",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout[done.stdout.index("{") :])
    chip = found["gib_per_device"]
    assert chip["average"] == 0 < chip["parameters"] < chip["optimizer"]
    assert chip["arguments"] < 1.25 * (chip["parameters"] + chip["optimizer"])
    assert chip["arguments"] + chip["activations"] < chip["peak"]
    assert found["per_host"]["gib_of_average"] == pytest.approx(4 * chip["parameters"])
