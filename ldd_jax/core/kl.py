"""Divergences between log-probabilities that may hold -inf."""

from __future__ import annotations

import jax.numpy as jnp

from ldd_jax.core.types import Array


def entropy(logp_NV: Array) -> Array:
    """H(p) = -sum_v p log p in nats, [N]; zero-probability entries contribute nothing."""
    p = jnp.exp(logp_NV)
    return -jnp.sum(jnp.where(p > 0, p * jnp.where(p > 0, logp_NV, 0), 0), axis=-1)


def kl(logp_NV: Array, logq_NV: Array) -> Array:
    """KL(p || q) = sum_v p (log p - log q) in nats, [N]; 0 log 0 = 0, +inf where q misses p."""
    p = jnp.exp(logp_NV)
    on = p > 0
    gap = jnp.where(on, logp_NV, 0) - jnp.where(on, logq_NV, 0)
    return jnp.sum(jnp.where(on, p * gap, 0), axis=-1)


def divergence(logp_NV: Array, logq_NV: Array) -> Array:
    """`kl` of normalised laws as a sum of terms p (e^d - 1 - d), d = log q - log p, and q off p.

    None is negative: small divergences keep their digits in float32.
    """
    p = jnp.exp(logp_NV)
    on = p > 0
    gap = jnp.where(on, logq_NV, 0) - jnp.where(on, logp_NV, 0)
    off = jnp.exp(jnp.where(on, -jnp.inf, logq_NV))
    return jnp.sum(jnp.where(on, p * (jnp.expm1(gap) - gap), off), axis=-1)
