"""Flags of a command, read so that bad input is one line that says what is allowed."""

from __future__ import annotations

import dataclasses
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from ldd_jax.config import packaged
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.storage import is_url


@dataclasses.dataclass(frozen=True)
class Command:
    """A subcommand: one line of help, its flags, and what it runs.

    `argument` names the flag that may also be given as the only bare argument; `compiles` is False
    for a command that never starts JAX, `plugins` for one without a use for components of the
    user's own; `buckets` are the flags and config fields that may name a place in a bucket.
    """

    help: str
    define: Callable[[flags.FlagValues], None]
    execute: Callable[[flags.FlagValues], None]
    argument: str = ""
    compiles: bool = True
    plugins: bool = True
    buckets: tuple[str, ...] = ()


# Flags that hold a text of the user's, in which an address is a word like others.
_TEXTS = (
    "apply_chat_template", "config.data.template", "distributed", "fill", "gen_kwargs", "problem",
    "prompt", "system_instruction", "title",
)  # fmt: skip


def named_plugins(command: Command, argv: list[str]) -> list[str]:
    """Values of --plugin, wherever they stand: a config file may use what they register."""
    return _given(argv, "plugin") if command.plugins else []


def parse(name: str, command: Command, argv: list[str]) -> flags.FlagValues:
    """Flags of a command from its arguments.

    Args:
      name: of the command, for messages.
      command: with its flags.
      argv: what follows its name.

    Raises:
      UserError: for an unknown flag or config field, or a value of the wrong type.
    """
    values = _defined(command)
    if "config" in values:
        _check_config_file(argv)
    try:
        rest = _parse_into(values, [name, *argv])
        if "config" in values:
            config = values.config  # a file that failed to load raises here
            require(
                config is None or hasattr(config, "keys"),
                f"{name}: get_config of the config file returned {config!r}, not a config",
            )
    except UserError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"{name}: {_unrecognised(error.flagname, values)}") from error
    except (flags.Error, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        explanation = _explain(command, argv) or _first_line(error)
        raise UserError(f"{name}: {explanation}") from error
    except Exception as error:  # a config file is a program: it may raise anything
        what = f"{type(error).__name__}: {_first_line(error)}{_place(error)}"
        raise UserError(f"{name}: the config file failed: {what}") from error
    if command.argument and len(rest) == 1:
        values[command.argument].value, rest = rest[0], []
    require(not rest, f"{name} takes flags only, not {' '.join(rest)!r}")
    require(
        "plugin" not in values
        or len(_given(argv, "plugin")) == len([*filter(None, values.plugin)]),
        f"{name}: --plugin stands on the command line itself, not in a --flagfile",
    )
    for flag in _own_flags(values):
        empty = flag.present and flag.value in ("", [""])
        require(
            not empty,
            f"{name}: --{flag.name} is missing its value; give one, or leave the flag out",
        )
    _refuse_buckets(name, command, values)
    if "config" in values:
        structural = [a for a in argv if a.split("=")[0].endswith(".name") and "--config." in a]
        require(
            not structural,
            f"{' '.join(structural)}: components are chosen in the config's argument, as in "
            "--config=FILE:method=...,size=...",
        )
    return values


def _refuse_buckets(name: str, command: Command, values: flags.FlagValues) -> None:
    """Refuse `gs://...` where a command would take it for a local path.

    Raises:
      UserError: naming the flag or the field.
    """
    given = {f.name: f.value for f in _own_flags(values) if f.name != "config"}
    if "config" in values and isinstance(values.config, ConfigDict):
        given |= dict(_leaves(values.config.to_dict(preserve_field_references=False), "config."))
    for flag, value in given.items():
        for text in value if isinstance(value, list) else [value]:
            address = isinstance(text, str) and is_url(text)
            require(
                not address or flag in (*command.buckets, *_TEXTS),
                f"{name}: --{flag}={text}: only local files can be given here; copy it, or mount "
                "the bucket and give the path of the mount",
            )


def _leaves(tree: dict[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    """Fields of a nested config by dotted name."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield before + name, value


def config_file(argv: list[str]) -> str:
    """The file of --config, without its argument; "" = none is given. The last one counts."""
    return "".join(given.partition(":")[0] for given in _given(argv, "config")[-1:])


def _given(argv: list[str], flag: str) -> list[str]:
    """Values of a flag, read before the others are; absl is the judge of what is malformed."""
    found = []
    for i, word in enumerate(argv):
        name, equals, value = word.lstrip("-").partition("=")
        if name == flag and word.startswith("-"):
            found.append(value if equals else "".join(argv[i + 1 : i + 2]))
    return [value for value in found if value]


def _check_config_file(argv: list[str]) -> None:
    for given in _given(argv, "config"):
        file = given.partition(":")[0]
        require(Path(file).is_file(), packaged.unknown(file))


def _place(error: BaseException) -> str:
    """Where a config file failed, as `, FILE line N`."""
    if isinstance(error, SyntaxError):
        return f", {error.filename} line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    return f", {frames[-1].filename} line {frames[-1].lineno}" if frames else ""


def _parse_into(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """What is left of argv; config_flags looks for overrides in sys.argv, whatever it is given."""
    before, sys.argv = sys.argv, argv
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing beside the file
    try:
        return values(argv)[1:]
    finally:
        sys.argv, sys.dont_write_bytecode = before, bytecode


def _defined(command: Command) -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "Show the flags.", short_name="h", flag_values=values)
    if command.compiles:
        flags.DEFINE_bool(
            "compilation_cache",
            True,
            "Keep compiled programs in the user's own cache folder.",
            flag_values=values,
        )
    if command.plugins:
        flags.DEFINE_multi_string(
            "plugin",
            [],
            "A file of your own (or a module) that registers components; may be repeated.",
            flag_values=values,
        )
    command.define(values)
    return values


def _unrecognised(name: str, values: flags.FlagValues) -> str:
    if name.startswith("config."):
        if "config" in values:
            return f"--{name} needs --config=FILE beside it"
        return f"--{name}: this command takes no config; a run keeps that of its training"
    own = [f.name for f in _own_flags(values)]
    return f"unknown flag --{name}; {nearest(name, own)}"


def flags_of(command: Command) -> list[flags.Flag]:
    """All flags of a command, by name, as `--help` shows them."""
    return _own_flags(_defined(command))


def _own_flags(values: flags.FlagValues) -> list[flags.Flag]:
    modules = values.flags_by_module_dict().items()
    own = [f for module, found in modules if not module.startswith("absl") for f in found]
    return sorted(own, key=lambda f: f.name)


def _explain(command: Command, argv: list[str]) -> str:
    """The first `--config.a.b` that names no field of the config, with those that exist."""
    files = [a for a in argv if a.startswith("--config=")]
    values = _defined(command)
    try:
        _parse_into(values, ["command", *files])
        config = values.config
        config.keys()
    except Exception:  # the config file itself is at fault; its own message is better
        return ""
    for given in (a for a in argv if a.startswith("--config.")):
        path = given[len("--config.") :].partition("=")[0]
        node = config
        for i, name in enumerate(path.split(".")):
            here = ".".join(["config", *path.split(".")[:i]])
            if not hasattr(node, "keys"):
                return f"--config.{path}: {here} is a single value, not a section"
            if name not in node:
                return (
                    f"--config.{path}: {here} has no field {name!r}; {nearest(name, node.keys())}"
                )
            node = node[name]
        if hasattr(node, "keys"):
            return f"--config.{path} is a section; set one of its fields: {', '.join(node.keys())}"
    return ""


def _first_line(error: BaseException) -> str:
    text = str(error.args[0] if error.args and isinstance(error.args[0], str) else error).strip()
    if isinstance(error, OSError) and "No such file" in text:
        text = next((line for line in text.splitlines() if "No such file" in line), text)
    return " ".join(text.split()) or type(error).__name__


def describe(name: str, command: Command, values: flags.FlagValues) -> str:
    """What `COMMAND --help` prints.

    Args:
      name: of the command.
      command: with its help.
      values: its flags.
    """
    lines = [f"python -m ldd_jax {name}: {command.help}"]
    for flag in _own_flags(values):
        default = "" if flag.default is None else f" (default {flag.default_as_str})"
        lines.append(f"  --{flag.name}: {flag.help}{default}")
    return "\n".join(lines)
