"""Errors a user can act on: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """The user's input was bad; the command line prints it as one line and exits with status 2."""


class RunError(Exception):
    """A run cannot go on, through no fault of the command; one line, and exit status 1."""


def nearest(given: str, allowed: Iterable[str]) -> str:
    """`allowed: a, b, c (did you mean b?)`, the tail of a refusal."""
    names = sorted(allowed)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"allowed: {', '.join(names) or 'none'}{hint}"


def require(condition: bool, message: str) -> None:
    """Raise UserError with `message` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def shape(name: str, array: Any, *expected: int | None) -> None:
    """Raise ValueError in words unless `array.shape` equals `expected` (None = any size)."""
    got = tuple(array.shape)
    if len(got) != len(expected) or any(e not in (None, g) for e, g in zip(expected, got)):
        want = tuple("any" if e is None else e for e in expected)
        raise ValueError(f"{name} has shape {got}, expected {want}")


def at_least_one(component: Any, *names: str) -> None:
    """Raise ValueError unless these fields of a component are 1 or more."""
    for name in names:
        if getattr(component, name) < 1:
            raise ValueError(f"{name} is {getattr(component, name)}; it must be at least 1")
