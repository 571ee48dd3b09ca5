"""Fixtures for all tests."""

import jax
import pytest


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
