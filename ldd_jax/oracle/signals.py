"""A chain shown as points, in closed form: joint law, posteriors, velocity, total correlation.

c_1 ~ start, c_(l+1) ~ move, x_l | c_l ~ N(code[c_l], noise^2). At times t of the points and masks
on the tokens, what is seen of position l is evidence 1[z_l masked or = c_l] N(x_l; (1 - t) code,
(1 - t)^2 noise^2 + t^2), so that forward and backward messages give everything exactly.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.types import Array, Cond, Trunk
from ldd_jax.oracle.chain import Chain
from ldd_jax.oracle.laws import Identity


@struct.dataclass
class Shown:
    """The chain [S], [S, S], codes [S, C] of its states, and the noise about them."""

    start: Array
    move: Array
    code: Array
    noise: float = struct.field(pytree_node=False)

    @property
    def chain(self) -> Chain:
        """Tokens are the states."""
        return Chain(self.start, self.move, jnp.eye(len(self.start)))

    def spread(self, t: Array) -> Array:
        """Variance of x_t about (1 - t) code."""
        return ((1 - t) * self.noise) ** 2 + t**2

    def log_evidence(self, x: Array, t_B: Array) -> Array:
        """Log N(x_t; (1 - t) code_s, spread) of every state, [B, L, S]."""
        t = t_B[:, None, None, None]
        square = jnp.sum((x[:, :, None] - (1 - t) * self.code) ** 2, -1)
        var = self.spread(t[..., 0])
        return -square / (2 * var) - self.code.shape[1] / 2 * jnp.log(2 * jnp.pi * var)

    def posterior(self, x: Array, t_B: Array, open_BLS: Array | float = 1.0) -> Array:
        """p(c_l | x_t, tokens that are seen), [B, L, S].

        Args:
          x: points [B, L, C].
          t_B: their time.
          open_BLS: 1 at states that the seen tokens allow.
        """
        log = self.log_evidence(x, t_B)
        b = jnp.exp(log - jnp.max(log, -1, keepdims=True)) * open_BLS
        p = self.chain.leave_one_out(b) * b
        return p / jnp.sum(p, -1, keepdims=True)

    def mean(self, x: Array, t_B: Array, p: Array) -> Array:
        """E[x_0 | x_t] of points x at times t_B, under a posterior p of the states, [B, L, C]."""
        t = t_B[:, None, None]
        gain = (1 - t) * self.noise**2 / self.spread(t)
        code = p @ self.code
        return code + gain * (x - (1 - t) * code)

    def log_given(self, c: Array, x: Array) -> Array:
        """Log p(c | x) of rows, [B], x at t = 0."""
        zero = jnp.zeros(len(c), x.dtype)
        log = self.log_evidence(x, zero)
        own = jnp.take_along_axis(log, c[..., None], -1)[..., 0].sum(1)
        top = jnp.max(log, -1)
        total = jnp.sum(self.chain._forward(jnp.exp(log - top[..., None]))[1] + top, 1)
        return self.chain.log_likelihood(c) + own - total

    def total_correlation(self, c: Array, x: Array) -> Array:
        """Log p(c | x) - sum_l log p(c_l | x) of draws, [B]: its mean is E_x TC(c | x), nats."""
        p = self.posterior(x, jnp.zeros(len(c), x.dtype))
        each = jnp.log(jnp.take_along_axis(p, c[..., None], -1)[..., 0])
        return self.log_given(c, x) - each.sum(1)

    def draw(self, key: Array, number: int, length: int) -> tuple[Array, Array]:
        """Exact pairs: tokens [number, length] and points [number, length, C].

        Args:
          key: PRNG key.
          number: of pairs.
          length: of a row.
        """
        first, second = jax.random.split(key)
        c = self.chain.draw(first, number, length)
        n = jax.random.normal(second, (*c.shape, self.code.shape[1]))
        return c, self.code[c] + self.noise * n


@struct.dataclass
class ExactShown:
    """The ideal network of both modalities at any two times; it takes no latent.

    As `denoisers.SignalDiT`: a tree for a state, or tokens with `cond.signal`. Features are
    log-probabilities of the tokens, the mask last, and then the velocity.
    """

    law: Shown

    @property
    def head(self) -> Any:
        """The first columns."""
        return Columns(0, len(self.law.start) + 1)

    @property
    def heads(self) -> dict[str, Any]:
        """The last."""
        size = len(self.law.start) + 1
        return {"signal": Columns(size, size + self.law.code.shape[1])}

    timed = False

    def trunk(
        self, z: Any, cond: Cond, h: Any = None, *, key: Any = None, cache: Any = None
    ) -> Trunk:
        """Exact predictions, -1e4 for log 0."""
        del key, cache
        if isinstance(z, dict):
            assert cond.clock is not None
            token, x, t = z["text"], z["signal"], cond.clock["signal"]  # type: ignore[index]
        else:
            assert cond.signal is not None
            token, x = z, cond.signal
            t = jnp.zeros(len(token), x.dtype)
        states = jnp.arange(len(self.law.start))
        masked = (token == len(states))[..., None]
        p = self.law.posterior(x, t, (masked | (token[..., None] == states)).astype(x.dtype))
        some = jnp.where(t > 0, t, 1)[:, None, None]
        v = jnp.where(t[:, None, None] > 0, (self.law.mean(x, t, p) - x) / some, 0)
        logp = jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1)), -1e4)
        logp = jnp.pad(logp, ((0, 0), (0, 0), (0, 1)), constant_values=-1e4)
        return Trunk(features=jnp.concatenate([logp, v], -1), latent=h)

    def latent(self, batch: int, length: int) -> None:
        """None."""


@struct.dataclass
class Columns(Identity):
    """Some of the features."""

    first: int = struct.field(pytree_node=False)
    end: int = struct.field(pytree_node=False)

    def __call__(self, features_ND: Array) -> Array:
        """[N, first:end]."""
        return features_ND[..., self.first : self.end]
