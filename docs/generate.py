"""The pages of docs/reference that are made from the code: commands, fields, registry, Python.

python docs/generate.py FOLDER
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from ldd_jax import tasks  # noqa: F401  (they register)
from ldd_jax.cli import command_line
from ldd_jax.cli.main import COMMANDS
from ldd_jax.config import describing, experiment, packaged, recipes  # noqa: F401
from ldd_jax.core import registry

# What a user of the Python API meets, in the order of a first program.
MODULES = (
    "ldd_jax.inference.pipeline",
    "ldd_jax.inference.requests",
    "ldd_jax.inference.scorer",
    "ldd_jax.core.types",
    "ldd_jax.core.registry",
    "ldd_jax.config.recipes",
    "ldd_jax.config.tuned",
    "ldd_jax.samplers.guidance",
    "ldd_jax.samplers.classifier",
)


@dataclasses.dataclass(frozen=True)
class Line:
    """One thing that can be set: a flag or a field."""

    owner: str
    name: str
    type: str
    default: str
    meaning: str


def flags() -> Iterator[Line]:
    """Every flag of every command."""
    for command, made in COMMANDS.items():
        for flag in command_line.flags_of(made):
            default = "" if flag.default is None else str(flag.default_as_str).strip("'")
            said = " ".join(flag.help.partition(";\n")[0].split())
            yield Line(command, f"--{flag.name}", flag.flag_type(), default, said)


def fields() -> Iterator[Line]:
    """Every field of every component; what the program itself fills in is not one."""
    for kind in registry.kinds():
        for name in registry.names(kind):
            cls = registry.find(kind, name)
            hints = get_type_hints(cls)
            for field in dataclasses.fields(cls):
                if field.metadata.get("runtime"):
                    continue
                part = field.metadata.get("component")
                hint = f"a {part}" if part else _type(hints[field.name])
                meaning = describing.field_line(cls, field.name)
                if part and not meaning:
                    meaning = f"A component of kind {part}."
                yield Line(f"{kind} {name}", field.name, hint, _default(field), meaning)


def _type(hint: Any) -> str:
    return getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint)


def _default(field: dataclasses.Field) -> str:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "none; it must be given"
    if isinstance(value, type):
        named = getattr(value, "registered", None)
        return named[1] if named else value.__name__
    named = getattr(type(value), "registered", None)
    return named[1] if named else repr(value)


def _cell(text: str) -> str:
    """A text in a table: nothing of it is markup but the backquotes."""
    text = " ".join(text.split()).rstrip(";").strip()
    parts = re.split(r"(`[^`]*`)", text)
    plain = [p if p.startswith("`") else re.sub(r"([\\*_<>\[\]$~#])", r"\\\1", p) for p in parts]
    return "".join(plain).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def _table(lines: list[Line]) -> list[str]:
    out = ["| name | type | default | meaning |", "|---|---|---|---|"]
    for one in lines:
        cells = (_code(one.name), _code(one.type), _code(one.default), _cell(one.meaning))
        out.append("| " + " | ".join(cells) + " |")
    return out


def commands_page() -> str:
    """Commands and their flags."""
    made = list(flags())
    out = ["# Commands and flags", "", "Typed as `python -m ldd_jax COMMAND`; also `ldd-jax`.", ""]
    for command, about in COMMANDS.items():
        own = [one for one in made if one.owner == command]
        out += [f"## {command}", "", _cell(about.help[0].upper() + about.help[1:]) + ".", ""]
        out += [*_table(own), ""]
    return "\n".join(out)


def fields_page() -> str:
    """Fields of all components, by kind."""
    made = list(fields())
    out = ["# Config fields", ""]
    out += ["Set one with `--config.SECTION.FIELD=value`, or in a config file.", ""]
    for kind in registry.kinds():
        out += [f"## {kind}", ""]
        for name in registry.names(kind):
            own = [one for one in made if one.owner == f"{kind} {name}"]
            said = describing.summary(registry.find(kind, name))
            out += [f"### {kind}: {name}", "", _cell(said), "", *(_table(own) if own else []), ""]
    return "\n".join(out)


def registry_page() -> str:
    """What `list` prints."""
    out = ["# The registry", "", "What can be chosen, by kind; `python -m ldd_jax list` prints it."]
    for kind in registry.kinds():
        out += ["", f"## {kind}", "", "| name | what it is |", "|---|---|"]
        for name in registry.names(kind):
            said = describing.summary(registry.find(kind, name))
            out.append(f"| [`{name}`](fields.md#{_anchor(kind, name)}) | {_cell(said)} |")
    out += ["", "## recipe", "", "Given as `--config=NAME`.", ""]
    out += ["| name | what it is |", "|---|---|"]
    for line in packaged.lines()[1:]:
        name, _, said = line.strip().partition(" ")
        out.append(f"| `{name}` | {_cell(said)} |")
    return "\n".join(out) + "\n"


def _anchor(kind: str, name: str) -> str:
    return f"{kind}-{name}"


def python_page() -> str:
    """Public classes and functions of the modules above, from their docstrings."""
    out = ["# Python", "", "The first steps are in [From Python](../api.md).", ""]
    for path in MODULES:
        module = importlib.import_module(path)
        out += [f"## {path}", "", *_prose(module.__doc__), ""]
        for name, thing in vars(module).items():
            public = not name.startswith("_") and str(getattr(thing, "__module__", "")).startswith(
                path
            )
            if not public or not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue
            out += [f"### {path.rpartition('.')[2]}.{name}", "", *_signature(name, thing), ""]
            out += [*_prose(thing.__doc__), ""]
            for method, function in vars(thing).items() if inspect.isclass(thing) else ():
                if method.startswith("_") or not inspect.isfunction(function):
                    continue
                out += [f"#### {name}.{method}", "", *_signature(method, function), ""]
                out += [*_prose(function.__doc__), ""]
    return "\n".join(out)


def _signature(name: str, thing: Any) -> list[str]:
    try:
        signature = inspect.signature(thing)
    except (ValueError, TypeError):
        return []
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    text = re.sub(r"<function .*? at 0x[0-9a-f]+>", "...", text)  # the same page every time
    return ["```text", f"{name}{text}", "```"]


def _prose(doc: str | None) -> list[str]:
    """A docstring: paragraphs, and what has indented lines (arguments) as it stands."""
    out: list[str] = []
    for part in filter(str.strip, inspect.cleandoc(doc or "").split("\n\n")):
        plain = not any(line.startswith(" ") for line in part.splitlines())
        out += [_cell(part), ""] if plain else ["```text", *part.splitlines(), "```", ""]
    return out


PAGES = {
    "commands.md": commands_page,
    "fields.md": fields_page,
    "registry.md": registry_page,
    "python.md": python_page,
}


def write(folder: Path) -> None:
    """All pages, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        text = page()
        file = folder / name
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
