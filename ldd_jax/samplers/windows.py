"""A window of a row that is sampled while the rest is known by keys and values that are kept."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Array, Cond, Trunk
from ldd_jax.denoisers.base import Around
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState

# Scope of the pass over the whole row that makes a cache anew.
RENEWAL = "cache_anew"


@struct.dataclass
class Within(Around):
    """A network asked about a window of a row; `kept` is its cache of the row, `row` its tokens.

    A network with a shift is also asked about the position before the window, whose row of the
    network predicts the first one.
    """

    kept: Any
    row: Array

    def trunk(
        self, z: Array, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """Of the window; see `Denoiser.trunk`."""
        del cache
        (batch, width), length, start = z.shape, self.row.shape[1], self.kept.begin
        lead = self.inner.lead
        if not lead or width == length:
            wide, first = width, start
        else:
            wide, first = width + lead, jnp.clip(start - lead, 0, length - width - lead)
            whole = jax.lax.dynamic_update_slice_in_dim(self.row, z, start, axis=1)
            z = jax.lax.dynamic_slice_in_dim(whole, first, wide, axis=1)
        h = None if h is None else self.inner.latent(batch, wide)  # it is not carried
        out = self.inner.trunk(z, cond, h, key=key, cache=self.kept.at(first))
        if lead:
            from_row = jnp.maximum(start + jnp.arange(width) - lead, 0) - first
            out = out._replace(features=out.features[:, from_row])
            out = out._replace(latent=None if h is None else out.latent[:, from_row])
        return out._replace(cache=None)


@dataclasses.dataclass(frozen=True)
class Window:
    """What the loop has to know of the row around its positions.

    Attributes:
      row: tokens, [B, L]; those of the window are the loop's own.
      start: place of the window's first position.
      every: steps between two passes over the whole row; 0 = one before the first step.
    """

    row: Array
    start: Array
    every: int

    def empty(self, net: Net) -> Any:
        """A cache that nothing has been written to.

        Args:
          net: its network sees the row both ways.

        Raises:
          UserError: for a network that keeps nothing of a row.
        """
        denoiser: Any = net.denoiser
        try:
            return denoiser.around(*self.row.shape).at(self.start)
        except ValueError as error:
            raise UserError(f"blocks: {error}") from error

    def net(self, net: Net, cache: Any) -> Net:
        """The network that knows the row by the cache.

        Args:
          net: the same that sees all.
          cache: of the row.
        """
        seeing: Any = Within(net.denoiser, cache, self.row)
        return dataclasses.replace(net, denoiser=seeing)

    def renewed(
        self, net: Net, i: Array | int, state: SampleState, cache: Any, rest: Array
    ) -> tuple[Array, Any]:
        """Calls of the rows, [B], and the cache for step i.

        Args:
          net: sees the whole row.
          i: number of the step.
          state: of the window.
          cache: as it is.
          rest: rows that do not pay, [B].
        """
        put = lambda a, part: jax.lax.dynamic_update_slice_in_dim(a, part, self.start, axis=1)

        def again(cache):
            cond = net.cond(state, None)  # which reads the clock alone
            whole = put(self.row, state.z)
            found = net.denoiser.trunk(whole, cond, None, cache=cache.at(0)).cache
            return state.calls + ~rest, found.at(self.start)

        due = jnp.asarray(i == 0 if not self.every else i % self.every == 0)
        with jax.named_scope(RENEWAL):
            return jax.lax.cond(due, again, lambda cache: (state.calls, cache), cache)
