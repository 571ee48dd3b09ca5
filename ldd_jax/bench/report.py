"""From cells to a table, a frontier plot and a page that needs no network."""

from __future__ import annotations

import base64
import html
import math
from pathlib import Path

from ldd_jax.bench.baselines import QUOTES
from ldd_jax.bench.plot import plot
from ldd_jax.bench.rows import Cell, Row, gathered, mean_and_error
from ldd_jax.core import writing
from ldd_jax.core.console import harmless

HEADER = (
    "model",
    "sampler",
    "latent",
    "T",
    "steps",
    "calls",
    "gen. ppl",
    "nats +- s.e.",
    "entropy",
    "distinct-4",
    "self-BLEU",
    "repetition",
    "tokens/s",
    "s to first",
    "s a row",
    "cells",
)
MAUVE = "MAUVE-style +- s.e."
OWN = "own bound +- s.e."


def header(found: list[Row]) -> list[str]:
    """Names of the table's columns."""
    first = found[0].cells[0]
    return [
        *HEADER,
        *([MAUVE] if "mauve" in first else []),
        *([OWN] if "own" in first else []),
    ]


def fields(row: Row) -> list[str]:
    """The table's columns of a row."""
    judge = row.cells[0]["judge"]
    nats, error = row.nats(judge)
    number = lambda v, digits: "" if math.isnan(v) else f"{v:,.{digits}f}"
    return [
        row.model or "(none)",
        row.sampler,
        row.latent,
        "" if row.temperature is None else f"{row.temperature:g}",
        "" if row.steps is None else str(row.steps),
        number(row.mean("calls"), 0),
        number(math.exp(min(nats, 700)), 2),
        f"{nats:.3f} +- {error:.3f}",
        number(row.mean("entropy"), 3),
        number(row.mean(lambda c: c["distinct"][3]), 3),
        number(row.mean("self_bleu"), 3),
        number(row.mean("repetition"), 3),
        number(row.mean("tokens_per_s"), 0),
        number(row.mean(lambda c: c.get("first_s")), 3),
        number(row.mean(lambda c: c.get("latency_s")), 3),
        str(len(row.cells)),
        *(["{:.3f} +- {:.3f}".format(*row.mauve())] if "mauve" in row.cells[0] else []),
        *([_own(row)] if "own" in row.cells[0] else []),
    ]


def _own(row: Row) -> str:
    """The likelihood of the row's own sampler, or its bound; nothing where it is not known."""
    if row.cells[0]["own"] is None:
        return ""
    nats, error = mean_and_error(row.cells, "own")
    sign = "=" if row.cells[0]["own_exact"] else "<="
    return f"{sign} {nats:.3f} +- {error:.3f}"


def table(found: list[Row]) -> str:
    """Markdown."""
    names = header(found)
    lines = [names, ["---"] * len(names), *map(fields, found)]
    return "\n".join(
        "| " + " | ".join(harmless(c).replace("|", "\\|") for c in line) + " |" for line in lines
    )


STYLE = """body{font:14px sans-serif;margin:2em;max-width:1300px}img{max-width:100%}
table{border-collapse:collapse}td,th{border-bottom:1px solid #ccc;padding:3px 8px;text-align:right}
td:nth-child(-n+3),th:nth-child(-n+3){text-align:left}pre{white-space:pre-wrap;background:#f4f4f4;
padding:6px;margin:2px 0}summary{cursor:pointer}"""


# What the page may load: nothing. It has no script.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
HIDDEN = "(text of the corpus, not shown; --show_data writes it here)"


def page(found: list[Row], image: bytes, title: str, show_data: bool = False) -> str:
    """One HTML file: picture, table, a sample of every row; all text is escaped.

    Args:
      found: rows of the table.
      image: the picture, PNG.
      title: of the page.
      show_data: texts of the corpus among the samples.
    """
    safe = lambda text: html.escape(str(text))
    head = "".join(f"<th>{safe(h)}</th>" for h in header(found))
    body = "".join(
        "<tr>" + "".join(f"<td>{safe(v)}</td>" for v in fields(row)) + "</tr>" for row in found
    )
    sample = lambda row: (
        HIDDEN if row.sampler in QUOTES and not show_data else row.cells[0]["sample"]
    )
    samples = "".join(
        f"<details><summary>{safe(row.line)}"
        f"{'' if row.steps is None else f', {row.steps} steps'}</summary>"
        f"<pre>{safe(sample(row))}</pre></details>"
        for row in found
    )
    picture = base64.b64encode(image).decode()
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{safe(title)}</title>"
        f"<style>{STYLE}</style></head><body><h1>{safe(title)}</h1>"
        "<p>Lower nats under a judge are no proof of quality: read them beside entropy, diversity "
        "and the nonsense rows. Errors: over runs and seeds where a row has several cells, "
        "otherwise a bootstrap over sequences.</p>"
        f'<img alt="frontier" src="data:image/png;base64,{picture}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<h2>First sample of each row</h2>{samples}</body></html>\n"
    )


def write(cells: list[Cell], folder: Path, show_data: bool = False) -> str:
    """Write `table.md`, `frontier.png` and `frontier.html` (see `page`); returns the table.

    Args:
      cells: results, at least one.
      folder: where the files go; it must be there.
      show_data: texts of the corpus among the samples of the page.
    """
    found = gathered(cells)
    text = table(found)
    writing.write(folder / "table.md", text + "\n")
    plot(found, folder / "frontier.png")
    image = (folder / "frontier.png").read_bytes()
    title = (
        f"Frontier: {found[0].cells[0]['samples']} samples of {cells[0]['length']} tokens a cell"
    )
    writing.write(folder / "frontier.html", page(found, image, title, show_data))
    return text
