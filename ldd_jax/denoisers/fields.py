"""Typed fields of a config.json that anyone may have written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ldd_jax.core.checks import require


@dataclasses.dataclass(frozen=True)
class Reader:
    """Typed fields of one config.json."""

    config: Mapping[str, Any]
    where: str

    def whole(self, *names: str, default: int | None = None) -> int:
        """A positive whole number under the first of the names that is there.

        Raises:
          UserError: for another value, or none.
        """
        name = next((n for n in names if self.config.get(n) is not None), names[0])
        value = self.config.get(name)
        value = default if value is None else value
        good = type(value) is int and 0 < value < 1 << 31
        require(good, f"{self.where}: {name} is {value!r}; expected a positive whole number")
        assert isinstance(value, int)
        return value

    def number(self, name: str, default: float, table: Mapping[str, Any] | None = None) -> float:
        """A positive number, of the config or of a table in it.

        Args:
          name: of the field.
          default: where it is absent.
          table: of the config; None = the config itself.

        Raises:
          UserError: for another value.
        """
        value = (self.config if table is None else table).get(name)
        value = default if value is None else value
        good = type(value) in (int, float) and 0 < value < 1e12
        require(good, f"{self.where}: {name} is {value!r}; expected a number above 0")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false.

        Raises:
          UserError: for another value.
        """
        value = self.config.get(name)
        value = default if value is None else value
        require(type(value) is bool, f"{self.where}: {name} is {value!r}; expected true or false")
        return bool(value)

    def id(self, name: str, rows: int) -> int | None:
        """A token id, the first of a list, or None.

        Raises:
          UserError: for another value.
        """
        value: Any = self.config.get(name)
        value = value[0] if isinstance(value, list) and value else value
        good = value is None or (type(value) is int and 0 <= value < rows)
        require(good, f"{self.where}: {name} is {value!r}; expected an id below {rows}")
        return value

    def only(self, name: str, *allowed: Any) -> None:
        """Refuse a value other than those that our networks compute; absent is allowed.

        Raises:
          UserError: naming the field.
        """
        value = self.config.get(name)
        require(
            value is None or value in allowed,
            f"{self.where}: {name} is {value!r}; this network is known with {allowed[0]!r} only",
        )
