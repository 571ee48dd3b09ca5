"""The recipes that come with the package, by name: `--config=quickstart:method=lddm_m`.

`ldd_jax/recipes` is the folder `configs` of the repository: a link there, a copy in a wheel.
"""

from __future__ import annotations

import ast
from pathlib import Path

from ldd_jax.core.checks import nearest

FOLDER = Path(__file__).resolve().parents[1] / "recipes"


def names() -> list[str]:
    """All of them."""
    return sorted(p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_"))


def path(name: str) -> Path | None:
    """The file of the recipe of that name; a file of the user's own always comes first."""
    if Path(name).is_file() or name not in names():
        return None
    return FOLDER / f"{name}.py"


def spelled_out(argv: list[str]) -> list[str]:
    """The arguments with names of recipes after --config replaced by their files."""
    out = list(argv)
    for i, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag not in ("--config", "-config"):
            continue
        at, given = (i, value) if equals else (i + 1, "".join(argv[i + 1 : i + 2]))
        name, colon, argument = given.partition(":")
        file = path(name)
        if file is not None:
            out[at] = f"{flag}=" * bool(equals) + f"{file}{colon}{argument}"
    return out


def unknown(file: str) -> str:
    """What to say of a --config that is neither file nor recipe."""
    said = f"--config={file}: no such file; give FILE.py or FILE.py:method=...,size=..."
    return f"{said}, or a recipe that comes along: {nearest(file, names())}" if names() else said


def lines() -> list[str]:
    """Every recipe with the first sentence of its header."""
    wide = max(map(len, names()), default=0)
    said = lambda name: (
        ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or ""
    ).partition("\n")[0]
    return ["recipe (--config=NAME):", *(f"  {n:{wide}s}  {said(n)}" for n in names())]
