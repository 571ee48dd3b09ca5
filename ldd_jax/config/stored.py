"""A config in its file, `config.json` of a workdir: written, read, refused, told apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ldd_jax.config import plugins
from ldd_jax.core import reading, writing
from ldd_jax.core.checks import UserError, require

SECTIONS = (
    "data",
    "process",
    "model",
    "objective",
    "optim",
    "training",
    "evaluation",
    "sampling",
    "mesh",
)


def check_sections(config: Any, source: str) -> None:
    """Refuse what is no config of this library; `source` says where it came from.

    Raises:
      UserError: naming what is missing.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{source} holds {type(config).__name__}, not a config; see config.recipes.make"
        )
    missing = [n for n in SECTIONS if not isinstance(config.get(n), ConfigDict)]
    missing += [n for n in ("recipe", "seed") if n not in config]
    require(not missing, f"{source} lacks {', '.join(missing)}; see config.recipes.make")
    require(type(config.recipe) is str, f"{source}: recipe is {config.recipe!r}, expected text")
    require(type(config.seed) is int, f"{source}: seed is {config.seed!r}, expected a number")


def as_config(found: Any, source: str) -> ConfigDict:
    """A locked config from what a file holds; `source` says which.

    Raises:
      UserError: for what is no config of this library.
    """
    try:
        config = ConfigDict(found).lock() if isinstance(found, dict) else found
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{source} is no config: {error}") from error
    check_sections(config, source)
    return config


def fingerprint(config: ConfigDict) -> str:
    """Sixteen hex digits of the SHA-256 of the config, and of the user's own files that it uses."""
    tree = config.to_dict()
    code = [plugins.digests(n, tree[n]) for n in SECTIONS if n in tree]
    text = json.dumps(tree | ({"plugins": code} if any(code) else {}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_config(config: ConfigDict, workdir: Path) -> None:
    """Write `config.json`, whole or not at all."""
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True)
    writing.write(workdir / "config.json", text + "\n")


def load_config(workdir: Path) -> ConfigDict:
    """The config that a workdir was trained with, once the user's own code for it is loaded.

    Raises:
      UserError: if the folder is no workdir, its config cannot be read, or it asks for code that
        this user did not name for it.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(
            f"{workdir} is not a workdir (no config.json); train with --workdir={workdir}"
        )
    try:
        found = reading.read_json(path)
    except (OSError, ValueError) as error:  # UnicodeDecodeError among them
        raise UserError(f"{path} is not valid JSON: {error}") from error
    plugins.restore(workdir)
    return as_config(found, str(path))
