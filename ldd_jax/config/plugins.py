"""Components in files of the user's own: loaded because this user named them, for no other reason.

Named are `--plugin`, `plugins=` and a config file that registers. A run writes down what it was
given (`plugins.json`); later commands load it again if `trust` knows that this user named it for
this workdir. Of a workdir from elsewhere nothing is loaded: its record is shown, and the command
ends unless the user names code themselves.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import os
import secrets
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ldd_jax.config import trust
from ldd_jax.config.trust import Source
from ldd_jax.core import reading, registry, writing
from ldd_jax.core.checks import UserError, require
from ldd_jax.core.console import say
from ldd_jax.core.private import ours

RECORD = "plugins.json"
LARGEST = 1 << 24  # bytes of a file of code
PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep

# What ran in this process: SHA-256 by real path.
_RAN: dict[str, str] = {}


@dataclasses.dataclass
class Scope:
    """A command, or a call of `load`: what the user named for it, and what it has said."""

    named: list[Source] = dataclasses.field(default_factory=list)
    said: set[str] = dataclasses.field(default_factory=set)

    def say(self, text: str) -> None:
        """A line on stderr, once."""
        if text not in self.said:
            self.said.add(text)
            say(f"ldd_jax: {text}", error=True)


_SCOPE: contextvars.ContextVar[Scope] = contextvars.ContextVar("scope", default=Scope())  # noqa: B039


class _Read(importlib.abc.ExecutionLoader):
    """A module from bytes that were read once: what runs is what the digest is of."""

    def __init__(self, path: str, data: bytes):
        self.path, self.data = path, data

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self.data)


@contextlib.contextmanager
def named(given: Iterable[str]) -> Iterator[None]:
    """Load what the user names; inside, workdirs may be opened that need it.

    Args:
      given: files, or names of modules.

    Raises:
      UserError: for what is neither, or fails.
    """
    before = _SCOPE.set(Scope(list(dict.fromkeys(map(load, given)))))
    try:
        yield
    finally:
        _SCOPE.reset(before)


def load(given: str) -> Source:
    """Run the file, or import the module, that the user named.

    Raises:
      UserError: for what is neither, or fails.
    """
    path = Path(given)
    if path.is_file():
        return _run(path, _bytes(path))
    spec = _located(given) if all(part.isidentifier() for part in given.split(".")) else None
    file = Path(spec.origin) if spec and spec.origin else None
    require(
        file is not None and file.is_file() and file.suffix == ".py",
        f"--plugin={given}: no such file, and no module of that name; give FILE.py or a name that "
        "Python imports",
    )
    assert file is not None
    # A module that stands alone is its file, wherever a later command is typed.
    alone = "." not in given and file.stem == given
    return _run(file, _bytes(file)) if alone else _import(given, file)


def name_config(file: str) -> None:
    """A config file that the user named counts as a plugin if it registers components."""
    path = os.path.realpath(file)
    if path in _registering():
        _RAN[path] = _digest(_bytes(Path(path)))
        _SCOPE.get().named.append(Source(path, _RAN[path]))


def _registering() -> set[str]:
    """Files whose classes are registered."""
    found = (registry.find(k, n) for k in registry.kinds() for n in registry.names(k))
    return {registry.origin(cls) for cls in found}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _bytes(path: Path) -> bytes:
    try:
        return reading.read(path, LARGEST)
    except OSError as error:
        raise UserError(f"cannot read the plugin {path}: {error.strerror or error}") from error


def _run(path: Path, data: bytes) -> Source:
    """Run a file; not again in this process if it is what ran."""
    source = Source(str(path.resolve()), _digest(data))
    if _RAN.get(source.path) == source.sha256:
        return source
    name = f"plugin_{path.stem}_{_digest(source.path.encode())[:8]}"
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
    _RAN[source.path] = source.sha256
    return source


def _import(name: str, file: Path) -> Source:
    file = file.resolve()
    with _failing(file):
        importlib.import_module(name)
    source = Source(str(file), _digest(_bytes(file)), name)
    _RAN[source.path] = source.sha256
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


def _located(name: str) -> Any:
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


def inside(cls: type) -> bool:
    """Whether a component is the package's own."""
    return registry.origin(cls).startswith(PACKAGE)


def used(config: ConfigDict) -> list[Source]:
    """Files outside the package that hold the components of a config, imported by a config file."""
    files: dict[str, Source] = {}
    sections = {k: v for k, v in config.to_dict().items() if isinstance(v, Mapping)}
    for cls in (c for kind, section in sections.items() for c in registry.classes(kind, section)):
        file = registry.origin(cls)
        module = sys.modules.get(cls.__module__)
        if os.path.isabs(file) and not inside(cls) and cls.__module__ != "__main__":
            digest = _RAN.get(file) or _digest(_bytes(Path(file)))
            dotted = module is not None and bool(module.__package__)
            files[file] = Source(file, digest, cls.__module__ if dotted else "")
    return list(files.values())


