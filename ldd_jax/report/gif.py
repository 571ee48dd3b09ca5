"""The denoising player as a GIF: letters in cells, entropy behind them, the latent's RMS below."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from ldd_jax.core import outputs
from ldd_jax.core.outputs import Place
from ldd_jax.report.frames import Frame, heat, wide, wrapped

COLUMNS, SIZE, MARGIN, BAR = 64, 15, 10, 26
INK, GREY, RED, VIOLET, SURE, UNSURE = (
    (27, 31, 36), (140, 149, 159), (209, 36, 47), (130, 80, 223), (255, 255, 255), (84, 150, 232),
)  # fmt: skip


def _font(weight: str) -> ImageFont.FreeTypeFont:
    """The fixed-width font that comes with matplotlib."""
    wanted = font_manager.FontProperties(family="DejaVu Sans Mono", weight=weight)
    return ImageFont.truetype(font_manager.findfont(wanted), SIZE)


class Painter:
    """Draws runs one above the other; every picture has the size of the largest."""

    def __init__(self, runs: Sequence[Sequence[Frame]]):
        self.runs, self.font, self.bold = runs, _font("normal"), _font("bold")
        self.step, self.line = round(self.font.getlength("m")), round(1.45 * SIZE)
        lines = [max(len(wrapped(f.cells, COLUMNS)) for f in run) for run in runs]
        norms = [[c.norm for f in run for c in f.cells if c.norm is not None] for run in runs]
        self.tops = [max(n, default=0.0) for n in norms]
        self.high = [(1 + n) * self.line + (BAR + 6) * (t > 0) for n, t in zip(lines, self.tops)]
        width = max(COLUMNS, *(len(f.title) for run in runs for f in run)) * self.step
        self.size = (width + 2 * MARGIN, sum(self.high) + MARGIN * (1 + len(runs)))

    def picture(self, i: int) -> Image.Image:
        """Step i of every run; a shorter one stays at its last."""
        image = Image.new("RGB", self.size, SURE)
        draw, top = ImageDraw.Draw(image), MARGIN
        for run, high, most in zip(self.runs, self.high, self.tops):
            frame = run[min(i, len(run) - 1)]
            draw.text((MARGIN, top), frame.title, GREY, self.font)
            self._letters(draw, frame, top + self.line)
            if most:
                self._bars(draw, frame, top + high, most)
            top += high + MARGIN
        return image

    def _letters(self, draw: ImageDraw.ImageDraw, frame: Frame, top: int) -> None:
        for j, line in enumerate(wrapped(frame.cells, COLUMNS)):
            left, above = MARGIN, top + j * self.line
            for cell in line:
                right, warm = left + wide(cell.text) * self.step, heat(cell.entropy)
                color = tuple(round(a + (b - a) * warm) for a, b in zip(SURE, UNSURE))
                draw.rectangle((left, above, max(left, right - 1), above + self.line - 3), color)
                font = self.bold if cell.changed else self.font
                draw.text((left, above), cell.text, GREY if cell.hidden else INK, font)
                if cell.changed:
                    under = above + self.line - 3
                    draw.line((left, under, right - 2, under), RED, 2)
                left = right

    def _bars(self, draw: ImageDraw.ImageDraw, frame: Frame, bottom: int, most: float) -> None:
        each = (self.size[0] - 2 * MARGIN) / len(frame.cells)
        for j, cell in enumerate(frame.cells):
            if cell.norm is not None:
                left = MARGIN + j * each
                box = (left, bottom - BAR * cell.norm / most, left + max(each - 2, 1), bottom)
                draw.rectangle(box, VIOLET)


def write(runs: Sequence[Sequence[Frame]], path: Path | Place, delay: float) -> int:
    """Write the GIF, whole or not at all; steps that change nothing are left out.

    Args:
      runs: frames of each run.
      path: of the file.
      delay: seconds a step is shown; the last one stays ten times as long.

    Returns:
      Number of pictures.
    """
    painter = Painter(runs)
    count = max(map(len, runs))
    cells = lambda i: [[c.text for c in run[min(i, len(run) - 1)].cells] for run in runs]
    kept = [i for i in range(count) if i in (0, count - 1) or cells(i) != cells(i - 1)]
    pictures = [painter.picture(i) for i in kept]
    # One palette for all, from the step with most colours in it: the middle one.
    palette = pictures[len(pictures) // 2].quantize(64, dither=Image.Dither.NONE)
    pictures = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    each = max(20, round(1000 * delay))  # less than this viewers take for a mistake
    times = [each] * (len(pictures) - 1) + [10 * each]
    stream = io.BytesIO()
    pictures[0].save(
        stream, format="GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0
    )
    with outputs.place(path).open(binary=True) as out:
        out.write(stream.getvalue())
    return len(pictures)
