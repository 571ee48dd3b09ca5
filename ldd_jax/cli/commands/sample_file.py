"""The file of `sample`: finished samples are in it at once, and the same command goes on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

from ldd_jax.core import outputs, reading, writing
from ldd_jax.core.checks import UserError, parse_json
from ldd_jax.inference import json_lines

# What is one sample's own in a record; all else is the command's.
OWN = ("index", "text", "calls", "tokens", "signal")


class SampleFile:
    """Records number 0, 1, ... of a command; the first that is added replaces what was there.

    Args:
      place: where it goes; a pipe or device gets the lines as they come.
      common: what all records of the command share.
      length: tokens of a sample.
      count: how many are wanted. A file with fewer of the same command is gone on with; one that
        has them all is drawn anew, so that a command that is given again does what it says.
    """

    def __init__(self, place: outputs.Place, common: dict[str, Any], length: int, count: int):
        self.place, self.length = place, length
        self.common = json.loads(json.dumps(common))
        found = [] if place.through else list(self._whole())
        self.records = found if len(found) < count else []
        self.stack = contextlib.ExitStack()
        self.stream: IO[str] | None = None

    def _whole(self) -> Iterator[dict[str, Any]]:
        """Records of the same command from the first on; a torn line ends them."""
        if self.place.path.is_symlink():  # in a workdir; it will be replaced, so it is not read
            return
        with contextlib.suppress(OSError, ValueError), reading.opened(self.place.path) as lines:
            for number in range(2**31):
                line = lines.readline(reading.LARGEST_JSON)
                record = parse_json(line) if line.endswith(b"\n") else None
                if not isinstance(record, dict) or not self._same(record, number):
                    return
                yield record

    def _same(self, record: dict[str, Any], number: int) -> bool:
        tokens = record.get("tokens")
        return (
            record.get("index") == number
            and isinstance(record.get("text"), str)
            and type(record.get("calls")) is int
            and isinstance(tokens, list)
            and len(tokens) == self.length
            and {k: v for k, v in record.items() if k not in OWN} == self.common
        )

    def add(self, record: dict[str, Any]) -> None:
        """A finished sample.

        Raises:
          UserError: if it cannot be written.
        """
        self.records.append(record)
        try:
            if self.stream is not None:
                self._write(self.stream, [record])
            elif self.place.through:
                self.stream = self.stack.enter_context(self.place.open())
                self._write(self.stream, self.records)
            else:
                with self.place.open() as whole:
                    self._write(whole, self.records)
                self.stream = self.stack.enter_context(writing.append(self.place.path))
        except OSError as error:
            raise UserError(f"{self.place.shown}: {error.strerror or error}") from error

    @staticmethod
    def _write(stream: IO[str], records: Iterable[dict[str, Any]]) -> None:
        stream.writelines(map(json_lines.line, records))
        stream.flush()

    def close(self) -> None:
        """Close the file."""
        self.stack.close()
