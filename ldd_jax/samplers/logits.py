"""Read-out settings on p(x0 | z): temperature, top-k and top-p, for every process and step."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array

_BITS = {4: jnp.int32, 8: jnp.int64}


def keep_top_p(logp_NV: Array, p: float | Array) -> Array:
    """Nucleus: True for the most probable tokens up to and including the one crossing mass p.

    The last axis is a law; the others are as they come (guidance has pairs [N, 2, V]).

    The definition of Duo and of the original paper (arXiv 1904.09751); the first token is always
    kept, and so are all that tie with the last. No sort, which is slow on a TPU: the largest
    threshold whose tokens hold mass p is found by bisection over the bit patterns of the
    probabilities, which ascend as they do, so it is exact.
    """
    probability = jnp.exp(logp_NV)
    bits = jax.lax.bitcast_convert_type(probability, _BITS[probability.dtype.itemsize])
    enough = lambda level: jnp.sum(probability, axis=-1, where=bits >= level[..., None]) >= p

    def halve(_, ends):
        low, high = ends
        middle = low + (high - low) // 2
        good = enough(middle)
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    top = jnp.max(bits, axis=-1)
    ends = jnp.zeros_like(top), top + 1
    level, _ = jax.lax.fori_loop(0, 8 * probability.dtype.itemsize, halve, ends)
    return bits >= level[..., None]


def keep_top_k(logp_NV: Array, k: int) -> Array:
    """True for the k most probable tokens (more where they tie)."""
    threshold = jax.lax.top_k(logp_NV, min(k, logp_NV.shape[-1]))[0][..., -1:]
    return logp_NV >= threshold


@register("readout", "readout")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Readout:
    """Temperature first, then top-k, then top-p, then renormalise; defaults change nothing.

    Attributes:
      temperature: divides the logits; 0 is the limit: all mass on the most probable token, the
        first of those that tie.
      temperatures: factors of it by step, the first for step 0, the last for all that follow; none
        = 1 always. With M steps on a grid the removal of noise is step M.
      top_k: most probable tokens that are kept; 0 = all.
      top_p: mass that is kept, of the most probable tokens.
    """

    temperature: float = 1.0
    temperatures: tuple[float, ...] = ()
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"temperature is {self.temperature}; it must be 0 (greedy) or more, and finite"
            )
        if not all(0 < factor < math.inf for factor in self.temperatures):
            raise ValueError(f"temperatures are {self.temperatures}; each is above 0 and finite")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must lie in (0, 1]")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it must be 0 (off) or positive")

    def at(self, number: Array | int) -> Array | float:
        """The temperature of a step."""
        if not self.temperatures:
            return self.temperature
        last = len(self.temperatures) - 1
        factors = jnp.asarray(self.temperatures, jnp.result_type(float))
        return self.temperature * factors[jnp.minimum(number, last)]

    def __call__(self, logp_NV: Array, number: Array | int = 0) -> Array:
        """Log p(x0 | z) with the settings applied, normalised; `number` is that of the step."""
        if self == Readout():
            return logp_NV
        if self.temperature == 0:
            best = jnp.argmax(logp_NV, axis=-1, keepdims=True)
            chosen = jnp.arange(logp_NV.shape[-1]) == best
            top = jnp.max(logp_NV, axis=-1, keepdims=True)
            return jnp.where(chosen, top - top, -jnp.inf)  # NaN stays NaN: it has no best token
        logp = jax.nn.log_softmax(logp_NV / self.at(number), axis=-1)
        if self.top_k:
            logp = jax.nn.log_softmax(jnp.where(keep_top_k(logp, self.top_k), logp, -jnp.inf), -1)
        if self.top_p < 1:
            logp = jax.nn.log_softmax(jnp.where(keep_top_p(logp, self.top_p), logp, -jnp.inf), -1)
        return logp
