"""Rows of a bench: cells that differ in their seeds alone, their means and standard errors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from ldd_jax.bench import baselines
from ldd_jax.bench.cells import NO_LATENT

Cell = dict[str, Any]


class Row(NamedTuple):
    """Cells that differ in their seeds alone."""

    model: str
    sampler: str
    temperature: float | None
    latent: str
    steps: int | None
    cells: list[Cell]

    @property
    def line(self) -> str:
        """What it is called in the plot: everything but the number of steps."""
        if self.model == "":
            return self.sampler
        latent = "" if self.latent == NO_LATENT else f", latent {self.latent}"
        hot = "" if self.temperature in (None, 1) else f", T={self.temperature:g}"
        return f"{self.model}, {self.sampler}{latent}{hot}"

    def mean(self, value: Callable[[Cell], float | None] | str) -> float:
        """Mean of a field over the cells; NaN where it does not apply."""
        get = (lambda c: c[value]) if isinstance(value, str) else value
        found = [get(c) for c in self.cells]
        known = [float(v) for v in found if v is not None]
        return statistics.mean(known) if known else math.nan

    def nats(self, judge: str) -> tuple[float, float]:
        """Mean nats per token and its standard error."""
        return mean_and_error([c["judges"][judge] for c in self.cells], "nats")

    def mauve(self) -> tuple[float, float]:
        """Mean MAUVE-style value and its standard error."""
        return mean_and_error(self.cells, "mauve")


def mean_and_error(found: list[dict[str, Any]], name: str) -> tuple[float, float]:
    """Mean and standard error of a field.

    Over the runs and seeds where there are several; the field's own, NAME_se, of the one otherwise.
    """
    mean = statistics.mean(f[name] for f in found)
    if len(found) == 1:
        return mean, found[0][f"{name}_se"]
    return mean, statistics.stdev(f[name] for f in found) / math.sqrt(len(found))


def model_names(cells: list[Cell]) -> dict[str, str]:
    """Group -> name: what of the recipes differs, or the workdir where that does not tell."""
    recipes = {c["group"]: c["recipe"] for c in cells if c["workdir"]}
    parts = {g: r.split(",") for g, r in recipes.items()}
    common = set.intersection(*map(set, parts.values())) if len(parts) > 1 else set()
    told = {
        g: " ".join(p.split("=")[-1] for p in ps if p not in common or p.startswith("method="))
        for g, ps in parts.items()
    }
    first = {c["group"]: c["workdir"] for c in reversed(cells) if c["workdir"]}
    clear = len(set(told.values())) == len(told)
    return {g: name if clear and name else first[g] for g, name in told.items()}


def gathered(cells: list[Cell]) -> list[Row]:
    """Cells gathered over seeds, baselines first, then by model, sampler, latent and steps."""
    names = model_names(cells)
    groups: dict[tuple, Row] = {}
    for c in cells:
        key = (names.get(c["group"], ""), c["sampler"], c["temperature"], c["latent"], c["steps"])
        groups.setdefault(key, Row(*key, [])).cells.append(c)
    return sorted(
        groups.values(),
        key=lambda r: (
            r.model,
            baselines.place(r.sampler) if r.model == "" else 0,
            r.sampler,
            r.temperature or 0,
            r.latent,
            r.steps or 0,
        ),
    )
