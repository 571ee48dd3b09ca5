"""Samples of a run over its training: what the model wrote at every evaluation."""

from __future__ import annotations

from pathlib import Path

from ldd_jax.core.checks import is_number
from ldd_jax.training.metrics import SAMPLES, read_metrics

TIMES, EACH, LONGEST = 12, 2, 400  # times that are shown, samples of each, characters of a sample


def read(workdir: Path) -> list[tuple[int, list[str]]]:
    """(step, texts) by step, as far as the file is whole; empty where none were drawn."""
    path = workdir / SAMPLES
    found: dict[int, list[str]] = {}
    for record in read_metrics(path) if path.is_file() else []:
        if is_number(record["step"]) and isinstance(record.get("text"), str):
            found.setdefault(record["step"], []).append(record["text"])
    return sorted(found.items())


def chosen(samples: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """At most `TIMES` of them, the first and the last included, with `EACH` texts, cut."""
    last = len(samples) - 1
    count = min(TIMES, len(samples))
    kept = {round(i * last / max(count - 1, 1)) for i in range(count)}
    cut = lambda text: text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."
    return [
        (step, [cut(t) for t in texts[:EACH]]) for step, texts in (samples[i] for i in sorted(kept))
    ]
