"""Fixtures for all tests."""

import jax
import pytest

from ldd_jax.core.memory import keep_freed_memory

keep_freed_memory()  # as the command line does: otherwise a third of the time is page faults


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
