"""Errors a user can act on: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import json
import math
import numbers
from collections.abc import Iterable
from typing import Any

_LONGEST = 3000


class UserError(Exception):
    """The user's input was bad; the command line prints it as one line and exits with status 2."""


class RunError(Exception):
    """A run cannot go on, through no fault of the command; one line, and exit status 1."""


UNFINISHED = 75  # exit status, EX_TEMPFAIL of sysexits.h: try again


class Unfinished(Exception):
    """A run was asked to stop and saved what it has; a scheduler goes on with it."""


def one_line(error: BaseException) -> str:
    """What an error says as one line for a terminal.

    Messages quote what files hold, which may be line ends, escape sequences or megabytes.
    """
    text = " ".join(str(error)[: 2 * _LONGEST].split())
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4] + " ..."


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
      ValueError: if it is none; also for one nested so deep that Python gives up.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def is_whole(text: str, least: int = 0) -> bool:
    """Whether a text is a whole number from `least` on that fits into 63 bits.

    `str.isdigit` takes digits that `int` does not, and texts of thousands of them.
    """
    return text.isascii() and text.isdigit() and len(text) < 19 and int(text) >= least


def is_number(value: Any) -> bool:
    """Whether a value of a file is a finite number that a float holds; a truth value is none."""
    return type(value) in (int, float) and -1e300 < value < 1e300


def nearest(given: str, allowed: Iterable[str]) -> str:
    """`allowed: a, b, c (did you mean b?)`, the tail of a refusal."""
    names = sorted(allowed)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"allowed: {', '.join(names) or 'none'}{hint}"


def spread(value: float, error: float | None, digits: int) -> str:
    """`value +- error`, or the value alone where one sample tells no error.

    Args:
      value: the mean.
      error: its standard error; None or not finite = unknown.
      digits: places after the point, of both.
    """
    known = error is not None and math.isfinite(error)
    return f"{value:.{digits}f}" + (f" +- {error:.{digits}f}" if known else "")


def require(condition: bool, message: str) -> None:
    """Raise UserError with `message` unless `condition` holds."""
    if not condition:
        raise UserError(message)


_KINDS: dict[type, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "a string"),
}


def typed(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind` (bool, int, float or str), if it is one; numpy's numbers are numbers.

    Args:
      name: the flag or field, for the message.
      value: what was given.
      kind: the type that it must be, and is returned as.

    Raises:
      UserError: saying what was given and what is expected.
    """
    accepted, words = _KINDS[kind]
    good = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    require(good, f"{name} is {value!r} ({type(value).__name__}); expected {words}")
    return kind(value)


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


def check_seed(seed: int, name: str = "--seed") -> None:
    """Refuse a seed that is no uint32.

    Raises:
      UserError: with the range.
    """
    seed = typed(name, seed, int)
    require(0 <= seed < 2**32, f"{name}={seed}; it must lie between 0 and {2**32 - 1}")
