"""A corpus, a compilation cache for the session, and one trained workdir per method."""

from __future__ import annotations

import collections

import pytest
from absl import logging
from jax import monitoring

from tests.cli import tools
from tests.conftest import compiled_into

# Every program is worth a file: many commands make the same.
CACHE = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="package", autouse=True)
def compile_once(cache_folder):
    """Equal programs are compiled once for all tests of this folder, subprocesses included."""
    with compiled_into(cache_folder, CACHE):
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # as the console entry point does
        yield
        logging.set_verbosity(verbosity)


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(tools.sentences(400))
    return path


@pytest.fixture(scope="session")
def train_flags(text):
    """What a tiny training run is given besides --config and --workdir."""
    return (*tools.corpus(text), *tools.SIZES, *tools.OPTIM, *tools.STEPS)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, train_flags):
    """method -> workdir, trained at the first request; tests must not change it."""
    done = {}

    def get(method):
        if method not in done:
            workdir = tmp_path_factory.mktemp("runs") / method
            tools.good("train", tools.recipe(method), f"--workdir={workdir}", *train_flags)
            done[method] = workdir
        return done[method]

    return get


class Compiled(list):
    """Names of the functions compiled (or fetched from the cache); called, it counts them."""

    def __call__(self):
        return collections.Counter(self)


SEEN = Compiled()


def _listen(event, duration, **facts):
    if event == "/jax/core/compile/backend_compile_duration":
        SEEN.append(facts["fun_name"])


monitoring.register_event_duration_secs_listener(_listen)


@pytest.fixture
def compiled():
    """What was compiled since the test began."""
    SEEN.clear()
    return SEEN
