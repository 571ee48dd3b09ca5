"""Uniform-state diffusion: UDLM, arXiv 2412.10193; Duo, arXiv 2506.10892."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.draws import fold, integers, uniforms
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array
from ldd_jax.processes.base import Diffusion, check_rows, log_softmax


@register("process", "uniform")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform(Diffusion):
    """q(z_t | x) = alpha_t e_x + (1 - alpha_t) / V over all V states.

    The plug-in posterior below is exact, and the bound is minimised, when x_theta of a position is
    the leave-one-out posterior p(x^i | z without i), not p(x^i | z).
    """

    bridges = True

    @staticmethod
    def token_space_size(vocabulary: int) -> tuple[int, int | None]:
        """States and mask id for a vocabulary: no mask."""
        return vocabulary, None

    def prior(self, keys_B: Array, length: int) -> tuple[Array, Array]:
        """Uniform tokens, [B, length], at t = 1."""
        return self._noise(keys_B, length), self._begin(keys_B, length)

    def _noise(self, keys_B: Array, length: int) -> Array:
        return integers(fold(keys_B, 1), (length,), self.tokens.size)

    def corrupt(self, keys_B: Array, z0: Array, t_B: Array, keep: Array) -> tuple[Array, Array]:
        """Resample each position outside `keep` with probability 1 - alpha_t; clock = t."""
        noise = self._noise(keys_B, z0.shape[1]).astype(z0.dtype)
        clock = self.clock(t_B, z0.shape[1])
        return self._replace(keys_B, z0, self.schedule.noise(clock), keep, noise), clock

    def bridge(
        self, keys_B: Array, z0: Array, z: Array, clock: Array, later: Array, keep: Array
    ) -> Array:
        """q(z_s | z_t, x) ~ (a e_z + (1 - a) / V) (alpha_s e_x + (1 - alpha_s) / V), elementwise.

        With a = alpha_t / alpha_s a mixture of x, z_t and noise, so that no row of V numbers is
        made.
        """
        size = self.tokens.size
        alpha_t, alpha_s = (positions.column(self.schedule.alpha(a)) for a in (clock, later))
        stay, rest = alpha_t / alpha_s, (1 - alpha_s) / size
        to_x = alpha_s * jnp.where(z == z0, stay, 0) + alpha_s * (1 - stay) / size
        to_z, to_noise = stay * rest, (1 - stay) * rest
        u = uniforms(fold(keys_B, 0), z0.shape[1:]) * (to_x + to_z + to_noise)
        noise = self._noise(keys_B, z0.shape[1]).astype(z.dtype)
        new = jnp.where(u < to_x, z0, jnp.where(u < to_x + to_z, z, noise))
        return jnp.where(keep, z, new)

    def noise_law(self, dtype: Any) -> Array:
        """Any state."""
        return jnp.full(self.tokens.size, 1 / self.tokens.size, dtype)

    def scored(self, z: Array) -> Array:
        """Every position."""
        return jnp.ones(z.shape, bool)

    def _log_marginal(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """log(V alpha p + 1 - alpha): V times the law of z_t^i given the others, [N, V]."""
        check_rows(pred_NV, z_N, self.tokens.size)
        noise, alpha = (level(t_N)[:, None] for level in (self.schedule.noise, self.schedule.alpha))
        return jnp.log(self.tokens.size * alpha * jnp.exp(pred_NV) + noise)

    def bound(self, logits_NV: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """-alpha'/(V alpha) sum_{j != z} r_j phi(log r^_j - log r_j), nats.

        With r_j = xbar_j / xbar_z, xbar = V alpha x + 1 - alpha, r^ the same from x_theta and
        phi(d) = e^d - 1 - d. Equal to the published closed form (UDLM eq. 18), but a sum of
        non-negative terms: the closed form loses up to 0.3 nats a token at t = 1e-3 in float32.
        """
        log_model = self._log_marginal(log_softmax(logits_NV), z_N, clock_N)
        return self._score_entropy(log_model, z0_N, z_N, clock_N)

    def _score_entropy(self, log_model_NV: Array, z0_N: Array, z_N: Array, t_N: Array) -> Array:
        """The sum of `bound` for r^_j = model_j / model_z, from log model (any constant added)."""
        noise = self.schedule.noise(t_N)[:, None]
        scale = self.tokens.size * self.schedule.alpha(t_N)[:, None]
        token = jnp.arange(log_model_NV.shape[-1])
        is_x, is_z = token == z0_N[:, None], token == z_N[:, None]
        log_true = jnp.where(is_x, jnp.log(scale + noise), jnp.log(noise))
        pick = lambda a: jnp.sum(jnp.where(is_z, a, 0), -1, keepdims=True)
        log_r = log_true - pick(log_true)
        gap = log_model_NV - pick(log_model_NV) - log_r
        terms = jnp.where(is_z, 0, jnp.exp(log_r) * (jnp.expm1(gap) - gap))
        return -self.schedule.d_alpha(t_N) / scale[:, 0] * jnp.sum(terms, -1)

    def boundary(self, dtype=jnp.float32) -> Array:
        """Prior term KL(q(z_1 | x) || uniform), nats per token."""
        size = self.tokens.size
        one = jnp.ones((), dtype)
        other = self.schedule.noise(one) / size
        same = 1 - (size - 1) * other
        return same * jnp.log(size * same) + (size - 1) * other * jnp.log(size * other)

    def drawn_boundary(self, z0_N: Array, z_N: Array) -> Array:
        """Log V q(z_1 | x)."""
        size = self.tokens.size
        other = self.schedule.noise(jnp.ones((), jnp.result_type(float))) / size
        return jnp.log(size * jnp.where(z0_N == z_N, 1 - (size - 1) * other, other))

    def read(self, logits_NV: Array, z_N: Array, clock_N: Array) -> Array:
        """Log softmax over all states."""
        del z_N, clock_N
        return log_softmax(logits_NV)

    def log_posterior(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """Plug-in posterior (UDLM eq. 11): gain x_theta + rest, all non-negative, normalised.

        At z: gain = V alpha_t + d, rest = noise_s / alpha_s (alpha_t + d / V), d = noise_t -
        noise_s; elsewhere without alpha_t. In logs, so that a probability that underflows at
        noise_s = 0 keeps its value and its gradient.
        """
        check_rows(pred_NV, z_N, self.tokens.size)
        noise_t, noise_s = self._levels(t_N, s_N)
        alpha_t, alpha_s = self._signals(t_N, s_N)
        size = self.tokens.size
        # The same number twice, each where it is no difference of numbers near 1.
        step = jnp.where(noise_t < 0.5, noise_t - noise_s, alpha_s - alpha_t)
        at_z = jnp.arange(size) == z_N[:, None]
        here = jnp.where(at_z, alpha_t, 0)
        log_gain = jnp.log(size * here + step)
        log_rest = jnp.log(noise_s / alpha_s * (here + step / size))
        joint = jnp.logaddexp(pred_NV + log_gain, log_rest)
        p_z = jnp.sum(jnp.where(at_z, jnp.exp(pred_NV), 0), -1, keepdims=True)
        return joint - jnp.log(size * alpha_t * p_z + noise_t)

    def rate(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """mu(z -> y) = sigma' / V * (V alpha p_y + 1 - alpha) / (V alpha p_z + 1 - alpha)."""
        log_model = self._log_marginal(pred_NV, z_N, t_N)
        at_z = jnp.arange(pred_NV.shape[-1]) == z_N[:, None]
        ratio = jnp.exp(log_model - jnp.sum(jnp.where(at_z, log_model, 0), -1, keepdims=True))
        return jnp.where(at_z, 0, self.schedule.d_sigma(t_N)[:, None] / self.tokens.size * ratio)

    def log_analytic(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """Tweedie tau-leaping from the score s_y = xbar_y / xbar_z, xbar = V alpha x + 1 - alpha.

        With d = sigma_t - sigma_s: (e^d s - (e^d - 1)/V sum s) times e^-d 1[y = z] + (1 - e^-d)/V,
        normalised (SEDD). Equal to the plug-in posterior when x_theta sums to one.
        """
        alpha_t, alpha_s = self._signals(t_N, s_N)
        gain, size = alpha_s / alpha_t, self.tokens.size
        log_model = self._log_marginal(pred_NV, z_N, t_N)
        at_z = jnp.arange(size) == z_N[:, None]
        score = jnp.exp(log_model - jnp.sum(jnp.where(at_z, log_model, 0), -1, keepdims=True))
        staggered = gain * score - (gain - 1) / size * jnp.sum(score, -1, keepdims=True)
        kernel = jnp.where(at_z, 1 / gain, 0) + (1 - 1 / gain) / size
        law = jnp.maximum(staggered, 0) * kernel
        on = law > 0  # log 0 has no gradient, not even times 0
        log_law = jnp.where(on, jnp.log(jnp.where(on, law, 1)), -jnp.inf)
        return log_law - jnp.log(jnp.sum(law, -1, keepdims=True))

    def noise_rate(self, z_N: Array, t_N: Array, size: int) -> Array:
        """Forward intensities (d sigma/dt) / V to every other state, [N, size]."""
        rate = (self.schedule.d_sigma(t_N) / size)[:, None]
        return jnp.where(jnp.arange(size) == z_N[:, None], 0, rate)

    def noise_total_rate(self, z_N: Array, t_N: Array) -> Array:
        """Total forward intensity of a row."""
        size = self.tokens.size
        return jnp.broadcast_to(self.schedule.d_sigma(t_N) * ((size - 1) / size), z_N.shape)

    def revealed(self, z: Array) -> Array:
        """Every position."""
        return jnp.ones(z.shape, bool)

    def log_conditional(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """Log p(z_t^i | the others) = log((V alpha x_theta + 1 - alpha) / V), leave-one-out."""
        return self._log_marginal(pred_NV, z_N, t_N) - jnp.log(
            jnp.asarray(self.tokens.size, t_N.dtype)
        )
