"""Score entropy discrete diffusion: SEDD, arXiv 2310.16834. The network gives log ratios.

s(z)_y estimates p_t(z with z^i <- y) / p_t(z), freely: nothing makes it belong to a distribution
over x_0. Both bounds are denoising score entropies (eq. 8 with the closed forms of appendix C),

  sigma' sum_{y != z} Q(y, z) (s_y - r_y log s_y + r_y (log r_y - 1)),  r_y = q(y | x) / q(z | x),

written so that float32 holds at both ends of time.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw
from ldd_jax.processes.base import at_least_float32, check_rows, log_softmax
from ldd_jax.processes.masked import Masked
from ldd_jax.processes.uniform import Uniform


def at_present(log_NV: Array, z_N: Array) -> Array:
    """Log ratios with 0 at the present token."""
    return jnp.where(jnp.arange(log_NV.shape[-1]) == z_N[:, None], 0, log_NV)


@register("process", "masked_score")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedScore(Masked):
    """SEDD absorb.

    The exact score of a masked position is s_y = k p(x = y | z) with k = alpha / (1 - alpha) =
    1 / (e^sigma - 1), so the prediction is kept as c = s / k: it has no pole at t = 0, and where it
    sums to one the bound is MDLM's, pointwise. `scale_by_sigma` (the published setting) reads
    logits as log c + log(symbols); without it they are log s.
    """

    scale_by_sigma: bool = True
    predicts = "ratio"

    def _log_k(self, t_N: Array) -> Array:
        return -self.schedule.sigma(t_N) - jnp.log(self.schedule.noise(t_N))

    def log_score(self, logits_NV: Array, z_N: Array, t_N: Array) -> Array:
        """Log s as SEDD's network hands it out: 0 at the present token.

        Args:
          logits_NV: what the head gives.
          z_N: tokens that the network saw.
          t_N: time of each row.

        Returns:
          [N, V], log p_t(z with z^i <- y) / p_t(z).
        """
        log_s = self._log_ratio(logits_NV, t_N) + self._log_k(t_N)[:, None]
        return at_present(log_s, z_N)

    def _log_ratio(self, logits_NV: Array, t_N: Array) -> Array:
        """Log c, mask column included."""
        check_rows(logits_NV, t_N, self.tokens.size)
        logits = at_least_float32(logits_NV)
        if self.scale_by_sigma:
            return logits - jnp.log(jnp.asarray(self.tokens.size - 1, logits.dtype))
        return logits - self._log_k(t_N)[:, None]

    def _log_symbols(self, logits_NV: Array, t_N: Array) -> Array:
        """Log c, the mask column removed."""
        mask = jnp.arange(logits_NV.shape[-1]) == self._mask
        return jnp.where(mask, -jnp.inf, self._log_ratio(logits_NV, t_N))

    def bound(self, logits_NV: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """-alpha' / (1 - alpha) (sum_y c_y - 1 - log c_x) at masked rows, nats.

        The score entropy with s = k c: k sum c - k log(k c_x) + k (log k - 1), in which log k
        cancels.
        """
        log_c = self._log_symbols(logits_NV, clock_N)
        at_x = jnp.take_along_axis(log_c, z0_N[:, None], -1)[:, 0]
        excess = jnp.sum(jnp.exp(log_c), -1) - 1 - at_x
        return jnp.where(self.scored(z_N), self.schedule.weight(clock_N) * excess, 0)

    def read(self, logits_NV: Array, z_N: Array, clock_N: Array) -> Array:
        """Log c, which need not sum to one; unmasked rows carry their token over."""
        log_c = self._log_symbols(logits_NV, clock_N)
        hit = jnp.arange(log_c.shape[-1]) == z_N[:, None]
        carried = jnp.where(hit, jnp.zeros((), log_c.dtype), -jnp.inf)
        return jnp.where(self.scored(z_N)[:, None], log_c, carried)

    def clean(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """The score over its sum."""
        del z_N, t_N
        return jax.nn.log_softmax(pred_NV, axis=-1)

    def log_posterior(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """That of masked diffusion with the normalised prediction."""
        return super().log_posterior(self.clean(pred_NV, z_N, t_N), z_N, t_N, s_N)

    def sample_posterior(
        self, draw: Draw, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None
    ) -> Array:
        """A draw from it."""
        return super().sample_posterior(draw, self.clean(pred_NV, z_N, t_N), z_N, t_N, s_N)

    def log_analytic(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array) -> Array:
        """Tweedie's step (eq. 19) with the free score, clipped where the mask's share is below 0.

        That share is 1 - (alpha_s - alpha_t)/(1 - alpha_t) sum c, negative where c sums to more
        than the step allows.
        """
        noise_t, noise_s = self._levels(t_N, s_N)
        mask = jnp.arange(pred_NV.shape[-1]) == self._mask
        jump = jnp.where(mask, 0, (noise_t - noise_s) / noise_t * jnp.exp(pred_NV))
        total = jnp.sum(jump, -1, keepdims=True)
        law = jnp.where(mask, jnp.maximum(1 - total, 0), jump) / jnp.maximum(total, 1)
        on = law > 0  # log 0 has no gradient, not even times 0
        log_law = jnp.where(on, jnp.log(jnp.where(on, law, 1)), -jnp.inf)
        return jnp.where(self.scored(z_N)[:, None], log_law, pred_NV)

    def total_rate(self, z_N: Array, t_N: Array) -> Array:
        """Known only where it is 0: a masked row leaves with intensity weight * sum c."""
        return jnp.where(self.scored(z_N), jnp.inf, jnp.zeros_like(t_N))

    def both_ways(self, z_N: Array, t_N: Array) -> Array | None:
        """Not known: a mask leaves with weight * sum c."""
        del z_N, t_N
        return None

    def log_conditional(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """The score over its sum."""
        return self.clean(pred_NV, z_N, t_N)


@register("process", "d3pm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedMean(MaskedScore):
    """D3PM absorbing (arXiv 2107.03006): x_theta = softmax over all states, the mask among them.

    Its plug-in posterior at a masked position is x_y (alpha_s - alpha_t) / (1 - alpha_t + alpha_t
    x_mask) off the mask: a Tweedie step of the score c_y = x_y / (1 + alpha_t x_mask / (1 -
    alpha_t)), so its bound in the limit of many steps is a score entropy, too. With `times` grid
    the bound is that of finite T.
    """

    scale_by_sigma: bool = False

    def _log_ratio(self, logits_NV: Array, t_N: Array) -> Array:
        logp = log_softmax(logits_NV)
        at_mask = logp[:, self._mask]
        return logp - jnp.log1p(jnp.exp(self._log_k(t_N) + at_mask))[:, None]

    def move_probability(self, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """Whether a masked row is revealed depends on the prediction."""
        del s_N
        return jnp.where(self.scored(z_N), jnp.ones_like(t_N), 0)

    def log_posterior(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """The plug-in posterior; the noise removal leaves the mask out."""
        if s_N is None:
            return self.clean(pred_NV, z_N, t_N)
        return self.log_analytic(pred_NV, z_N, t_N, s_N)

    def sample_posterior(
        self, draw: Draw, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None
    ) -> Array:
        """A draw from it."""
        law = self.log_posterior(pred_NV, z_N, t_N, s_N)
        return draw.outcome(law, self.move_probability(z_N, t_N, s_N), z_N)


@register("process", "uniform_score")
@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformScore(Uniform):
    """SEDD uniform: logits are log s, 0 at the present token.

    Q = 1 / V off the diagonal. With s_y = xbar_y / xbar_z of an x_theta the bound is UDLM's.
    """

    predicts = "ratio"

    def log_score(self, logits_NV: Array, z_N: Array, t_N: Array) -> Array:
        """Log s as SEDD's network hands it out."""
        del t_N
        check_rows(logits_NV, z_N, self.tokens.size)
        return at_present(at_least_float32(logits_NV), z_N)

    def read(self, logits_NV: Array, z_N: Array, clock_N: Array) -> Array:
        """Log s - log sum s: the law of z_t^i given the others, if s is exact."""
        return jax.nn.log_softmax(self.log_score(logits_NV, z_N, clock_N), axis=-1)

    def bound(self, logits_NV: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """Denoising score entropy, a sum of non-negative terms like UDLM's, nats."""
        log_s = self.log_score(logits_NV, z_N, clock_N)
        return self._score_entropy(log_s, z0_N, z_N, clock_N)

    def _log_marginal(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """V times the law of z_t^i given the others."""
        del t_N
        check_rows(pred_NV, z_N, self.tokens.size)
        return pred_NV + jnp.log(jnp.asarray(self.tokens.size, pred_NV.dtype))

    def one_hot_prediction(self, z0_N: Array, z_N: Array, t_N: Array) -> Array:
        """The law of z_t^i for a known x."""
        known = super().one_hot_prediction(z0_N, z_N, t_N)
        law = super()._log_marginal(known, z_N, t_N)
        return law - jnp.log(jnp.asarray(self.tokens.size, t_N.dtype))

    def log_posterior(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """Tweedie's step: with an exact score it is the posterior."""
        return self.log_analytic(pred_NV, z_N, t_N, s_N)
