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
import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ldd_jax.config import loading, trust
from ldd_jax.config.trust import Source
from ldd_jax.core import reading, registry, writing
from ldd_jax.core.checks import UserError, require
from ldd_jax.core.console import say
from ldd_jax.core.private import ours

RECORD = "plugins.json"
PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep


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


@contextlib.contextmanager
def named(given: Iterable[str]) -> Iterator[None]:
    """Load what the user names; inside, workdirs may be opened that need it.

    Args:
      given: files, or names of modules.

    Raises:
      UserError: for what is neither, or fails.
    """
    outer = _SCOPE.get()
    sources = dict.fromkeys([*outer.named, *map(loading.load, given)])
    before = _SCOPE.set(Scope(list(sources), outer.said))
    try:
        yield
    finally:
        _SCOPE.reset(before)


def name_config(file: str) -> None:
    """A config file that the user named counts as a plugin if it registers components."""
    path = os.path.realpath(file)
    if path in _registering():
        loading.RAN[path] = loading.digest(loading.contents(Path(path)))
        _SCOPE.get().named.append(Source(path, loading.RAN[path]))


def _registering() -> set[str]:
    """Files whose classes are registered."""
    found = (registry.find(k, n) for k in registry.kinds() for n in registry.names(k))
    return {registry.origin(cls) for cls in found}


def inside(cls: type) -> bool:
    """Whether a component is the package's own."""
    return registry.origin(cls).startswith(PACKAGE)


def used(config: ConfigDict) -> list[Source]:
    """Files outside the package that hold the components of a config, imported by a config file."""
    sections = {k: v for k, v in config.to_dict().items() if isinstance(v, Mapping)}
    found = (cls for kind, section in sections.items() for cls in outside(kind, section))
    return list({(one := _source(cls)).path: one for cls in found}.values())


def outside(kind: str, section: Mapping[str, Any]) -> list[type]:
    """The components of a section that stand in files outside the package."""
    return [
        cls
        for cls in registry.classes(kind, section)
        if os.path.isabs(registry.origin(cls)) and not inside(cls) and cls.__module__ != "__main__"
    ]


def digests(kind: str, section: Mapping[str, Any]) -> dict[str, str]:
    """Sixteen digits of the SHA-256 of each such component's file; results are told apart by it."""
    return {" ".join(c.registered): _source(c).sha256[:16] for c in outside(kind, section)}  # type: ignore[attr-defined]


def _source(cls: type) -> Source:
    """The file of a component, as it ran."""
    file, module = registry.origin(cls), sys.modules.get(cls.__module__)
    dotted = module is not None and bool(module.__package__)
    digest = loading.RAN.get(file) or loading.digest(loading.contents(Path(file)))
    return Source(file, digest, cls.__module__ if dotted else "")


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
    data = loading.contents(path)
    if loading.digest(data) != source.sha256:
        why = _doubtful(path)
        require(
            not why,
            f"{source.path} has changed since you named it for {workdir}, and {why}; read it, then "
            + hint,
        )
    if not source.module:
        return loading.run(path, data)
    spec = loading.located(source.module)
    require(
        spec is not None and bool(spec.origin) and Path(spec.origin).resolve() == path,
        f"{workdir} was made with the module {source.module} of {path}, which Python does not find "
        f"there now; {hint} where it does",
    )
    return loading.imported(source.module, path)


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
    listed = [dataclasses.replace(s, sha256=loading.RAN.get(s.path, s.sha256)) for s in kept]
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
    if not (path.exists() or path.is_symlink()):
        return None
    try:
        found = reading.read_json(path)
        token, listed = found["token"], trust.sources(found["plugins"])
        if not isinstance(token, str):
            raise ValueError("its token is no text")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no record of plugins: {error}") from error
    return token, listed
