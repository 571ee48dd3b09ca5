"""Programs of the tests that outlive a run."""

import os

import jax
import jax.numpy as jnp
from jax._src.compilation_cache import compress_executable

from ldd_jax.core.compilation import processor
from ldd_jax.planning import aot
from tests import programs
from tests.conftest import KEPT, compiled_into


def test_torn_and_old_entries_go(tmp_path):
    folder = programs.kept(tmp_path, now=0)
    assert folder.parent == tmp_path and processor().startswith(folder.name)
    entry = compress_executable(b"a program" * 99)
    sound = {"new": entry, "old": entry}
    for name, data in (sound | {"torn": entry[:-1], "empty": b"", "other": b"text"}).items():
        (folder / name).write_bytes(data)
    day = 86400
    os.utime(folder / "old", (0, 0))
    os.utime(folder / "new", (day, day))
    assert programs.kept(tmp_path, now=(programs.AGE + 0.5) * day) == folder
    assert [f.name for f in folder.iterdir()] == ["new"]


def test_what_jax_keeps_is_whole(tmp_path):
    settings = KEPT | {"jax_persistent_cache_min_compile_time_secs": 0}
    with compiled_into(programs.kept(tmp_path), settings):
        jax.jit(lambda x: jnp.sin(x) * 3)(1.0)
    before = sorted(f.name for f in programs.kept(tmp_path).iterdir())
    assert before and sorted(f.name for f in programs.kept(tmp_path).iterdir()) == before


def test_what_is_planned_is_compiled_anew_and_not_kept(tmp_path):
    """And what comes before and after it is kept as ever."""
    settings = KEPT | {"jax_persistent_cache_min_compile_time_secs": 0}
    scaled = lambda k: jax.jit(lambda x: jnp.sin(x) * k)
    kept = lambda: len(list(tmp_path.glob("*-cache")))
    with compiled_into(tmp_path, settings):
        scaled(3)(1.0)
        before = kept()
        found = aot.Compiled.of(scaled(5).lower(1.0))
        assert before > 0 and kept() == before and "sine" in found.text
        scaled(7)(1.0)
        assert kept() > before
