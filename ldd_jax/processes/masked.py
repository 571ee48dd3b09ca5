"""Masked (absorbing) diffusion with the SUBS parameterisation: MDLM, arXiv 2406.07524."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.draws import fold, uniforms
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw
from ldd_jax.processes.base import Diffusion, at_least_float32, log_softmax, onehot_log


@register("process", "masked")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Masked(Diffusion):
    """q(z_t | x) = alpha_t e_x + (1 - alpha_t) e_mask.

    `absorbing`: going back in time, a position changes once, from the mask.
    """

    absorbing = bridges = True

    def __post_init__(self):
        if self.tokens is not None and self.tokens.mask is None:
            raise ValueError("masked diffusion needs a token space with a mask")

    @property
    def _mask(self) -> int:
        assert self.tokens.mask is not None
        return self.tokens.mask

    @staticmethod
    def token_space_size(vocabulary: int) -> tuple[int, int | None]:
        """States and mask id for a vocabulary: the mask is one more state, the last."""
        return vocabulary + 1, vocabulary

    def prior(self, keys_B: Array, length: int) -> tuple[Array, Array]:
        """All masks, [B, length], at t = 1."""
        z = jnp.full((keys_B.shape[0], length), self._mask, jnp.int32)
        return z, self._begin(keys_B, length)

    def corrupt(self, keys_B: Array, z0: Array, t_B: Array, keep: Array) -> tuple[Array, Array]:
        """Mask each position outside `keep` with probability 1 - alpha_t; clock = t."""
        clock = self.clock(t_B, z0.shape[1])
        return self._masked(keys_B, z0, self.schedule.noise(clock), keep), clock

    def corrupt_to_prior(
        self, keys_B: Array, z0: Array, t_B: Array, keep: Array
    ) -> tuple[Array, Array]:
        """Mask with probability (1 - alpha_t) / (1 - alpha_1): all of it at t = 1.

        The sampler starts from nothing but masks and its posterior, its rate and the weight of the
        bound know 1 - alpha up to a factor only: this is the forward process that it reverses.
        """
        clock = self.clock(t_B, z0.shape[1])
        level = self.schedule.noise(clock) / self.schedule.noise(jnp.ones_like(clock))
        return self._masked(keys_B, z0, level, keep), clock

    def _masked(self, keys_B: Array, z0: Array, level: Array, keep: Array) -> Array:
        return self._replace(keys_B, z0, level, keep, jnp.full_like(z0, self._mask))

    def bridge(
        self, keys_B: Array, z0: Array, z: Array, clock: Array, later: Array, keep: Array
    ) -> Array:
        """A mask stays with probability (1 - alpha_s) / (1 - alpha_t); else it shows its token."""
        del keep  # never masked
        noise_t, noise_s = self.schedule.noise(clock), self.schedule.noise(later)
        stay = positions.column(noise_s / jnp.where(noise_t > 0, noise_t, 1))
        u = uniforms(fold(keys_B, 0), z0.shape[1:])
        return jnp.where(self.scored(z) & (u >= stay), z0, z)

    def noise_law(self, dtype: Any) -> Array:
        """The mask."""
        return (jnp.arange(self.tokens.size) == self._mask).astype(dtype)

    def scored(self, z: Array) -> Array:
        """Masked positions."""
        return z == jnp.asarray(self._mask, z.dtype)

    def _log_clean(self, logits_NV: Array) -> Array:
        """Log softmax over the symbols, the mask column removed."""
        mask = jnp.arange(logits_NV.shape[-1]) == self._mask
        return log_softmax(jnp.where(mask, -jnp.inf, at_least_float32(logits_NV)))

    def bound(self, logits_NV: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """-alpha' / (1 - alpha) * (-log x_theta[x]) at masked rows, nats (MDLM eq. 10)."""
        logp = jnp.take_along_axis(self._log_clean(logits_NV), z0_N[:, None], -1)[:, 0]
        return jnp.where(self.scored(z_N), -self.schedule.weight(clock_N) * logp, 0)

    def boundary(self, dtype=jnp.float32) -> Array:
        """Prior term, nats per token: 0, as `corrupt_to_prior` ends in nothing but masks."""
        return jnp.zeros((), dtype)

    def drawn_boundary(self, z0_N: Array, z_N: Array) -> Array:
        """0 of every row."""
        del z_N
        return jnp.zeros(z0_N.shape, jnp.result_type(float))

    def read(self, logits_NV: Array, z_N: Array, clock_N: Array) -> Array:
        """SUBS: no mask column; unmasked rows carry their token over with probability 1."""
        del clock_N
        logp = self._log_clean(logits_NV)
        carried = onehot_log(z_N, logp.shape[-1], logp.dtype)
        return jnp.where(self.scored(z_N)[:, None], logp, carried)

    def log_posterior(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """P(mask) = (1 - alpha_s)/(1 - alpha_t), the rest by x_theta; unmasked rows stay."""
        noise_t, noise_s = self._levels(t_N, s_N)
        stay = noise_s / noise_t
        mask = jnp.arange(pred_NV.shape[-1]) == self._mask
        moved = jnp.where(mask, jnp.log(stay), jnp.log1p(-stay) + pred_NV)
        return jnp.where(self.scored(z_N)[:, None], moved, pred_NV).astype(pred_NV.dtype)

    def clean(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """The prediction itself: at a masked row z says nothing, a seen token is carried over."""
        del z_N, t_N
        return pred_NV

    def move_probability(self, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """A masked row is revealed with probability (alpha_s - alpha_t)/(1 - alpha_t)."""
        noise_t, noise_s = self._levels(t_N, s_N)
        return jnp.where(self.scored(z_N), (noise_t - noise_s)[:, 0] / noise_t[:, 0], 0)

    def sample_posterior(
        self, draw: Draw, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None
    ) -> Array:
        """A revealed row takes a token from x_theta; which rows are revealed needs no network."""
        return draw.outcome(pred_NV, self.move_probability(z_N, t_N, s_N), z_N)

    def rate(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """mu(z -> y) = -alpha'/(1 - alpha) x_theta[y] at masked rows, 0 elsewhere."""
        mu = self.schedule.weight(t_N)[:, None] * jnp.exp(pred_NV)
        return jnp.where(self.scored(z_N)[:, None], mu, 0)

    def total_rate(self, z_N: Array, t_N: Array) -> Array:
        """-alpha'/(1 - alpha) at masked rows whatever x_theta, 0 elsewhere."""
        return jnp.where(self.scored(z_N), self.schedule.weight(t_N), 0)

    def flow_rates(self, t: Array, eta: float) -> tuple[Array, Array]:
        """Intensities, going back, of a mask and of a token that may be masked again.

        With tau = 1 - (1 - alpha) / (1 - alpha_1), the share that is revealed on the way from
        nothing but masks: R(mask -> y) = x_theta[y] (weight + eta tau / (1 - tau)) and
        R(y -> mask) = eta. Whatever eta, the marginals are those of the forward process
        (discrete flow matching, arXiv 2402.04997, section 3 and appendix F).

        Args:
          t: times.
          eta: tokens that are taken back, per unit of time.
        """
        level = self.schedule.noise(t) / self.schedule.noise(jnp.ones_like(t))
        return self.schedule.weight(t) + eta * (1 - level) / level, jnp.full_like(t, eta)

    def log_analytic(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array) -> Array:
        """Tweedie tau-leaping from the score s_y = alpha/(1 - alpha) x_theta[y], s_mask = 1 (SEDD).

        With d = sigma_t - sigma_s the staggered score is e^d s off the mask and
        e^d + (1 - e^d) sum s at it; the transposed kernel multiplies by 1 - e^-d off the mask.
        Written out, so that alpha_t = 0 divides nothing: c x_theta[y] and 1 - c sum x_theta, with
        c = (alpha_s - alpha_t)/(1 - alpha_t).
        """
        noise_t, noise_s = self._levels(t_N, s_N)
        mask = jnp.arange(pred_NV.shape[-1]) == self._mask
        jump = jnp.where(mask, 0, (noise_t - noise_s) / noise_t * jnp.exp(pred_NV))
        law = jnp.where(mask, 1 - jnp.sum(jump, -1, keepdims=True), jump)
        return jnp.where(self.scored(z_N)[:, None], jnp.log(law), pred_NV)

    def noise_rate(self, z_N: Array, t_N: Array, size: int) -> Array:
        """Forward intensities d sigma/dt: symbols to the mask, [N, size]."""
        mask = jnp.arange(size) == self._mask
        return jnp.where(mask, self.noise_total_rate(z_N, t_N)[:, None], 0)

    def noise_total_rate(self, z_N: Array, t_N: Array) -> Array:
        """Total forward intensity of a row."""
        return jnp.where(self.scored(z_N), 0, self.schedule.d_sigma(t_N))

    def both_ways(self, z_N: Array, t_N: Array) -> Array | None:
        """A mask leaves with weight(t), a symbol with d sigma/dt, whatever the symbol."""
        both = self.schedule.weight(t_N) + self.schedule.d_sigma(t_N)
        return jnp.broadcast_to(both, z_N.shape)

    def mask_at(self, z: Array, where: Array) -> Array:
        """Mask them: a network with carry-over predicts nothing at a position that it sees."""
        return jnp.where(where, jnp.asarray(self._mask, z.dtype), z)

    def revealed(self, z: Array) -> Array:
        """Positions whose token could be drawn anew from all others: those not masked."""
        return ~self.scored(z)

    def log_conditional(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """Log p(z_t^i | the others, i not masked) = x_theta at the hidden row."""
        del z_N, t_N
        return pred_NV
