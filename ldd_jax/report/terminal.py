"""The denoising player of a terminal: frames in place with colours, or plain numbered lines."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from ldd_jax.report.frames import Cell, Frame, heat, wrapped

# Backgrounds of the 256 colours, from sure to unsure; all bear black letters.
BLUES = (231, 195, 159, 123, 117, 111, 75)
PLAIN, CLEAR = "\x1b[0m", "\x1b[J"


class Stream(Protocol):
    """What texts are written to."""

    def write(self, text: str, /) -> int:
        """Store a text."""
        ...

    def flush(self) -> None:
        """Show it."""
        ...


def numbered(pictures: Iterable[str]) -> Iterator[str]:
    """Lines `number  picture` of the pictures that differ from the one before."""
    shown = None
    for number, picture in enumerate(pictures, 1):
        if picture != shown:
            yield f"{number:4d}  {picture}"
        shown = picture


def text(frame: Frame) -> str:
    """A frame without colours, in one line."""
    return "".join(cell.text for cell in frame.cells)


def painted(cell: Cell) -> str:
    """One position: background by entropy, bold and underlined where it changed."""
    codes = ["1;4"] if cell.changed else ["2"] if cell.hidden else []
    if cell.entropy is not None:
        blue = BLUES[round(heat(cell.entropy) * (len(BLUES) - 1))]
        codes.append(f"30;48;5;{blue}")
    return f"\x1b[{';'.join(codes)}m{cell.text}{PLAIN}" if codes else cell.text


def screen(shown: Sequence[Frame], columns: int, rows: int) -> list[str]:
    """Lines of all runs at one step, no more than fit.

    Args:
      shown: what every run shows at this step.
      columns: of the terminal.
      rows: of the terminal.
    """
    lines: list[str] = []
    for frame in shown:
        lines.append(frame.title[:columns])
        lines += ["".join(map(painted, line)) for line in wrapped(frame.cells, columns)]
    return lines[: max(rows - 1, 1)]


def repaint(stream: Stream, lines: Sequence[str], high: int) -> int:
    """Put lines in the place of those above; returns how many there are now.

    Args:
      stream: a terminal that obeys escape sequences.
      lines: harmless ones, none wider than the terminal.
      high: number of lines above that they replace.
    """
    back = f"\x1b[{high}F" if high else ""
    stream.write(back + CLEAR + "\n".join(lines) + "\n")
    stream.flush()
    return len(lines)


def play(runs: Sequence[Sequence[Frame]], stream: Stream, delay: float, colours: bool) -> None:
    """Show runs one above the other, step by step.

    Args:
      runs: frames of each run; a shorter one stays at its last.
      stream: a terminal, or anything that text is written to.
      delay: seconds between steps, of a terminal.
      colours: paint in place; otherwise numbered lines, without any control character.
    """
    if not colours:
        for run in runs:
            stream.write("\n".join((run[0].title, *numbered(map(text, run)))) + "\n")
        return
    high = 0
    for i in range(max(map(len, runs))):
        if i:
            time.sleep(delay)
        size = shutil.get_terminal_size()
        lines = screen([run[min(i, len(run) - 1)] for run in runs], size.columns, size.lines)
        high = repaint(stream, lines, high)