def restore(workdir: Path) -> list[Source]:
    """Load what a run was trained with, if this user named it for that run.

    Returns:
      What its record lists and is loaded now; empty for a run without plugins.

    Raises:
      UserError: for a record that this user did not make, unless they named code for the command.
    """
    record = _record(workdir)
    if record is None:
        return []
    token, recorded = record
    if not recorded:
        return []
    known, scope = trust.recall(workdir.resolve(), token), _SCOPE.get()
    given = scope.named
    code = f"{workdir} was made with code of its own ({', '.join(one.name for one in recorded)})"
    if known is None:
        require(
            bool(given),
            f"{code}, and not by you at this place: it comes from elsewhere, or was moved; read "
            "that code, then give --plugin=FILE",
        )
        scope.say(f"{code}, elsewhere or before it was moved; of it only --plugin is loaded")
        return list(given)
    loaded = [_again(one, workdir) for one in known if not any(_answers(g, one) for g in given)]
    for one in (*loaded, *given):
        was = next((r for r in recorded if r.name == one.name), one)
        if was.sha256 != one.sha256:
            scope.say(
                f"{one.name} has changed since {workdir} was made with it (SHA-256 "
                f"{was.sha256[:12]} then, {one.sha256[:12]} now)"
            )
    return [*loaded, *given]


def _answers(given: Source, recorded: Source) -> bool:
    """Whether what the user names now stands for what was named before."""
    return (
        given.path == os.path.realpath(recorded.path)
        or given.name == recorded.name
        or given.sha256 == recorded.sha256
    )


def _again(source: Source, workdir: Path) -> Source:
    """Load what this user named before.

    Raises:
      UserError: if it is not there, or was changed where others may have done it.
    """
    path = Path(source.path)
    hint = f"give --plugin={source.module or source.path}"
    require(
        path.is_file(),
        f"{workdir} was made with {source.path}, which is not there; give --plugin=FILE",
    )
    data = _bytes(path)
    if _digest(data) != source.sha256:
        why = _doubtful(path)
        require(
            not why,
            f"{source.path} has changed since you named it for {workdir}, and {why}; read it, then "
            + hint,
        )
    if not source.module:
        return _run(path, data)
    spec = _located(source.module)
    require(
        spec is not None and bool(spec.origin) and Path(spec.origin).resolve() == path,
        f"{workdir} was made with the module {source.module} of {path}, which Python does not find "
        f"there now; {hint} where it does",
    )
    return _import(source.module, path)


def _doubtful(path: Path) -> str:
    """Why a file that has changed may not be the user's own doing; "" = it is theirs alone."""
    if path.resolve() != path or not ours(path):
        return "it is not yours alone (others may write it, or a folder above it)"
    within = [p for p in path.parents if (p / "config.json").exists() or (p / RECORD).exists()]
    return f"it is inside the workdir {within[0]}" if within else ""


def record(workdir: Path, config: ConfigDict, place: Path | None = None) -> None:
    """Write what the user named, and what the config uses besides, into the workdir and `trust`.

    Args:
      workdir: to write into.
      config: of the run.
      place: where the workdir will be, if not there.
    """
    place = (place or workdir).resolve()
    before = _record(workdir)
    token, recorded = before or ("", [])
    known = trust.recall(place, token)
    found = {s.path: s for s in (*used(config), *_SCOPE.get().named)}
    kept = [one for one in known or [] if not any(_answers(g, one) for g in found.values())]
    listed = [dataclasses.replace(s, sha256=_RAN.get(s.path, s.sha256)) for s in kept]
    listed += found.values()
    if not listed and before is None:
        return
    if known is None or listed != recorded:
        token = token if known is not None else secrets.token_hex(16)
        text = {"token": token, "plugins": [dataclasses.asdict(s) for s in listed]}
        writing.write(workdir / RECORD, json.dumps(text, indent=1) + "\n")
    if not trust.remember(place, token, listed):
        _SCOPE.get().say(
            "no folder of yours alone to note plugins in (XDG_STATE_HOME); later commands need "
            "--plugin again"
        )


def _record(workdir: Path) -> tuple[str, list[Source]] | None:
    """Token and sources of a workdir's record; None if it has none.

    Raises:
      UserError: if it cannot be read.
    """
    path = workdir / RECORD
    if not os.path.lexists(path):
        return None
    try:
        found = reading.read_json(path)
        token, listed = found["token"], trust.sources(found["plugins"])
        if not isinstance(token, str):
            raise ValueError("its token is no text")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no record of plugins: {error}") from error
    return token, listed
