"""Files and modules of the user's own: each runs once, and is known by what was in it.

Whoever calls this has made sure that the user named the code; `plugins` decides that.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ldd_jax.config.trust import Source
from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, require

LARGEST = 1 << 24  # bytes of a file of code

# What ran in this process: SHA-256 by real path.
RAN: dict[str, str] = {}


class _Read(importlib.abc.ExecutionLoader):
    """A module from bytes that were read once: what runs is what the digest is of."""

    def __init__(self, path: str, data: bytes):
        self.path, self.data = path, data

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self.data)


def load(given: str) -> Source:
    """Run the file, or import the module, that the user named.

    Raises:
      UserError: for what is neither, or fails.
    """
    path = Path(given)
    if path.is_file():
        return run(path, contents(path))
    spec = located(given) if all(part.isidentifier() for part in given.split(".")) else None
    file = Path(spec.origin) if spec and spec.origin else None
    require(
        file is not None and file.is_file() and file.suffix == ".py",
        f"--plugin={given}: no such file, and no module of that name; give FILE.py or a name that "
        "Python imports",
    )
    assert file is not None
    # A module that stands alone is its file, wherever a later command is typed.
    alone = "." not in given and file.stem == given
    return run(file, contents(file)) if alone else imported(given, file)


def digest(data: bytes) -> str:
    """SHA-256 in hex digits."""
    return hashlib.sha256(data).hexdigest()


def contents(path: Path) -> bytes:
    """The bytes of a file of code.

    Raises:
      UserError: if it cannot be read.
    """
    try:
        return reading.read(path, LARGEST)
    except OSError as error:
        raise UserError(f"cannot read the plugin {path}: {error.strerror or error}") from error


def run(path: Path, data: bytes) -> Source:
    """Run a file of these contents; not again in this process if it is what ran.

    Raises:
      UserError: if it fails.
    """
    source = Source(str(path.resolve()), digest(data))
    if RAN.get(source.path) == source.sha256:
        return source
    name = f"plugin_{path.stem}_{digest(source.path.encode())[:8]}"
    loader = _Read(source.path, data)
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _failing(path):
            loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    RAN[source.path] = source.sha256
    return source


def imported(name: str, file: Path) -> Source:
    """Import a module, which stands in `file`.

    Raises:
      UserError: if it fails.
    """
    file = file.resolve()
    with _failing(file):
        importlib.import_module(name)
    source = Source(str(file), digest(contents(file)), name)
    RAN[source.path] = source.sha256
    return source


@contextlib.contextmanager
def _failing(path: Path) -> Iterator[None]:
    """Whatever goes wrong in the user's code, in one line with its place."""
    try:
        yield
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else frames and frames[-1].lineno
        where = f", line {line}" if line else ""
        raise UserError(
            f"the plugin {path} failed: {type(error).__name__}: {error}{where}"
        ) from error


def located(name: str) -> Any:
    """The spec of a module, or None; nothing is imported, the packages that it is in neither."""
    path, spec, parts = None, None, name.split(".")
    for i in range(len(parts)):
        full = ".".join(parts[: i + 1])
        found = (finder.find_spec(full, path) for finder in sys.meta_path)  # type: ignore[attr-defined]
        spec = next(filter(None, found), None)
        path = spec.submodule_search_locations if spec else None
        if spec is None or (i + 1 < len(parts) and path is None):
            return None
    return spec
