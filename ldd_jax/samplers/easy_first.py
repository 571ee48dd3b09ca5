"""Easy-first decoding of MGDM: the surest predictions stay, all others are masked again."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from ldd_jax.core.draws import most_probable
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.orders import rank
from ldd_jax.samplers.state import SampleState


@register("step", "easy_first")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EasyFirst(Step):
    """The most probable token everywhere; then the floor(n s) least sure are masked (MGDM).

    n is the number of free positions, s the time that the step goes to, so that the grid is the
    schedule of counts (linear and cosine: the published ones, arXiv 2410.14157). A position is as
    sure as log max p(x0 | z) + `noise` * s * Gumbel. With `revise` positions already revealed are
    predicted anew, as published, and may change or be masked again; the published network reads
    position i at i - 1, where a revealed token is predicted too. A network that predicts in place
    learns nothing there, so that revealed tokens stay by default.
    """

    finishes = True
    one_way = "reveals masked positions one after the other, so it needs masked diffusion"
    one_clock = "leaves as many masks as the time says"
    no_way = "it takes the most probable token, so that nearly all texts have probability 0"
    noise: float = 0.5
    revise: bool = False

    def __post_init__(self):
        if not self.noise >= 0:
            raise ValueError(f"noise is {self.noise}; it must be 0 (none) or more")

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step."""
        trunk = net.trunk(state, segment)
        masked = net.process.scored(state.z)
        open_ = state.free if self.revise else state.free & masked
        # Read as if masked: the network's own prediction, not the token carried over.
        hidden = net.process.mask_at(state.z, open_)

        def look(preds, z, t, args):
            drawn, own = (net.process.clean(pred, z, t) for pred in preds)
            return most_probable(drawn).astype(z.dtype), jnp.max(own, -1)

        best, top = net.rows_of_both(look, trunk, hidden, state.clock, (), where=open_)
        scale: Any = self.noise * s[:, None]
        place = rank(-top, open_, draw, order="confidence", noise=scale if self.noise else 0.0)
        count = jnp.sum(state.free, axis=1)
        left = jnp.floor(count * s).astype(jnp.int32)
        stay = place < (jnp.sum(open_, axis=1) - left)[:, None]
        z = jnp.where(open_, best, state.z)
        z = net.process.mask_at(z, open_ & ~stay)
        return state._replace(z=z, h=trunk.latent, calls=state.calls + self.calls)
