"""Left-to-right sampling of an autoregressive model with a key-value cache."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Cond, Draw, Process
from ldd_jax.denoisers.caches import Cache
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState

# Scope of the call that reads a prompt.
PROMPT = "prompt_in_cache"


@register("step", "next_token")
@dataclasses.dataclass(frozen=True, kw_only=True)
class NextToken(Step):
    """One token after the other, each from p(x_i | x_<i): L network calls of one position.

    The cache of keys and values is in the carry of one loop, so that a call costs O(L) attention
    and one projection. What is given at the front of all rows of a batch enters it by one call of
    the row, and a token by one each after that. Clamped positions behind it keep their tokens and
    are read like generated ones; tokens after a gap do not act back.
    """

    clock = "own"
    latent = "refused"
    processes = "left to right"
    no_stop = "makes a whole row in one application"
    no_way = "nothing is left to bound: evaluate gives it exactly without --bound"

    def check(self, process: Process, *, latent: bool, timed: bool) -> None:
        """Refuse a diffusion process."""
        if process.schedule is not None:
            raise ValueError("sampler next_token samples models trained with method=ar")
        super().check(process, latent=latent, timed=timed)

    def init(self, net: Net, state: SampleState) -> Array:
        """Whether a row is generated: none is."""
        del net
        return jnp.zeros(state.z.shape[0], bool)

    def done(self, net: Net, state: SampleState) -> Array:
        """After the one application that makes the whole row."""
        del net
        return state.memory

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array | None,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """The whole row; position i uses draw.at(step=i)."""
        del s
        if segment is not None:
            raise ValueError("next_token generates one document a row; segment does not apply")
        batch, length = state.z.shape
        none, begin = jnp.zeros(batch), net.process.start  # type: ignore[attr-defined]
        at = lambda a, i: jax.lax.dynamic_slice_in_dim(a, i, 1, axis=1)
        before = jnp.pad(state.z[:, :-1], ((0, 0), (1, 0)), constant_values=begin)
        cache, first = net.denoiser.cache(batch, length), jnp.zeros((), jnp.int32)

        def read(cache):
            whole = net.denoiser.trunk(before, Cond(unit=net.unit), cache=cache).cache
            return whole._replace(seen=cache.seen + first)

        if isinstance(cache, Cache):  # one that can be cut back to what is given
            given = jnp.cumprod(jnp.all(~state.free, axis=0))
            first = jnp.minimum(jnp.sum(given, dtype=jnp.int32), length - 1)
            with jax.named_scope(PROMPT):
                cache = jax.lax.cond(first > 0, read, lambda cache: cache, cache)

        def one(i, carry):
            last_B1, cache, z = carry
            trunk = net.denoiser.trunk(last_B1, Cond(unit=net.unit), cache=cache)
            pick = lambda pred, z, t, draw: draw.categorical(pred).astype(z.dtype)
            old = at(z, i)
            new = net.rows(pick, trunk, old, none, draw.at(step=i).rows(1))
            new = jnp.where(at(state.free, i), new, old)
            z = jax.lax.dynamic_update_slice_in_dim(z, new, i, axis=1)
            return new, trunk.cache, z

        carry = (at(before, first), cache, state.z)
        z = jax.lax.fori_loop(first, length, one, carry)[2]
        calls = length - first + (first > 0)
        made = jnp.ones(batch, bool)
        return state._replace(z=z, memory=made, calls=state.calls + calls * self.calls)
