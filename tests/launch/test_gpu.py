"""The GPU benchmark's trial on a CPU, and which attention a GPU gets."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from ldd_jax.denoisers import attention
from ldd_jax.planning import chips

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "gpu.py"


def run(folder, *flags):
    command = [sys.executable, str(SCRIPT), f"--output={folder}", *flags]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_trial_fills_the_json_and_the_table(tmp_path):
    done = run(tmp_path, "--small", "--what=attention,mdlm,torch")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    kernels = found["attention"]
    assert kernels["plain"]["both_ms"] > 0
    assert kernels["plain"]["error"] < 0.02 and kernels["packed auto"]["error"] < 0.02
    assert "refused" in kernels["cudnn"] and "refused" in kernels["splash"]
    assert found["mdlm"]["operations_per_update"] > 0 and found["mdlm"]["mfu"] is None
    assert "torch" in found["torch"].get("error", "") or "mdlm" in found["torch"]
    assert "| mdlm | tokens per s |" in (tmp_path / "gpu.md").read_text()


def test_an_unknown_part_is_refused(tmp_path):
    done = run(tmp_path, "--what=speed")
    assert done.returncode == 2 and "unknown part 'speed'; known: shares" in done.stderr


def test_a_part_that_fails_or_hangs_is_told(tmp_path):
    done = run(tmp_path, "--what=attention", "--minutes=0.02")
    assert done.returncode == 0
    assert json.loads((tmp_path / "gpu.json").read_text()) == {
        "attention": {"error": "not done in 1 s"}
    }


def test_cudnn_takes_half_precision_and_small_heads():
    shape = lambda dtype, channels: jax.ShapeDtypeStruct((2, 64, 4, channels), dtype)
    assert attention.for_cudnn(shape(jnp.bfloat16, 64)) and attention.for_cudnn(
        shape(jnp.float16, 128)
    )
    for dtype, channels in ((jnp.float32, 64), (jnp.bfloat16, 12), (jnp.bfloat16, 256)):
        assert not attention.for_cudnn(shape(dtype, channels))
    q = jnp.zeros((1, 128, 2, 64))
    with pytest.raises(ValueError, match="float16 or bfloat16"):
        attention.cudnn(q, q, q)


def test_a_gpu_gets_cudnn_where_it_can(monkeypatch):
    """Seen in the traced branches: no GPU is needed for that, nor is cuDNN."""
    called = []
    note = lambda name: lambda q, *rest: called.append(name) or q
    monkeypatch.setattr(attention, "cudnn", note("cudnn"))
    monkeypatch.setattr(attention, "fused", note("fused"))
    fresh = lambda: lambda q, k, v: attention.by_platform(q, k, v)  # traces are kept by function
    trace = lambda dtype: jax.make_jaxpr(fresh())(*[jnp.zeros((1, 128, 2, 64), dtype)] * 3)
    trace(jnp.bfloat16)
    assert called == ["fused"]  # no GPU here
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform="gpu")])
    called.clear()
    trace(jnp.bfloat16)
    assert called == ["cudnn"]
    called.clear()
    trace(jnp.float32)
    assert called == ["fused"]


def test_mfu_knows_the_card():
    one = SimpleNamespace(device_kind="NVIDIA H200")
    assert chips.peak([one, one]) == 2 * 989e12
    assert chips.peak([SimpleNamespace(device_kind="cpu")]) is None
