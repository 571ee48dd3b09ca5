"""The command that makes a config: a recipe of the package, and the fields that differ from it."""

from __future__ import annotations

import runpy
import shlex
from typing import Any

from ml_collections import ConfigDict

from ldd_jax.config import packaged
from ldd_jax.config.workdir import flat
from ldd_jax.core.checks import UserError

MOST = 60  # fields that a command is worth


def arguments(config: ConfigDict) -> list[str]:
    """`--config=NAME:...` and `--config.SECTION.FIELD=value`, shortest; empty where no recipe fits.

    A recipe fits if it has the same components, which only its own argument can choose.

    Args:
      config: of a run.
    """
    wanted = flat(config.to_dict())
    best: list[str] = []
    for name in packaged.names():
        made = _made(name, config.recipe)
        there = flat(made.to_dict()) if made is not None else {}
        if there.keys() != wanted.keys():
            continue
        changed = {k for k in wanted if there[k] != wanted[k]}
        if any(k == "recipe" or k.split(".")[-1] == "name" for k in changed):
            continue
        words = [f"--config={name}:{config.recipe}"]
        words += [f"--config.{k}={_value(wanted[k])}" for k in sorted(changed)]
        if len(words) <= MOST and (not best or len(words) < len(best)):
            best = words
    return best


def _made(name: str, recipe: str) -> ConfigDict | None:
    """The config of a recipe that comes along; None where it does not take the argument."""
    try:
        return runpy.run_path(str(packaged.FOLDER / f"{name}.py"))["get_config"](recipe)
    except (UserError, ValueError, KeyError, TypeError):
        return None


def _value(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, list | tuple) else str(value)


def command(config: ConfigDict) -> str:
    """What is typed to train so, over several lines; "" where no recipe fits, or a page breaks.

    Args:
      config: of a run.
    """
    words = arguments(config)
    if not all(word.isprintable() and "`" not in word for word in words):
        return ""
    head = "python -m ldd_jax train --workdir=DIR"
    return " \\\n    ".join([head, *map(shlex.quote, words)]) if words else ""
