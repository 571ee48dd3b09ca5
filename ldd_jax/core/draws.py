"""All randomness of sampling: a key per example, then per row.

`Production` draws; `Replay` repeats a run from stored uniforms; `Forced` dictates the outcomes,
so that the exact law of a production step can be computed. Draws depend neither on the number of
devices nor on batches, tiles or microbatches.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldd_jax.core.types import Array


def example_keys(key: Array, index_B: Array) -> Array:
    """One key per example from its position in the global batch: fold_in(key, index), [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index_B)


def fold(keys_B: Array, data: Any) -> Array:
    """Fold one integer into every key, [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, data)


def uniforms(keys_B: Array, shape: tuple[int, ...]) -> Array:
    """Uniforms in [0, 1) of `shape` for every example, [B, *shape]."""
    return jax.vmap(lambda k: jax.random.uniform(k, shape))(keys_B)


def integers(keys_B: Array, shape: tuple[int, ...], size: int) -> Array:
    """int32 in [0, size) for every example, [B, *shape].

    Args:
      keys_B: a PRNG key per example.
      shape: of one example's integers.
      size: their number of values.
    """
    return jax.vmap(lambda k: jax.random.randint(k, shape, 0, size, jnp.int32))(keys_B)


def _unit(high: Array, low: Array, dtype) -> Array:
    """(high 2^32 + low) 2^-64 for two 32-bit words, rounded, but never up to 1."""
    fine = high.astype(dtype) * 2.0**-32 + low.astype(dtype) * 2.0**-64
    return jnp.minimum(fine, 1 - jnp.finfo(dtype).epsneg)


def _fine_uniforms(keys_N: Array, count: int, dtype) -> Array:
    """`count` uniforms per row in [0, 1) with full relative precision down to 2^-64."""
    bits = jax.vmap(lambda k: jax.random.bits(k, (2, count), jnp.uint32))(keys_N)
    return _unit(bits[:, 0], bits[:, 1], dtype)


# What a draw gives for a row that has no law; `samplers.sample` tells its caller which rows.
NO_LAW = -1


def lawful(logp_NV: Array) -> Array:
    """Rows that a token can be drawn from: no NaN, nothing infinitely likely, something possible.

    Raises:
      FloatingPointError: where the numbers are at hand and a row has no law. In a compiled program
        it cannot be raised: there the draws give `NO_LAW`.
    """
    good = jnp.isfinite(jnp.max(logp_NV, axis=-1))
    if not isinstance(good, jax.core.Tracer) and not bool(jnp.all(good)):
        bad = np.flatnonzero(~np.asarray(good))
        raise FloatingPointError(
            f"no token can be drawn at {len(bad)} of {good.size} rows (the first: {bad[0]}): their "
            "probabilities are NaN, infinite or all zero"
        )
    return good


def most_probable(logp_NV: Array) -> Array:
    """The arg max of every row, or `NO_LAW`."""
    good = lawful(logp_NV)
    return jnp.where(good, jnp.argmax(logp_NV, axis=-1).astype(jnp.int32), NO_LAW)


# No ratio of small whole numbers, as near-uniform predictions have.
MUCH_SMALLER = 0.2929


def select(p_NV: Array, u_NK: Array) -> Array:
    """Draw one index per row with probability p / sum(p), exact in the tail in float32.

    Descends the binary tree of partial sums from the root, one uniform a level. At each node a
    child that is much the *smaller* is tried first with u * (left + right) < smaller: u has full
    relative precision near zero, so an event of probability 1e-9 keeps its share where a cumulative
    sum or a 23-bit Gumbel draw loses it. Equal children are no border case, or rounding would
    decide which comes first and change tokens.

    Args:
      p_NV: non-negative weights, at least one positive in every row.
      u_NK: uniforms in [0, 1), K = `levels(V)`.

    Returns:
      int32 indices [N] in [0, V), whatever the weights; see `lawful` for rows that have no law.
    """
    depth = levels(p_NV.shape[-1])
    p = jnp.pad(p_NV, ((0, 0), (0, 2**depth - p_NV.shape[-1])))
    sums = [p]
    for _ in range(depth):
        p = p[:, 0::2] + p[:, 1::2]
        sums.append(p)
    node = jnp.zeros(p_NV.shape[0], jnp.int32)
    for level in range(depth):
        pair = sums[depth - 1 - level].reshape(p_NV.shape[0], -1, 2)
        left, right = jnp.moveaxis(jnp.take_along_axis(pair, node[:, None, None], 1)[:, 0], -1, 0)
        right_first = right < MUCH_SMALLER * left
        in_first = u_NK[:, level] * (left + right) < jnp.where(right_first, right, left)
        node = 2 * node + jnp.where(right_first, in_first, ~in_first).astype(jnp.int32)
    return jnp.minimum(node, p_NV.shape[-1] - 1)


def levels(size: int) -> int:
    """Uniforms that `select` needs for a vocabulary of `size`: ceil(log2(size))."""
    return max(size - 1, 0).bit_length()


def ranks(cost_BL: Array) -> Array:
    """Rank of every place by rising cost, 0 = first, ties by place; int32 [B, L]."""
    order = jnp.argsort(cost_BL, axis=1, stable=True)
    return jnp.argsort(order, axis=1).astype(jnp.int32)


@struct.dataclass
class Production:
    """Counter-based draws; `keys` has one key per example, or per row after `rows`."""

    keys: Array

    @classmethod
    def of(cls, seed_key: Array, index_B: Array) -> Production:
        """From one key and the global indices of the examples."""
        return cls(keys=example_keys(seed_key, index_B))

    def at(self, *, step: Any = None, site: int | None = None) -> Production:
        """Fold a step and a site into every key (steps and sites live in separate ranges)."""
        keys = self.keys
        if step is not None:
            keys = fold(keys, jnp.asarray(step, jnp.uint32) + jnp.uint32(1 << 16))
        if site is not None:
            keys = fold(keys, site)
        return Production(keys=keys)

    def few(self, rows: Array) -> Production:
        """Those of some examples, [N]."""
        return Production(keys=self.keys[rows])

    def rows(self, length: int) -> Production:
        """Key of row l of example b = fold_in(key_b, l); flattened to [B * length]."""
        keys = jax.vmap(lambda k: example_keys(k, jnp.arange(length)))(self.keys)
        return Production(keys=keys.reshape(-1))

    def categorical(self, logp_NV: Array) -> Array:
        """Exact categorical draw, see `select`; normalised or not. `NO_LAW` without a law."""
        good = lawful(logp_NV)
        p = jnp.exp(logp_NV - jnp.max(logp_NV, axis=-1, keepdims=True))
        token = select(p, _fine_uniforms(fold(self.keys, 0), levels(p.shape[-1]), p.dtype))
        return jnp.where(good, token, NO_LAW)

    def event(self, p_N: Array) -> Array:
        """Bernoulli(p), exact down to 2^-64."""
        return _fine_uniforms(fold(self.keys, 1), 1, p_N.dtype)[:, 0] < p_N

    def outcome(self, logp_NV: Array, p_N: Array, stay_N: Array) -> Array:
        """The event has been decided: a categorical draw."""
        del p_N, stay_N
        return self.categorical(logp_NV)

    def ranking(self, logit_BL: Array) -> Array:
        """Exponential race of all places, each with its own key: padding changes no order."""
        rows = fold(self.rows(logit_BL.shape[1]).keys, 2)
        u = _fine_uniforms(rows, 1, logit_BL.dtype).reshape(logit_BL.shape)
        return ranks(jnp.log(-jnp.log1p(-u)) - logit_BL)

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Standard normal numbers, [keys, *shape]."""
        return jax.vmap(lambda key: jax.random.normal(key, shape))(fold(self.keys, 3))

    def uniform(self, shape: tuple[int, ...] = ()) -> Array:
        """Uniforms in [0, 1), [keys, *shape]."""
        return uniforms(self.keys, shape)


