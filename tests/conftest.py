"""Fixtures for all tests."""

import contextlib
import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from ldd_jax.config import loading, plugins
from ldd_jax.core import registry
from ldd_jax.core.memory import keep_freed_memory

keep_freed_memory()  # as the command line does: otherwise a third of the time is page faults

# Shorter compilations are not worth a file.
KEPT = {
    "jax_persistent_cache_min_compile_time_secs": 0.1,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@contextlib.contextmanager
def compiled_into(folder, settings):
    """Programs are kept in `folder`, by this process and by those that it starts."""
    settings = {"jax_compilation_cache_dir": str(folder), **settings}
    before = {name: jax.config.values[name] for name in settings}
    environment = {name.upper(): os.environ.get(name.upper()) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value).lower() if value is True else str(value)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        for name, value in environment.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session", autouse=True)
def keep_programs(cache_folder):
    """Equal programs are compiled once by a test process and all that it starts."""
    with compiled_into(cache_folder, KEPT):
        yield


@pytest.fixture(scope="session", autouse=True)
def note_elsewhere(tmp_path_factory):
    """What is noted of the user's plugins is noted in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def own_registry(monkeypatch):
    """Components of files outside the package that a test loads are forgotten after it."""
    held = lambda: {(k, n) for k in registry.kinds() for n in registry.names(k)}
    before = held()
    monkeypatch.setattr(loading, "RAN", {})
    yield
    for kind, name in held() - before:
        if not plugins.inside(registry.find(kind, name)):
            del registry._CLASSES[kind][name]
            if not registry.names(kind):
                del registry._CLASSES[kind]


@pytest.fixture
def x64():
    """Double precision, for exact oracles."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict():
    """No silent broadcasting between ranks."""
    with jax.numpy_rank_promotion("raise"):
        yield
