"""What can be chosen, in words: registered components, and every field of a config."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, get_type_hints

from ml_collections import ConfigDict

from ldd_jax.config import packaged, plugins
from ldd_jax.core import registry
from ldd_jax.core.checks import UserError, nearest, require

RECIPE = "recipe"  # no registered kind: files


def listing(kind: str = "") -> list[str]:
    """Lines of all registered components, or of one kind: names and what their docstrings say.

    Raises:
      UserError: for an unknown kind.
    """
    known = [*registry.kinds(), RECIPE]
    require(not kind or kind in known, f"unknown kind {kind!r}; {nearest(kind, known)}")
    lines = []
    for each in [kind] if kind else known:
        if each == RECIPE:
            lines += packaged.lines()
            continue
        found = {name: registry.find(each, name) for name in registry.names(each)}
        wide = max(map(len, found))
        lines.append(f"{each}:")
        for name, cls in found.items():
            outside = "" if plugins.inside(cls) else f" ({Path(registry.origin(cls)).name})"
            lines.append(f"  {name:{wide}s}  {summary(cls)}{outside}")
    return lines


def summary(cls: type) -> str:
    """The first sentence of a class's own docstring."""
    return next(_sentences(_own_docstring(cls)), "")


def _own_docstring(cls: type) -> str:
    """Empty where there is none: `dataclass` makes one up."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    return "" if text.startswith(f"{cls.__name__}(") else text


def field_line(cls: type, name: str) -> str:
    """What the docstring of a class, or of those it comes from, says of a field.

    The entry of its Attributes, else the first sentence that names it in backquotes, else the first
    that names it at all.
    """
    texts = [_own_docstring(c) for c in cls.__mro__[:-1]]
    entry = re.compile(rf"^\s+{name}: (.+(?:\n\s{{4,}}.+)*)", re.M)
    for text in texts:
        if found := entry.search(text.partition("Attributes:")[2]):
            return " ".join(found[1].split())
    plain = [text.partition("Attributes:")[0] for text in texts]
    said = [
        s for text in plain if not text.startswith(f"{cls.__name__}(") for s in _sentences(text)
    ]
    for pattern in (rf"`{name}`", rf"\b{name}\b"):
        if found_in := next((s for s in said if re.search(pattern, s)), ""):
            return found_in
    return ""


def _sentences(text: str) -> Iterator[str]:
    """Of the paragraphs of a docstring, without the marks of its structure."""
    for paragraph in text.split("\n\n"):
        line = " ".join(paragraph.split())
        yield from filter(None, re.split(r"(?<=[^. ][.?!]) (?=[A-Z`])|(?<=;) (?=`)", line))


def explained(config: ConfigDict, field: str = "") -> list[str]:
    """Lines of a config: every field with its value, type, default and docstring line.

    Args:
      config: of a run.
      field: dotted path of the section or field that is asked for; "" = all.

    Raises:
      UserError: for a field that the config has not.
    """
    lines: dict[str, str] = {}
    for name in sorted(config, key=lambda n: isinstance(config[n], ConfigDict)):
        value = config[name]
        if isinstance(value, ConfigDict):
            lines |= dict(_section(name, name, value))
        else:
            lines[name] = f"{name}: {type(value).__name__} = {value!r}"
    chosen = [line for path, line in lines.items() if f"{path}.".startswith(f"{field}.")]
    require(
        not field or bool(chosen),
        f"--field={field}: no such field; {nearest(field, _near(lines, field))}",
    )
    return chosen if field else list(lines.values())


def _near(paths: Collection[str], field: str) -> list[str]:
    """Paths beside the one that is asked for: of the deepest section that exists."""
    above = field
    while above and above not in paths:
        above = above.rpartition(".")[0]
    depth = above.count(".") + 2 if above else 1
    return [p for p in paths if p.count(".") < depth and p.startswith(above) and p != above]


def _section(path: str, kind: str, config: ConfigDict) -> Iterator[tuple[str, str]]:
    """A section and the fields in it, by their paths."""
    try:
        cls: Any = registry.find(kind, str(config.get("name")))
    except UserError as error:
        raise UserError(f"config.{path}: {error}") from error
    indent = "  " * path.count(".")
    yield path, f"{indent}{path} = {config.name}: {summary(cls)}"
    hints = get_type_hints(cls)
    for f in dataclasses.fields(cls):
        where, nested = f"{path}.{f.name}", f.metadata.get("component")
        if f.metadata.get("runtime") or f.name not in config:
            continue
        value, said = config[f.name], field_line(cls, f.name)
        if nested:
            found = dict(_section(where, nested, value))
            yield from found.items()
            continue
        hint = getattr(hints[f.name], "__name__", str(hints[f.name]))
        default = _default(f)
        yield (
            where,
            f"{indent}  {where}: {hint} = {value!r}{default}" + (f": {said}" if said else ""),
        )


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return f" (default {field.default!r})"
    if field.default_factory is not dataclasses.MISSING:
        return f" (default {field.default_factory()!r})"
    return " (no default)"
