"""The loop over steps, in segments on ever fewer rows: those that have ended are left out."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.draws import NO_LAW
from ldd_jax.core.types import Array
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState
from ldd_jax.samplers.stops import Notes, Watch, choose
from ldd_jax.samplers.windows import Window

# State and notes of a stop, and a cache that is made anew, if there is one.
Carry = tuple[tuple[SampleState, Notes | None], Any]
# Number of the next step, and what is carried to it.
At = tuple[Array, Carry]


def undrawn(z: Any) -> Array:
    """Positions [B, L] that came from no law: `NO_LAW` as a token, or a point that is no number."""

    def one(a):
        floats = jnp.issubdtype(a.dtype, jnp.floating)
        wrong = ~jnp.isfinite(a) if floats else a == NO_LAW
        return jnp.any(wrong.reshape(*a.shape[:2], -1), axis=-1)

    return functools.reduce(jnp.logical_or, map(one, jax.tree.leaves(z)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """What a run of `sample` is, beside what it carries.

    Attributes:
      net: as of `sample`.
      step: the rule.
      draw: of the rows.
      num_steps: on the grid.
      grid: (i, n) to t.
      latent: what happens to h between steps.
      watch: a stop, if there is one.
      length: L.
      segment: documents, [B, L].
      idle: rows with nothing to make, [B].
      clamped: whether there may be such.
      window: as of `sample`.
    """

    net: Net
    step: Step
    draw: Any
    num_steps: Any
    grid: Any
    latent: Latent
    watch: Watch
    length: int
    segment: Array | None
    idle: Array
    clamped: bool
    window: Window | None = None

    @property
    def on_grid(self) -> bool:
        """Whether the rule walks a grid."""
        return self.step.clock == "grid"

    def time(self, i: Any) -> Array:
        """The grid's time number i."""
        real = jnp.result_type(float)
        return jnp.asarray(self.grid(jnp.asarray(i, real), self.num_steps), real)

    def clock(self, i: Any) -> Any:
        """That of the grid's time number i."""
        return self.net.process.clock(jnp.broadcast_to(self.time(i), self.idle.shape), self.length)

    def over(self, state: SampleState) -> Array:
        """Rows of a rule with its own clock that need no further step, or cannot go on."""
        assert state.lawless is not None
        return self.step.done(self.net, state) | state.lawless

    def going(self, at: At) -> Array:
        """Rows that need a further step, [B]."""
        _, ((state, notes), _) = at
        rest = self.idle if self.on_grid else self.over(state)
        return ~(rest | self.watch.over(notes))

    def busy(self, at: At) -> Array:
        """Whether any row takes a further step."""
        some = jnp.any(self.going(at))
        return some & (at[0] < self.num_steps) if self.on_grid else some

    def settled(self, old: SampleState, new: SampleState) -> SampleState:
        """Calls in network passes; tokens that no law gave are noted and not kept."""
        calls = old.calls + self.net.passes * (new.calls - old.calls)
        none = undrawn(new.z)
        assert old.lawless is not None
        lawless = old.lawless | jnp.any(none, axis=1)
        return new._replace(z=positions.where(none, old.z, new.z), calls=calls, lawless=lawless)

    def one(self, i: Array, state: SampleState, net: Net) -> SampleState:
        """Step i.

        Args:
          i: its number.
          state: before it.
          net: with the cache of this step, if there is one.
        """
        s = self.clock(i + 1) if self.on_grid else None
        at = dataclasses.replace(net, policy=self.latent, number=i, time=self.time)
        at = dataclasses.replace(at, steps=self.num_steps, look=self.watch.look)
        new = self.step(at, state, s, self.draw.at(step=i), self.segment)
        new = self.settled(state, new._replace(h=at.taken_back(state.z, new.z, new.h)))
        if not self.on_grid:
            return choose(self.over(state), state, new)
        new = choose(self.idle, state, new) if self.clamped else new
        return new._replace(clock=s)

    def renewed(
        self, i: Any, state: SampleState, notes: Notes | None, cache: Any
    ) -> tuple[SampleState, Any, Net]:
        """The cache as step i needs it, paid for by the rows that take the step; its network.

        Args:
          i: number of the step.
          state: before it.
          notes: of the stop.
          cache: as it is.
        """
        if self.window is None:
            return state, cache, self.net
        rest = self.idle | self.watch.over(notes) | (False if self.on_grid else self.over(state))
        calls, cache = self.window.renewed(self.net, i, state, cache, rest)
        return state._replace(calls=calls), cache, self.window.net(self.net, cache)

    def advance(self, i: Array, carry: Carry) -> Carry:
        """What is carried after step i."""
        (state, notes), cache = carry
        state, cache, seeing = self.renewed(i, state, notes, cache)
        return self.watch.after((state, notes), self.one(i, state, seeing)), cache

    def more(self, at: At) -> At:
        """A step further."""
        return at[0] + 1, self.advance(*at)

    def few(self, rows: Array) -> Loop:
        """The same run of some rows.

        Args:
          rows: their numbers.
        """
        segment = None if self.segment is None else self.segment[rows]
        net, draw = self.net.few(rows), self.draw.few(rows)
        return dataclasses.replace(self, net=net, draw=draw, segment=segment, idle=self.idle[rows])

    def run(self, at: At, halvings: int) -> At:
        """Step after step until no row is busy.

        Once at most half of the rows are, they go on alone, `halvings` times at most: so many
        programs of a step there are besides the first. What a row is depends on no other, so it
        stays the same.

        Args:
          at: before the first step.
          halvings: 0 = all rows go along to the end.
        """
        half = self.idle.shape[0] // 2
        if not halvings or not half:
            return jax.lax.while_loop(self.busy, self.more, at)
        many = lambda at: self.busy(at) & (jnp.sum(self.going(at)) > half)
        at = jax.lax.while_loop(many, self.more, at)

        def fewer(at: At) -> At:
            rows = jnp.argsort(~self.going(at), stable=True)[:half]
            take = lambda tree: jax.tree.map(lambda a: a[rows], tree)
            i, found = self.few(rows).run((at[0], take(at[1])), halvings - 1)
            return i, jax.tree.map(lambda a, b: a.at[rows].set(b), at[1], found)

        return jax.lax.cond(self.busy(at), fewer, lambda at: at, at)
