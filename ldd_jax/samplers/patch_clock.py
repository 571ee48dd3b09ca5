"""A clock for every patch: so many steps as the patch's own entropy asks for."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ldd_jax.core.checks import at_least_one
from ldd_jax.core.kl import entropy
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process, Trunk
from ldd_jax.samplers.ancestral import reveal
from ldd_jax.samplers.base import Step, masked_and_free
from ldd_jax.samplers.dictation import Way
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState

SHUFFLE = 3  # site of the control's order


class Clocks(NamedTuple):
    """steps [B, L]: T of each position's patch, 0 before the first call. work [B]: patches that
    still had masks, summed over the calls so far.
    """

    steps: Array
    work: Array


@register("step", "patch_clock")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchClock(Step):
    """Ancestral sampling in which patch p takes T(p) = max(ceil(alpha H(p)), least) steps.

    At its step j each masked position of p is revealed with chance 1 / (T(p) - j) (the process's
    own chance between the times 1 - j / T(p) and 1 - (j + 1) / T(p)), so that it is done after
    T(p) of them. H(p), nats, is the sum of the entropies of its masked positions as the network's
    own law has them at the first call, which is common to all. Calls are at most max T; the work is
    at most sum T, as a patch without masks needs no more: the memory counts it. All T alike: the
    ancestral sampler on the linear grid that ends at 0, to the bit.

    T depends on the network and on what is given, and on no chance, so that the rule's own
    likelihood has the bound of every rule whose order is drawn without looking at tokens.

    Attributes:
      alpha: steps by nat; 0 = every patch takes `least`.
      least: steps of a patch at least.
      most: and at most.
      size: positions of a patch where none are given (`Cond.unit`): that of the network's.
      shuffle: a control: the T are dealt anew among the patches of a row.
    """

    alpha: float = 1.0
    least: int = 1
    most: int = 64
    size: int = 4
    shuffle: bool = False
    clock = "own"
    one_way = "reveals the masks of each patch by its own clock, so it needs masked diffusion"
    one_clock = "gives every patch a clock"

    def __post_init__(self):
        at_least_one(self, "least", "most", "size")
        if self.alpha < 0 or self.most < self.least:
            raise ValueError(
                f"alpha is {self.alpha}, least {self.least}, most {self.most}; alpha is 0 or more "
                "and most no less than least"
            )

    def check(self, process: Process, *, latent: bool, timed: bool) -> None:
        """Refuse a schedule that leaves noise at t = 0: a patch's last step must reveal all."""
        super().check(process, latent=latent, timed=timed)
        with jax.ensure_compile_time_eval():
            left = float(process.schedule.noise(jnp.zeros(())))
        if left > 0:
            raise ValueError(
                f"sampler patch_clock ends at t = 0, where this schedule leaves {left:.1e} of the "
                "noise (use log_linear or cosine)"
            )

    def way(self, process: Process) -> Way:
        """By chance that does not look at the network, once the clocks are known."""
        del process
        return Way()

    def init(self, net: Net, state: SampleState) -> Clocks:
        """Not yet known."""
        del net
        return Clocks(jnp.zeros(state.free.shape, jnp.int32), jnp.zeros(len(state.free), jnp.int32))

    def done(self, net: Net, state: SampleState) -> Array:
        """Rows without masks."""
        return ~jnp.any(masked_and_free(net, state), axis=1)

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array | None,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step of every patch that is not done."""
        del s
        unit = units(net, state, self.size)
        wanted = masked_and_free(net, state)
        steps = state.memory.steps
        j = jnp.asarray(net.number, jnp.int32)
        # At the first call no clock is known: all stand at 1. That of a done patch does not count.
        now = self._clock(state, j, jnp.maximum(steps, j + 1))
        trunk = net.trunk(state._replace(clock=now), segment)
        first = lambda: self.clocks(net, trunk, state, unit, draw)
        steps = jax.lax.cond(j == 0, first, lambda: steps)
        later = self._clock(state, j + 1, jnp.maximum(steps, j + 1))
        now = self._clock(state, j, jnp.maximum(steps, j + 1))
        z = reveal(net, state._replace(clock=now), trunk.features, later, draw)
        busy = totals(wanted.astype(jnp.int32), unit) > 0
        memory = Clocks(steps, state.memory.work + jnp.sum(busy, axis=1, dtype=jnp.int32))
        return state._replace(z=z, h=trunk.latent, calls=state.calls + self.calls, memory=memory)

    def _clock(self, state: SampleState, j: Any, steps: Array) -> Array:
        """1 - j / T by position, as `LinearGrid(end=0)` computes it."""
        kind = state.clock.dtype
        steps = jnp.broadcast_to(steps, state.free.shape).astype(kind)
        return 1 - jnp.asarray(j, kind) / steps

    def clocks(self, net: Net, trunk: Trunk, state: SampleState, unit: Array, draw: Draw) -> Array:
        """T of each position's patch, int32 [B, L].

        Args:
          net: whose own law tells the entropies.
          trunk: of the first call.
          state: before it.
          unit: patch of each position.
          draw: chance of this step, for the control.
        """
        wanted = masked_and_free(net, state)
        told = dataclasses.replace(net, dictation=None)
        own = lambda preds, z, t, args: entropy(net.process.clean(preds[1], z, t))
        at = jnp.ones_like(state.clock)
        nats = told.rows_of_both(own, trunk, state.z, at, (), where=wanted)
        total = totals(jnp.where(wanted, nats, 0), unit)
        # A rounding error above a whole number is no reason for one more step.
        steps = jnp.ceil(self.alpha * total * (1 - 1e-6)).astype(jnp.int32)
        steps = jnp.clip(steps, self.least, self.most)
        if self.shuffle:
            steps = shuffled(steps, totals(wanted.astype(jnp.int32), unit) > 0, draw)
        return jnp.take_along_axis(steps, unit, axis=1)


def units(net: Net, state: SampleState, size: int) -> Array:
    """Patch of each position, [B, L].

    Args:
      net: that may have been told.
      state: of the shape that is asked for.
      size: positions of a patch, where it has not.
    """
    batch, length = state.free.shape
    if net.unit is not None:
        return net.unit
    return jnp.broadcast_to(jnp.arange(length) // size, (batch, length))


def totals(x_BL: Array, unit: Array) -> Array:
    """Sums over patches, [B, L]: entry p is that of patch p, 0 past the last."""
    zeros = jnp.zeros(x_BL.shape[1], x_BL.dtype)
    return jax.vmap(lambda x, u: zeros.at[u].add(x))(x_BL, unit)


def shuffled(steps: Array, live: Array, draw: Draw) -> Array:
    """The same numbers dealt anew among the live patches of a row.

    Args:
      steps: of every patch, [B, L].
      live: patches that have something to reveal, [B, L].
      draw: of a random order.
    """
    rank = draw.at(site=SHUFFLE).ranking(jnp.where(live, 0.0, -jnp.inf))
    from_ = jnp.argsort(rank, axis=1)  # the live ones first, in random order
    to = jnp.argsort(~live, axis=1, stable=True)
    dealt = jnp.take_along_axis(steps, from_, axis=1)
    return jax.vmap(lambda s, t, d: s.at[t].set(d))(steps, to, dealt)
