"""Diffusion of points on a sphere towards its vertices (RDLM, arXiv 2502.11564)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.draws import fold
from ldd_jax.core.registry import component, register
from ldd_jax.core.types import Array, Draw
from ldd_jax.processes import bridges
from ldd_jax.processes.base import Diffusion, at_least_float32, log_softmax
from ldd_jax.processes.geometry import exp_map, log_map, tangent, towards_vertices
from ldd_jax.schedules import Bridge

PRIORS = ("mask", "uniform")
SIMULATED = 500  # steps to a state that a bound is taken at
TIME = 8.0  # of sines that suit log noise levels


@register("process", "sphere")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sphere(Diffusion):
    """Token k is the unit vector e_k; z [B, L, d] moves on the sphere from one point to it.

    dX = log_X(e_k) / (1 - tau) dtau + sqrt(B) dW on the sphere, tau = alpha(t) and B of the
    schedule; with k unknown, the mean of log_X(e_k) under p(k | X) in its place. With `base` b the
    m = ceil(log_b V) digits of an id are spheres of their own, z [B, L, m, d].

    The bound is the divergence of path measures: its integrand in t is
    -alpha' / (2 B (1 - tau)^2) |sum_k p_k log_X(e_k) - log_X(e_x)|^2, and at t = 0, where a share
    `schedule.left` of the way is ahead, -log p(x | X). There is no prior term.

    Attributes:
      prior_point: where all begin: mask (a vertex of its own) or uniform (the middle).
      base: b; 0 = tokens themselves, one coordinate each.
    """

    schedule: Any = component("schedule", Bridge)
    prior_point: str = "mask"
    base: int = 0
    points = True
    chain = f" in the limit of small steps, states of the bound simulated in {SIMULATED}"

    def __post_init__(self):
        if self.prior_point not in PRIORS:
            raise ValueError(
                f"prior_point is {self.prior_point!r}; it must be one of {', '.join(PRIORS)} (a "
                "mixture of both is no single process: docs/rdlm.md)"
            )
        if self.base < 0 or self.base == 1:
            raise ValueError(f"base is {self.base}; it must be 0 (no digits) or at least 2")
        if not isinstance(self.schedule, Bridge):
            raise ValueError("process sphere needs schedule bridge, which says how far a bridge is")

    def token_space_size(self, vocabulary: int) -> tuple[int, int | None]:
        """Coordinates and mask: one more, the last, where all begin at the mask."""
        size = self.base or vocabulary
        return (size + 1, size) if self.prior_point == "mask" else (size, None)

    def digits(self, vocabulary: int) -> int:
        """m, the least number of digits that write all ids."""
        count, reach = 1, self.base or vocabulary
        while reach < vocabulary:
            count, reach = count + 1, reach * self.base
        return count

    @property
    def symbols(self) -> int:
        """Coordinates without the mask."""
        return self.tokens.size - (self.tokens.mask is not None)

    def check(self, *, timed: bool) -> None:
        """Any time will do: the network is told t itself."""
        del timed

    def conditioning(self, clock: Array) -> Array:
        """A multiple of t, as log alpha has no value at the noise."""
        return TIME * clock

    def start(self) -> np.ndarray:
        """X_0, [d]."""
        size = self.tokens.size
        if self.tokens.mask is None:
            return np.full(size, 1 / math.sqrt(size))
        return np.eye(size)[self.tokens.mask]

    def prior(self, keys_B: Array, length: int) -> tuple[Array, Array]:
        """The one point, everywhere."""
        clock = self._begin(keys_B, length)
        inner = (self.tokens.size,) if self.tokens.digits == 1 else self._inner
        point = jnp.asarray(self.start(), clock.dtype)
        return jnp.broadcast_to(point, (keys_B.shape[0], length, *inner)), clock

    @property
    def _inner(self) -> tuple[int, ...]:
        return self.tokens.digits, self.tokens.size

    def written(self, tokens: Array) -> Array:
        """Digits of ids, the first the most significant, [..., m]; the ids where there are none."""
        if self.tokens.digits == 1:
            return tokens
        power = self.base ** np.arange(self.tokens.digits - 1, -1, -1)
        digits = tokens[..., None] // jnp.asarray(power, tokens.dtype) % self.base
        return jnp.where(tokens[..., None] < 0, -1, digits)

    def vertices(self, digits: Array) -> Array:
        """Their unit vectors [..., d]; no number where there is no token."""
        point = jax.nn.one_hot(digits, self.tokens.size, dtype=jnp.result_type(float))
        return jnp.where(digits[..., None] < 0, jnp.nan, point)

    def encode(self, tokens: Array) -> Array:
        """Vertices of tokens, [B, L, d] or [B, L, m, d]."""
        return self.vertices(self.written(tokens))

    def decode(self, z: Array) -> Array:
        """The token of the largest coordinates; of digits, the largest that an id begins with."""
        if self.tokens.digits == 1:
            known = min(self.symbols, self.tokens.vocabulary or self.symbols)
            return jnp.argmax(z[..., :known], axis=-1).astype(jnp.int32)
        last, token = self.tokens.vocabulary - 1, jnp.zeros(z.shape[:-2], jnp.int32)
        edge = jnp.ones(token.shape, bool)  # so far the digits are those of the last id
        for i in range(self.tokens.digits):
            limit = last // self.base ** (self.tokens.digits - 1 - i) % self.base
            allowed = (jnp.arange(self.base) <= limit) | ~edge[..., None]
            coordinate = jnp.where(allowed, z[..., i, : self.base], -jnp.inf)
            digit = jnp.argmax(coordinate, axis=-1)
            edge, token = edge & (digit == limit), token * self.base + digit.astype(jnp.int32)
        return token

    def shown(self, z: Array) -> Array:
        """As `decode`, and the mask where it is nearest; digits have no picture of it."""
        token, mask = self.decode(z), self.tokens.mask_token
        if mask is None:
            return token
        return jnp.where(jnp.argmax(z, axis=-1) == mask, mask, token)

    def _column(self, value: Array) -> Array:
        """[N] or [B] beside the leaves of a state: with as many axes as they have more."""
        return value.reshape(*value.shape, *(1,) * (2 if self.tokens.digits > 1 else 1))

    def corrupt(self, keys_B: Array, z0: Array, t_B: Array, keep: Array) -> tuple[Array, Array]:
        """From a law with the moments of the bridge: exp_mu(rho xi), without simulation."""
        x = self.encode(z0)
        start = jnp.asarray(self.start(), x.dtype)
        cosine = 0.0 if self.tokens.mask is not None else 1 / math.sqrt(self.tokens.size)
        table = bridges.table(self.schedule.total, self.tokens.size - 1, cosine)
        tau = self.schedule.alpha(t_B)
        knots = jnp.asarray(table.tau, x.dtype)
        of = lambda values: self._column(jnp.interp(tau, knots, jnp.asarray(values, x.dtype)))
        level = lambda value: value[:, None]
        a = level(of(table.a))
        rho = level(of(table.scale) * self._column(jnp.sqrt(tau * (1 - tau))))
        ahead = (x - cosine * start) / math.sqrt(1 - cosine**2)
        middle = a * ahead + jnp.sqrt(1 - a**2) * start
        z = exp_map(middle, rho * tangent(middle, self._noise(fold(keys_B, 0), x)))
        return self._kept(keep, x, z), t_B

    def corrupt_to_prior(
        self, keys_B: Array, z0: Array, t_B: Array, keep: Array
    ) -> tuple[Array, Array]:
        """By simulation of the bridge, as a bound needs it: the other law has its moments only."""
        x = self.encode(z0)
        tau = self._column(self.schedule.alpha(t_B))[:, None]
        begun = jnp.broadcast_to(jnp.asarray(self.start(), x.dtype), x.shape)

        def move(i: Array, z: Array) -> Array:
            now, then = tau * i / SIMULATED, tau * (i + 1) / SIMULATED
            return self._pulled(z, x, now, then, self._noise(fold(keys_B, i + 1), x))

        return self._kept(keep, x, jax.lax.fori_loop(0, SIMULATED, move, begun)), t_B

    def _noise(self, keys_B: Array, like: Array) -> Array:
        draw = lambda key: jax.random.normal(key, like.shape[1:], like.dtype)
        return jax.vmap(draw)(keys_B)

    def _kept(self, keep: Array, x: Array, z: Array) -> Array:
        return jnp.where(keep.reshape(*keep.shape, *(1,) * (x.ndim - 2)), x, z)

    def _pulled(self, z: Array, end: Array, now: Array, then: Array, noise: Array) -> Array:
        """A step of the bridge to `end`: on a circle its own law, whatever the step.

        Args:
          z: points [..., d].
          end: vertices [..., d].
          now: tau of the points, which broadcasts against them.
          then: tau to move to.
          noise: N(0, I) [..., d].
        """
        share = (then - now) / (1 - now)
        size = jnp.sqrt(self.schedule.total * share * (1 - then))
        return exp_map(z, share * log_map(z, end) + size * tangent(z, noise))

    def scored(self, z: Array) -> Array:
        """Every position."""
        return jnp.ones(z.shape[: z.ndim - (2 if self.tokens.digits > 1 else 1)], bool)

    def read(self, logits_NV: Array, z_N: Array, clock_N: Array) -> Array:
        """Log p(k | X) over the symbols, -inf at the mask."""
        del z_N, clock_N
        logits = at_least_float32(logits_NV)
        if self.tokens.mask is not None:
            hidden = jnp.arange(self.tokens.size) == self.tokens.mask
            logits = jnp.where(hidden, -jnp.inf, logits)
        return log_softmax(logits)

    def clean(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """The prediction is it."""
        del z_N, t_N
        return pred_NV

    def log_recovery(self, pred_NV: Array, z0_N: Array, z_N: Array, t_N: Array) -> Array:
        """Log p(x | z) of given tokens, the sum over their digits, [N]."""
        del z_N, t_N
        digit = self.written(z0_N)[..., None]
        found = jnp.take_along_axis(pred_NV, digit, -1)[..., 0]
        return found if found.ndim == 1 else jnp.sum(found, -1)

    def bound(self, logits_NV: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """-alpha' / (2 B (1 - tau)^2) |difference of the two drifts|^2 of each row, nats."""
        pred = self.read(logits_NV, z_N, clock_N)
        true = jnp.arange(self.tokens.size) == self.written(z0_N)[..., None]
        apart = towards_vertices(z_N, jnp.where(true, jnp.expm1(pred), jnp.exp(pred)))
        square = jnp.sum(apart**2, axis=tuple(range(1, apart.ndim)))
        schedule = self.schedule
        speed = -schedule.d_alpha(clock_N) / (2 * schedule.total * schedule.noise(clock_N) ** 2)
        return speed * square

    def boundary(self, dtype: Any = jnp.float32) -> Array:
        """0: all begin at the same point."""
        return jnp.zeros((), dtype)

    def move_probability(self, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """1: every point moves."""
        del z_N, s_N
        return jnp.ones_like(t_N)

    def sample_posterior(
        self, draw: Draw, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None
    ) -> Array:
        """A token from p(k | X), and a step of the bridge to it; s None = the token itself."""
        rows = draw if self.tokens.digits == 1 else draw.rows(self.tokens.digits)
        digit = rows.categorical(pred_NV.reshape(-1, self.tokens.size))
        end = self.vertices(digit).reshape(z_N.shape).astype(z_N.dtype)
        if s_N is None:
            return end
        now, then = (self._column(self.schedule.alpha(t)) for t in (t_N, s_N))
        return self._pulled(z_N, end, now, then, draw.normal(z_N.shape[1:]).astype(z_N.dtype))

    def diffuse(self, draw: Draw, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array) -> Array:
        """A geodesic along the mean drift and the noise of the interval (Euler and Maruyama)."""
        now, then = (self._column(self.schedule.alpha(t)) for t in (t_N, s_N))
        ahead = towards_vertices(z_N, jnp.exp(pred_NV)) * (then - now) / (1 - now)
        noise = tangent(z_N, draw.normal(z_N.shape[1:]).astype(z_N.dtype))
        return exp_map(z_N, ahead + jnp.sqrt(self.schedule.total * (then - now)) * noise)
