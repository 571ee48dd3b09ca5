"""A bucket in memory, whole or with faults."""

from __future__ import annotations

import fsspec
import pytest

from ldd_jax.core.buckets import Bucket
from ldd_jax.core.storage import at


@pytest.fixture
def bucket():
    """An empty bucket of this process."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield at("memory://b")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def objects():
    return {n: bytes(f.getvalue()) for n, f in fsspec.filesystem("memory").store.items()}


class Faulty:
    """A file system of which some calls fail where a name holds `where`."""

    def __init__(self, fs, calls, error, where):
        self.fs, self.calls, self.error, self.where = fs, calls, error, where

    def __getattr__(self, name):
        def failing(*args, **options):
            if any(self.where in str(a) for a in args):
                raise self.error
            return getattr(self.fs, name)(*args, **options)

        return failing if name in self.calls else getattr(self.fs, name)


@pytest.fixture
def faulty(monkeypatch):
    def set_up(error, *calls, where=""):
        fs = Faulty(fsspec.filesystem("memory"), calls, error, where)
        monkeypatch.setattr(Bucket, "fs", property(lambda self: fs))

    return set_up
