"""Points between noise and data on straight lines: the signal of a joint flow."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.checks import at_least_one
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array
from ldd_jax.processes.base import at_least_float32


@register("process", "interpolant")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolant:
    """x_t = (1 - t) x + t n, n ~ N(0, 1), for points x [B, L, C]; a part of process joint.

    The prediction is the velocity v = E[x - n | x_t], going to the data: it is (E[x | x_t] - x_t) /
    t without the quotient that loses all digits near the data. dx = v dt, going back, has the
    marginals of the interpolation (flow matching, arXiv 2210.02747; linear, as in 2402.04997).

    Attributes:
      channels: C, numbers of the signal at a position.
      scale: of its loss, lambda.
      near: below this time the loss weighs no more: |x - E x|^2 / max(t, near)^2.
    """

    channels: int = 1
    scale: float = 1.0
    near: float = 0.1

    def __post_init__(self):
        at_least_one(self, "channels")
        if not self.scale > 0:
            raise ValueError(f"scale is {self.scale}; it must be above 0")
        if not 0 < self.near <= 1:
            raise ValueError(f"near is {self.near}; it must lie in (0, 1]")

    def prior(self, keys_B: Array, length: int) -> tuple[Array, Array]:
        """Standard normals [B, length, C], at t = 1."""
        return self._noise(keys_B, length), jnp.ones(keys_B.shape[0], jnp.result_type(float))

    def _noise(self, keys_B: Array, length: int) -> Array:
        shape = (length, self.channels)
        return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.result_type(float)))(keys_B)

    def corrupt(self, keys_B: Array, z0: Array, t_B: Array, keep: Array) -> tuple[Array, Array]:
        """x_t, x itself where kept, and the clock t."""
        t = jnp.where(keep, 0, t_B[:, None])[..., None]
        return (1 - t) * z0 + t * self._noise(keys_B, z0.shape[1]), t_B

    def clock(self, t_B: Array, length: int) -> Array:
        """The time."""
        del length
        return t_B

    def conditioning(self, clock: Array) -> Array:
        """The time."""
        return clock

    def blank(self, batch: int, length: int) -> Array:
        """Points that stand for none, [B, L, C]."""
        return jnp.zeros((batch, length, self.channels), jnp.result_type(float))

    def read(self, logits_NC: Array, z_N: Array, clock_N: Array) -> Array:
        """The velocity, as the network's head gives it."""
        del z_N, clock_N
        return at_least_float32(logits_NC)

    def bound(self, logits_NC: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """Scale times |x - E x|^2 / max(t, near)^2, mean over channels, E x = x_t + t v; no bound.

        At t = 0 it is 0: the signal is given.
        """
        t = clock_N[:, None]
        apart = z0_N - z_N - t * self.read(logits_NC, z_N, clock_N)
        return self.scale * jnp.mean((apart / jnp.maximum(t, self.near)) ** 2, axis=-1)

    def drift(self, pred_NC: Array, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """x_t + (t - s) v: Euler's step, which ends at E[x | x_t] for s = 0."""
        span = t_N if s_N is None else t_N - s_N
        return z_N + (span[:, None] * pred_NC).astype(z_N.dtype)

    def one_hot_prediction(self, z0_N: Array, z_N: Array, t_N: Array) -> Array:
        """The velocity of who knows x: (x - x_t) / t, 0 at t = 0."""
        t: Any = t_N[:, None]
        return jnp.where(t > 0, (z0_N - z_N) / jnp.where(t > 0, t, 1), 0)
