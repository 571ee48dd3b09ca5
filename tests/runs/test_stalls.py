"""A main thread that does not get on is shown, again and again, and ended where that was asked."""

import os
import subprocess
import sys
import time

import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.runs import stalls
from ldd_jax.runs.stalls import Stalls


def stuck(seconds):
    """Stands here, for the stack to show."""
    time.sleep(seconds)


def test_where_it_stands(capfd):
    watch = Stalls(0.2 / 60, False)
    watch.begin()
    for update in range(6):  # slower than nothing, faster than the limit
        watch.beat(f"update {update}")
        time.sleep(0.05)
    assert "no progress" not in capfd.readouterr().err
    stuck(0.55)
    watch.end()
    said = capfd.readouterr().err
    assert said.count("no progress") == 2, said
    assert "process 0 of 1" in said and "since update 5" in said and "stuck(0.55)" in said
    stuck(0.4)
    assert capfd.readouterr().err == ""


def test_it_ends_the_process_where_it_shall():
    code = (
        "import time; from ldd_jax.runs.stalls import Stalls; w = Stalls(0.005, True); w.begin()\n"
        "w.beat('update 7'); time.sleep(60)"
    )
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 75 and "since update 7" in done.stderr, done
    assert "the same command goes on" in done.stderr


def test_off_and_refused(monkeypatch):
    monkeypatch.setattr(stalls.threading, "Thread", None)
    Stalls(0, False).begin()
    for given in ((-1, False), (0, True)):
        with pytest.raises(UserError, match="--stall"):
            Stalls(*given)
