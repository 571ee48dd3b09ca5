"""Rows of sequences in equal groups, one for each device that has rows of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.logical import constrain, pieces
from ldd_jax.core.types import Array


@dataclasses.dataclass(frozen=True)
class Groups:
    """How rows [N, ...] of sequences, one after the other, are laid out as groups [G, N / G, ...].

    Attributes:
      batch: groups of sequences.
      cut: pieces of a sequence, each of them a group's.
      length: positions of a sequence; 0 = not known.
    """

    batch: int
    cut: int
    length: int

    @classmethod
    def of(cls, rows: int, groups: int, length: int) -> Groups:
        """A sequence that the mesh does not divide is left whole.

        Args:
          rows: N.
          groups: of sequences.
          length: positions of a sequence, 0 = not known.
        """
        cut = pieces("length")
        whole = length and length % cut == 0 and rows % (groups * length) == 0
        return cls(groups, cut if whole else 1, length)

    @property
    def count(self) -> int:
        """G."""
        return self.batch * self.cut

    def placed(self, tree: Any) -> Any:
        """Lay the leading axis, the groups, over the devices that have rows of their own."""
        axis = "rows" if self.cut > 1 else "batch"
        return jax.tree.map(lambda a: constrain(a, axis, *(None,) * (jnp.ndim(a) - 1)), tree)

    def laid(self, tree: Any) -> Any:
        """[N, ...] to [G, N / G, ...]; no row leaves the device that it is on.

        Raises:
          ValueError: where the groups are not equal.
        """

        def one(a: Array) -> Array:
            if a.shape[0] % self.batch:
                raise ValueError(f"{a.shape[0]} rows do not divide into {self.batch} groups")
            if self.cut == 1:
                return a.reshape(self.batch, -1, *a.shape[1:])
            rest = a.shape[1:]
            a = self._by_position(a.reshape(-1, self.length, *rest))
            a = a.reshape(self.batch, -1, self.cut, self.length // self.cut, *rest)
            return a.swapaxes(1, 2).reshape(self.count, -1, *rest)

        return self.placed(jax.tree.map(one, tree))

    def back(self, tree: Any) -> Any:
        """Inverse of `laid`."""

        def one(a: Array) -> Array:
            rest = a.shape[2:]
            if self.cut > 1:
                a = a.reshape(self.batch, self.cut, -1, self.length // self.cut, *rest)
                a = self._by_position(a.swapaxes(1, 2).reshape(-1, self.length, *rest))
            return a.reshape(-1, *rest)

        return jax.tree.map(one, tree)

    @staticmethod
    def _by_position(a_BL: Array) -> Array:
        return constrain(a_BL, "batch", "length", *(None,) * (a_BL.ndim - 2))
