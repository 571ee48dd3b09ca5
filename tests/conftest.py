"""Fixtures for all tests: one folder of compiled programs, and compilers that hurry."""

import contextlib
import gc
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from ldd_jax.config import loading, plugins
from ldd_jax.core import registry
from ldd_jax.core.memory import collect_seldom, keep_freed_memory
from tests import programs
from tests.buckets import bucket, faulty  # noqa: F401

keep_freed_memory()  # as the command line does: otherwise a third of the time is page faults

WORKER = "PYTEST_XDIST_WORKER"

# Rooms that train and sample whole programs, where compiling is most of the time. Numbers, draws
# and laws are tested in the other rooms, by programs as users compile them.
HURRIED = {"cli", "config", "contracts", "evaluation", "faults", "inference", "interop"}
HURRIED |= {"launch", "oracle", "runs", "tests", "training"}

# Shorter compilations are not worth a file.
KEPT = {
    "jax_persistent_cache_min_compile_time_secs": 0.05,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}

# XLA's newer way to write fused loops for a CPU takes most of the time of a compilation, LLVM's
# optimisations half of what is left, for programs that run as fast without; two cores do not need
# 32 pieces.
QUICK = (
    "--xla_cpu_use_fusion_emitters=false "
    "--xla_backend_optimization_level=1 "
    "--xla_cpu_parallel_codegen_split_count=4"
)


@pytest.hookimpl(trylast=True)  # pytest's cache is there
def pytest_configure(config):
    """Before anything is compiled: XLA reads its flags once, child processes take them over."""
    collect_seldom()  # as the command line does: a third of the time of finding all tests
    if WORKER not in os.environ and hasattr(config, "cache"):
        with contextlib.suppress(OSError):  # nothing can be written there
            place = programs.kept(config.cache.mkdir("programs"))
            os.environ.setdefault("TEST_PROGRAMS", str(place))
    flags = os.environ.get("XLA_FLAGS", "")
    if QUICK not in flags and WORKER not in os.environ:
        flags = f"{flags} {QUICK}".strip()
        known = subprocess.run(  # XLA ends a process whose flags it does not know
            [sys.executable, "-c", "import jax; jax.jit(lambda x: x + 1)(1.0)"],
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
        )
        if known.returncode == 0:
            os.environ["XLA_FLAGS"] = flags


# Files that take longest, longest first: a run of two processes ends when the longer one does.
LONGEST = (
    "cli/test_recipes.py",
    "cli/test_bench.py",
    "faults/test_kills.py",
    "cli/test_kill.py",
    "runs/test_warm_start.py",
    "tasks/test_overfit.py",
    "planning/test_hlo.py",
    "planning/test_aot.py",
    "training/test_sharding.py",
    "training/test_distributed.py",
)


def pytest_collection_modifyitems(items):
    """Files of `LONGEST` come first; what is left keeps its order."""
    first = {Path(__file__).parent / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))


def pytest_collection_finish():
    """All tests stay."""
    gc.freeze()


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
    """One for all test processes, TEST_PROGRAMS; of this run alone where pytest has no cache."""
    if os.environ.get("TEST_PROGRAMS"):
        return Path(os.environ["TEST_PROGRAMS"])
    if WORKER in os.environ:  # a worker's folder lies in that of the run
        folder = tmp_path_factory.getbasetemp().parent / "compiled"
        folder.mkdir(exist_ok=True)
        return folder
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session", autouse=True)
def keep_programs(cache_folder):
    """Equal programs are compiled once by all test processes and all that they start."""
    with compiled_into(cache_folder, KEPT):
        yield


@pytest.fixture(scope="module", autouse=True)
def hurry(request, cache_folder):
    """Leave optimisations out in the rooms of `HURRIED`; killed runs put them back."""
    settings = {"jax_disable_most_optimizations": True}
    hurried = request.path.parent.name in HURRIED
    with compiled_into(cache_folder, settings) if hurried else contextlib.nullcontext():
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