@struct.dataclass
class Replay:
    """Repeat a recorded run: token = argmax_v p_v / (-log u_v), the exponential race.

    `table` holds the uniforms, [T, B, L, V] at first; `at(step=i)` takes step i, `rows` flattens.
    """

    table: Array

    def at(self, *, step: Any = None, site: int | None = None) -> Replay:
        """Uniforms of one step; a recorded run has a single site."""
        if site not in (None, 0):
            raise ValueError(f"a recorded run has one draw per step; site {site} was asked for")
        return self if step is None else Replay(table=self.table[step])

    def rows(self, length: int) -> Replay:
        """[B, L, V] to [B * L, V]."""
        del length
        return Replay(table=self.table.reshape(-1, self.table.shape[-1]))

    def categorical(self, logp_NV: Array) -> Array:
        """The race, with the 1e-10 guards of the recorded runs."""
        race = 1e-10 - jnp.log(self.table + 1e-10)
        return jnp.argmax(jnp.exp(logp_NV) / race, axis=-1).astype(jnp.int32)

    def event(self, p_N: Array) -> Array:
        """Decided together with the outcome."""
        return p_N > 0

    def outcome(self, logp_NV: Array, p_N: Array, stay_N: Array) -> Array:
        """The race over the whole mixture."""
        stay = jnp.arange(logp_NV.shape[-1]) == stay_N[:, None]
        p = p_N[:, None]
        return self.categorical(jnp.log(p * jnp.exp(logp_NV) + jnp.where(stay, 1 - p, 0)))

    def ranking(self, logit_BL: Array) -> Array:
        """Not recorded."""
        raise ValueError("a recorded run holds no random orders")

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Not recorded."""
        raise ValueError(f"a recorded run holds no normal numbers (shape {shape} asked for)")

    def uniform(self, shape: tuple[int, ...] = ()) -> Array:
        """Not recorded."""
        raise ValueError(f"a recorded run holds no plain uniforms (shape {shape} asked for)")


@struct.dataclass
class Forced:
    """Dictate every outcome; the caller multiplies the probabilities that it reads beside it.

    `tokens` is [T, B, L] at first, [N] after `at(step=i).rows(L)`.
    """

    tokens: Array

    def at(self, *, step: Any = None, site: int | None = None) -> Forced:
        """Outcomes of one step."""
        del site
        return self if step is None else Forced(tokens=self.tokens[step])

    def rows(self, length: int) -> Forced:
        """[B, L] to [B * L]."""
        del length
        return Forced(tokens=self.tokens.reshape(-1))

    def categorical(self, logp_NV: Array) -> Array:
        """The dictated tokens."""
        del logp_NV
        return self.tokens

    def event(self, p_N: Array) -> Array:
        """Dictated together with the outcome, even where it is impossible."""
        return jnp.ones(p_N.shape, bool)

    def outcome(self, logp_NV: Array, p_N: Array, stay_N: Array) -> Array:
        """The dictated tokens."""
        del logp_NV, p_N, stay_N
        return self.tokens

    def ranking(self, logit_BL: Array) -> Array:
        """Forced runs hold no orders; `EnumeratingDraw` does."""
        raise ValueError("a forced run holds no random orders; use EnumeratingDraw")

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Forced runs hold no normal numbers."""
        raise ValueError(f"a forced run holds no normal numbers (shape {shape} asked for)")

    def uniform(self, shape: tuple[int, ...] = ()) -> Array:
        """Forced runs hold no uniforms."""
        raise ValueError(f"a forced run holds no plain uniforms (shape {shape} asked for)")
