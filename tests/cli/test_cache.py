"""Kept programs as a command meets them: the same samples with a good, a bad and no folder."""

from __future__ import annotations

import stat

import pytest

from tests.cli import tools

# Of the test session's own cache nothing is known here.
CLEAN = {"JAX_COMPILATION_CACHE_DIR": "", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3"}


@pytest.mark.slow
def test_a_command_keeps_its_programs(trained, tmp_path):
    out = tmp_path / "s.jsonl"

    def sample(*flags):
        given = (f"--workdir={trained('lddm_m')}", f"--output={out}", "--num_samples=2", *flags)
        env = {**CLEAN, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        run = tools.process("sample", *given, env=env)
        assert run.status == 0 and len(run.err.splitlines()) == 1, run  # no warnings
        return run.out

    place = tmp_path / "cache" / "ldd_jax" / "programs"
    first = sample("--nocompilation_cache")
    assert not place.exists()
    assert sample() == first
    kept = {f: f.read_bytes() for f in place.iterdir()}
    assert len(kept) >= 1 and stat.S_IMODE(place.stat().st_mode) == 0o700
    times = {f: f.stat().st_mtime_ns for f in kept}
    assert sample() == first
    # Read and marked as used.
    assert kept == {f: f.read_bytes() for f in kept}
    assert all(f.stat().st_mtime_ns > times[f] for f in kept)
    for number, (path, whole) in enumerate(kept.items()):
        path.write_bytes(whole[: len(whole) // 2] if number % 2 else b"\0" + whole[1:])
    assert sample() == first
    place.chmod(0o777)
    assert sample() == first and stat.S_IMODE(place.stat().st_mode) == 0o777  # not touched
