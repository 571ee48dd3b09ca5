"""Ancestral sampling that skips the network while nothing has changed (MDLM's cache)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.ancestral import POSTERIOR, reveal
from ldd_jax.samplers.base import Net, SampleState, Step
from ldd_jax.samplers.dictation import Way
from ldd_jax.samplers.loop import choose


@register("step", "cached_ancestral")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CachedAncestral(Step):
    """Ancestral, draw for draw, with one call for every distinct z of a row.

    Exact for a network that is told neither the time nor a latent; both change while z rests.
    The network runs when any row of the batch has changed; calls count a row's own changes.
    """

    latent = "refused"

    def way(self, process: Process) -> Way:
        """As ancestral."""
        del process
        return POSTERIOR

    def check(self, process: Process, *, latent: bool, timed: bool) -> None:
        """Refuse a latent and a network that is told the time."""
        super().check(process, latent=latent, timed=timed)
        if timed:
            raise ValueError(
                "sampler cached_ancestral needs a network without time conditioning: otherwise the "
                "prediction changes with t while z stands still (use ancestral)"
            )

    def init(self, net: Net, state: SampleState) -> Any:
        """(features of the last call, the tokens that it saw)."""
        shape = jax.eval_shape(net.trunk, state).features
        return jnp.zeros(shape.shape, shape.dtype), jnp.full_like(state.z, -1)

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step, with a call or without."""
        kept, seen = state.memory
        fresh = jnp.all(state.z == seen, axis=1)
        call = lambda: choose(fresh, kept, net.trunk(state, segment).features)
        features = jax.lax.cond(jnp.all(fresh), lambda: kept, call)
        z = reveal(net, state, features, s, draw)
        calls = state.calls + (~fresh).astype(state.calls.dtype)
        return state._replace(z=z, calls=calls, memory=(features, state.z))
