"""Ising and Potts models on a periodic square lattice (MDNS, arXiv 2508.10684, section 5).

Sites are the raster of the lattice. Every site has a bond to the right and one down, both around
the border, so that a side of 2 counts each pair twice.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array
from ldd_jax.targets.base import Target, Truth

MOST_ROWS = 1 << 11  # states of a row: the transfer matrix is dense


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lattice(Target):
    """-U = beta (coupling sum_bonds pair(x, x') + field sum one(x)), nats.

    Attributes:
      side: sites of a row, and rows.
      coupling: J; positive favours equal neighbours.
      field: h, which acts on every site by itself.
      beta: inverse temperature, which multiplies both.
    """

    side: int = 4
    coupling: float = 1.0
    field: float = 0.1
    beta: float = 0.28

    def __post_init__(self):
        if self.side < 2:
            raise ValueError(f"side is {self.side}; it must be at least 2")
        if not self.beta > 0:
            raise ValueError(f"beta is {self.beta}; it must be above 0")

    @property
    def sites(self) -> int:
        """side^2."""
        return self.side**2

    def pair(self, x: Any, y: Any) -> Any:
        """What a bond adds for its two ends; works on jax and numpy arrays."""
        raise TypeError(f"{type(self).__name__} defines no bond")

    def one(self, x: Any) -> Any:
        """What a site adds to what the field multiplies: its magnetisation."""
        raise TypeError(f"{type(self).__name__} defines no site")

    def _grid(self, x_BL: Array) -> Array:
        return x_BL.reshape(-1, self.side, self.side)

    def log_weight(self, x_BL: Array) -> Array:
        """-U(x), [B]; sums over bonds and sites are whole numbers."""
        x = self._grid(x_BL)
        bonds = self.pair(x, jnp.roll(x, -1, 2)) + self.pair(x, jnp.roll(x, -1, 1))
        total = lambda a: jnp.sum(a, axis=(1, 2)).astype(jnp.result_type(float))
        return self.beta * (self.coupling * total(bonds) + self.field * total(self.one(x)))

    def observables(self, x_BL: Array) -> dict[str, Array]:
        """Magnetisation a site, its size, and bonds between sites r apart in a row or column."""
        x = self._grid(x_BL)
        mean = lambda a: jnp.mean(a, axis=(1, 2), dtype=jnp.result_type(float))
        found = {"magnetisation": mean(self.one(x))}
        found["abs_magnetisation"] = self.size(x_BL)
        for r in self.distances:
            both = [mean(self.pair(x, jnp.roll(x, -r, axis))) for axis in (1, 2)]
            found[f"two_point_{r}"] = (both[0] + both[1]) / 2
        return found

    def size(self, x_BL: Array) -> Array:
        """The order parameter of a configuration, in 0 .. 1, [B]."""
        raise TypeError(f"{type(self).__name__} defines no order parameter")

    @property
    def distances(self) -> range:
        """Those of the two-point function."""
        return range(1, self.side // 2 + 1)

    def truth(self) -> Truth | None:
        """By enumeration, else by the transfer matrix of rows, where one of the two is small."""
        return super().truth() or self.by_transfer()

    def by_transfer(self) -> Truth | None:
        """Z = tr T^side, T[r, r'] = exp(bonds within r, its field, bonds between r and r').

        (T^side)[r, r] / Z is the law of a row, which has all means of rows: all but those of the
        order parameter. float64; None where a row has more than 2,048 states.
        """
        if self.side * math.log2(self.states) > math.log2(MOST_ROWS):
            return None
        rows = np.array(list(itertools.product(range(self.states), repeat=self.side)), np.int64)
        within = self.coupling * self.pair(rows, np.roll(rows, -1, 1)).sum(1)
        within = within + self.field * self.one(rows).sum(1)
        between = np.zeros((len(rows), len(rows)))
        for j in range(self.side):
            between += self.pair(rows[:, None, j], rows[None, :, j])
        log_t = self.beta * (within[:, None] + self.coupling * between)
        top = log_t.max()
        whole = np.linalg.matrix_power(np.exp(log_t - top), self.side)
        law = np.diag(whole) / np.trace(whole)
        means = {"magnetisation": float(law @ self.one(rows).mean(1))}
        for r in self.distances:
            means[f"two_point_{r}"] = float(law @ self.pair(rows, np.roll(rows, -r, 1)).mean(1))
        each = 2 * self.coupling * means["two_point_1"] + self.field * means["magnetisation"]
        means["energy"] = -self.beta * self.sites * each
        log_z = float(self.side * top + np.log(np.trace(whole)))
        means["entropy"] = log_z + means["energy"]
        return Truth(log_z=log_z, means=means, how="transfer matrix of rows")


@register("target", "ising")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ising(Lattice):
    """Spins s = 2 x - 1, -U = beta (coupling sum_bonds s s' + field sum s)."""

    @property
    def states(self) -> int:
        """Down and up."""
        return 2

    def pair(self, x: Any, y: Any) -> Any:
        """S s'."""
        return (2 * x - 1) * (2 * y - 1)

    def one(self, x: Any) -> Any:
        """S."""
        return 2 * x - 1

    def size(self, x_BL: Array) -> Array:
        """|mean s|."""
        return jnp.abs(jnp.mean(self.one(x_BL), axis=1, dtype=jnp.result_type(float)))


@register("target", "potts")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Potts(Lattice):
    """Colours, -U = beta (coupling sum_bonds [x = x'] + field sum [x = 0]).

    Attributes:
      colours: values of a site.
    """

    colours: int = 3
    field: float = 0.0
    beta: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if self.colours < 2:
            raise ValueError(f"colours is {self.colours}; it must be at least 2")

    @property
    def states(self) -> int:
        """The colours."""
        return self.colours

    def pair(self, x: Any, y: Any) -> Any:
        """[x = x']."""
        return (x == y).astype(np.int32)

    def one(self, x: Any) -> Any:
        """[x = 0]."""
        return (x == 0).astype(np.int32)

    def size(self, x_BL: Array) -> Array:
        """(q max_c share of c - 1) / (q - 1)."""
        share = jnp.stack([jnp.mean(x_BL == c, axis=1) for c in range(self.colours)], axis=1)
        return (self.colours * jnp.max(share, axis=1) - 1) / (self.colours - 1)
