"""Left-to-right sampling of an autoregressive model with a key-value cache."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Cond, Draw, Process
from ldd_jax.samplers.base import Net, SampleState, Step


@register("step", "next_token")
@dataclasses.dataclass(frozen=True, kw_only=True)
class NextToken(Step):
    """One token after the other, each from p(x_i | x_<i): L network calls of one position.

    The cache of keys and values is in the carry of one scan, so that a call costs O(L) attention
    and one projection. Clamped positions keep their tokens and are read like generated ones:
    a prompt is continued exactly; tokens after a gap do not act back on it.
    """

    clock = "own"
    latent = "refused"
    processes = "left to right"
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
        none = jnp.zeros(batch)
        at = lambda a, i: jax.lax.dynamic_slice_in_dim(a, i, 1, axis=1)

        def one(carry, i):
            last_B1, cache = carry
            trunk = net.denoiser.trunk(last_B1, Cond(unit=net.unit), cache=cache)
            pick = lambda pred, z, t, draw: draw.categorical(pred).astype(z.dtype)
            z = at(state.z, i)
            new = net.rows(pick, trunk, z, none, draw.at(step=i).rows(1))
            new = jnp.where(at(state.free, i), new, z)
            return (new, trunk.cache), new[:, 0]

        begin = net.process.start  # type: ignore[attr-defined]  # of a left-to-right process
        first = jnp.full((batch, 1), begin, state.z.dtype)
        start = (first, net.denoiser.cache(batch, length))
        _, z_LB = jax.lax.scan(one, start, jnp.arange(length))
        made = jnp.ones(batch, bool)
        return state._replace(z=z_LB.T, memory=made, calls=state.calls + length * self.calls)
