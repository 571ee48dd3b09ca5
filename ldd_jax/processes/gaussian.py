"""Gaussian diffusion of the vectors that a text is compressed to (latent diffusion, 2212.09462)."""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from ldd_jax.core.checks import at_least_one
from ldd_jax.core.draws import fold
from ldd_jax.core.registry import component, register
from ldd_jax.core.types import Array, Draw
from ldd_jax.processes.base import Diffusion, at_least_float32
from ldd_jax.processes.left_to_right import LeftToRight
from ldd_jax.schedules import Angle


def _of_the_network(*_: Any) -> NoReturn:
    raise TypeError("vectors and texts are made of each other by a network (model compressor)")


@register("process", "gaussian")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaussian(Diffusion):
    """z_t = sqrt(alpha) y + sqrt(1 - alpha) n, n ~ N(0, 1), for y [B, Q, C] that stands for a text.

    Variance preserving, alpha = alpha(t) of the schedule (the DDPM papers' alpha bar). Noise at t =
    0 is not none: z_0 is the posterior q(z_0 | x) of a hierarchical model whose decoder p(x | z_0)
    reads it, so that y = E(x) without a variance of its own has one all the same. The network's
    head gives the velocity v = sqrt(alpha) n - sqrt(1 - alpha) y (arXiv 2202.00512), the prediction
    is the estimate y^ = sqrt(alpha) z - sqrt(1 - alpha) v.

    Tokens are no part of the state: `reader` is the process by which they are drawn from it.

    Attributes:
      vectors: Q of a text, whatever its length.
      size: C, numbers of a vector.
    """

    schedule: Any = component("schedule", Angle)
    vectors: int = 8
    size: int = 16
    points = True
    chain = (
        " in the limit of small steps (tail none), whose text is drawn left to right given the "
        "vectors that they end with"
    )

    def __post_init__(self):
        at_least_one(self, "vectors", "size")
        with jax.ensure_compile_time_eval():
            if not float(self.schedule.noise(jnp.zeros(()))) > 0:
                raise ValueError(
                    "process gaussian needs noise at t = 0, without which nothing is a bound; use "
                    "schedule angle"
                )

    @property
    def reader(self) -> LeftToRight:
        """Tokens given the vectors, one after the other."""
        return LeftToRight(tokens=self.tokens)

    @staticmethod
    def token_space_size(vocabulary: int) -> tuple[int, int | None]:
        """As of a left-to-right model: one more state, the start."""
        return LeftToRight.token_space_size(vocabulary)

    def with_tokens(self, z: Array, tokens: Array) -> Array:
        """The vectors: they hold no tokens."""
        del tokens
        return z

    def conditioning(self, clock: Array) -> Array:
        """Log alpha - log(1 - alpha), from which the network knows both."""
        return jnp.log(self.schedule.alpha(clock)) - jnp.log(self.schedule.noise(clock))

    def _normal(self, keys_B: Array, shape: tuple[int, ...]) -> Array:
        return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.result_type(float)))(keys_B)

    def prior(self, keys_B: Array, length: int) -> tuple[Array, Array]:
        """Standard normals [B, Q, C]."""
        return self._normal(keys_B, (self.vectors, self.size)), self._begin(keys_B, length)

    def encode(self, tokens: Array) -> Array:
        """Zeros in the place of vectors, which only the network knows."""
        shape = (tokens.shape[0], self.vectors, self.size)
        return jnp.zeros(shape, jnp.result_type(float))

    def places(self, fixed_BL: Array) -> Array:
        """None: a vector belongs to no position of the text."""
        return jnp.zeros((fixed_BL.shape[0], self.vectors), bool)

    def decode(self, z: Array) -> Array:
        """Refused: see `samplers.reading`."""
        _of_the_network()

    def corrupt(self, keys_B: Array, z0: Array, t_B: Array, keep: Array) -> tuple[Array, Array]:
        """z_t, also where kept, and t."""
        del keep
        level = lambda a: a[:, None, None].astype(z0.dtype)
        noise = self._normal(fold(keys_B, 0), z0.shape[1:]).astype(z0.dtype)
        alpha, rest = self.schedule.alpha(t_B), self.schedule.noise(t_B)
        return level(jnp.sqrt(alpha)) * z0 + level(jnp.sqrt(rest)) * noise, t_B

    def scored(self, z: Array) -> Array:
        """Every vector."""
        return jnp.ones(z.shape[:2], bool)

    def read(self, logits_NC: Array, z_N: Array, clock_N: Array) -> Array:
        """The estimate of y, [N, C]."""
        signal, noise = self._roots(clock_N)
        return signal * z_N - noise * at_least_float32(logits_NC)

    def _roots(self, t_N: Array) -> tuple[Array, Array]:
        """sqrt(alpha) and sqrt(1 - alpha), as columns."""
        alpha, noise = self.schedule.alpha(t_N), self.schedule.noise(t_N)
        return jnp.sqrt(alpha)[:, None], jnp.sqrt(noise)[:, None]

    def squares(self, logits_NC: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """|v - v^|^2 = |y - y^|^2 / (1 - alpha) of each vector, [N].

        Args:
          logits_NC: the velocity that the head gives.
          z0_N: y.
          z_N: z_t.
          clock_N: t of each row.
        """
        signal, noise = self._roots(clock_N)
        true = (signal * z_N - z0_N) / noise
        return jnp.sum((true - at_least_float32(logits_NC)) ** 2, -1)

    def bound(self, logits_NC: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """-SNR' / 2 |y - y^|^2, SNR = alpha / (1 - alpha): the part of q(z_0 | x) given z_1."""
        rate = 0.5 * self.schedule.weight(clock_N)
        return rate * self.squares(logits_NC, z0_N, z_N, clock_N)

    def boundary(self, dtype: Any = jnp.float32) -> Array:
        """0: the prior term depends on the text; see `prior_term`."""
        return jnp.zeros((), dtype)

    def prior_term(self, z0: Array) -> Array:
        """KL(q(z_1 | y) || N(0, 1)) of every vector, nats, [B, Q]."""
        one = jnp.ones((), z0.dtype)
        alpha, noise = self.schedule.alpha(one), self.schedule.noise(one)
        return 0.5 * jnp.sum(alpha * z0**2 + noise - 1 - jnp.log(noise), -1)

    def move_probability(self, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """1: every vector moves."""
        del z_N, s_N
        return jnp.ones_like(t_N)

    def sample_posterior(
        self, draw: Draw, pred_NC: Array, z_N: Array, t_N: Array, s_N: Array | None
    ) -> Array:
        """q(z_s | z_t, y = y^) (DDPM, arXiv 2006.11239, eq. 7); s None = y^ itself."""
        if s_N is None:
            return pred_NC.astype(z_N.dtype)
        (signal_t, noise_t), (signal_s, noise_s) = self._roots(t_N), self._roots(s_N)
        kept = signal_t / signal_s
        # 1 - kept^2 noise_s^2 / noise_t^2, the share of the variance that is new between s and t
        new = 1 - (kept * noise_s / noise_t) ** 2
        mean = signal_s * new * pred_NC + kept * (noise_s / noise_t) ** 2 * z_N
        spread = noise_s * jnp.sqrt(jnp.maximum(new, 0))
        return (mean + spread * draw.normal(z_N.shape[1:])).astype(z_N.dtype)

    def diffuse(self, draw: Draw, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array) -> Array:
        """The equation solved with y^ held over the step: the same posterior."""
        return self.sample_posterior(draw, pred_NV, z_N, t_N, s_N)
