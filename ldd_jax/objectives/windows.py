"""Consecutive states of one forward trajectory, seen backwards, with the latent carried along.

What a sampler does, teacher-forced: the states z_{t_1}, ..., z_{t_u}, t falling, are those of one
path of q to the data, so that each of them has the marginal law of its time, and whatever h a
network is given, its integrand there is that of a bound.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.draws import fold
from ldd_jax.core.types import Array, Batch, Cond, Denoiser, Loss, Process

# Sites of an update's randomness.
TIMES, GATE, CORRUPT, DROPOUT, CONDITION = range(5)
ALONG = 1  # within an example's key of the corruption: beside it, the way on


class Window(NamedTuple):
    """States, the noisiest first; leaves [u, B, ...].

    z, clock and factor are of the process and the times. live: False where the sampler has not
    begun, whose call leaves h = 0. share: of a state in the loss.
    """

    z: Any
    clock: Any
    factor: Array
    live: Array
    share: Array

    def last(self) -> Window:
        """The last state alone."""
        return jax.tree.map(lambda a: a[-1:], self)


def timed(objective: Any, place_B: Array, length: int) -> tuple[Any, Array]:
    """Clock and factor at a place in [0, 1) of the objective's times.

    Args:
      objective: has `times` and `process`.
      place_B: 0 = the time nearest to noise.
      length: L.
    """
    t, factor = objective.times(place_B, objective.process.schedule)
    return objective.process.clock(t, length), factor


def on_from(process: Process, batch: Batch, z: Array, clock: Any, keys_B: Array) -> Array:
    """All states of a trajectory from its first on, [u, B, L].

    Args:
      process: with a `bridge`.
      batch: its z0 and keep.
      z: the first state, [B, L].
      clock: of all states, [u, B] or [u, B, L].
      keys_B: a PRNG key per example.
    """

    def move(z, inputs):
        i, now, later = inputs
        z = process.bridge(fold(keys_B, i), batch.z0, z, now, later, batch.keep)
        return z, z

    _, rest = jax.lax.scan(move, z, (jnp.arange(len(clock) - 1), clock[:-1], clock[1:]))
    return jnp.concatenate([z[None], rest])


def along(
    denoiser: Denoiser,
    states: tuple[Any, Any, Array],
    cond: Cond,
    h: Any,
    keys_B: Array | None,
    first: int,
    *,
    cut: bool = False,
    features: bool = False,
) -> tuple[Any, Any]:
    """H after a call at each of these states, and their features, [n, B, L, ...], if asked.

    Args:
      denoiser: network with the parameters of this update.
      states: z, clock as the network is told it, and live, leaves [n, B, ...].
      cond: what else the network is told.
      h: latent before the first.
      keys_B: a PRNG key per example for dropout; None = no dropout.
      first: number of the first call, which sets its dropout apart.
      cut: no gradient goes from a call to the one before.
      features: keep them.
    """

    def call(h, inputs):
        i, (z, clock, live) = inputs
        h = jax.lax.stop_gradient(h) if cut else h
        own = None if keys_B is None else jax.vmap(jax.random.fold_in, (0, None))(keys_B, i)
        trunk = denoiser.trunk(z, cond._replace(clock=clock), h, key=own)
        begun = lambda a: jnp.where(live.reshape(-1, *[1] * (a.ndim - 1)), a, 0)
        return jax.tree.map(begun, trunk.latent), trunk.features if features else ()

    count = states[2].shape[0]
    return jax.lax.scan(call, h, (first + jnp.arange(count), states))


def again(keys_B: Array | None) -> Array | None:
    """Keys of the passes before the scored one."""
    return None if keys_B is None else fold(keys_B, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windowed:
    """What contexts share whose passes go along a trajectory.

    moves: they see more than the scored state, so that they make the loss themselves.
    """

    passes: int
    gradient: int

    carries = moves = True

    def aux(self, batch: int, length: int) -> Any:
        """Nothing is kept."""
        del batch, length
        return ()

    def drawn(self, objective: Any, batch: Batch, aux: Any, key: Array) -> tuple[Any, Batch]:
        """The batch as it is.

        Args:
          objective: with process and times.
          batch: of the data.
          aux: nothing.
          key: PRNG key of the update.
        """
        del objective, key
        return aux, batch

    def told(self, objective: Any, batch: Batch, window: Window, key: Array) -> tuple[Cond, Any]:
        """What the network is told at all states, and the clock as it is told it, [u, B, ...].

        Args:
          objective: whose condition it is.
          batch: its rows.
          window: their states.
          key: PRNG key of the update, for an attention that is drawn.
        """
        cond = objective.condition(batch, window.z[-1], window.clock)
        return objective.annealed(cond, batch, key), cond.clock

    def scored_all(
        self,
        objective: Any,
        denoiser: Denoiser,
        batch: Batch,
        window: Window,
        h: Any,
        key: Array,
        keys_B: Array | None,
    ) -> tuple[Any, Any]:
        """Features of all states, [u, B, L, ...], and the latent after the last.

        The gradient of a state's loss goes back through the last `gradient` calls before the last
        state; the calls before those are cut from each other.

        Args:
          objective: whose condition it is.
          denoiser: network with the parameters of this update.
          batch: the rows.
          window: their states.
          h: latent before the first.
          key: PRNG key of the update.
          keys_B: a PRNG key per example for dropout; None = no dropout.
        """
        cond, told = self.told(objective, batch, window, key)
        n = self.passes
        closed = n - self.gradient
        part = lambda a, b: jax.tree.map(lambda x: x[a:b], (window.z, told, window.live))
        run = partial(along, denoiser, features=True)
        early = again(keys_B)
        h, first = run(part(0, closed), cond, h, early, 0, cut=True)
        h = jax.lax.stop_gradient(h)
        h, more = run(part(closed, n), cond, h, early, closed)
        trunk = denoiser.trunk(window.z[-1], cond._replace(clock=told[-1]), h, key=keys_B)
        join = lambda *parts: jnp.concatenate(parts)
        return jax.tree.map(join, first, more, trunk.features[None]), trunk.latent

    def summed(
        self, objective: Any, denoiser: Denoiser, batch: Batch, window: Window, features: Any
    ) -> Loss:
        """The loss of the states of a window together.

        Args:
          objective: with an integrand, process and `summed`.
          denoiser: its head makes the logits.
          batch: whose rows they are.
          window: of the scored states alone, u of them.
          features: of their passes, [u, B, L, ...].

        Returns:
          As of `Nelbo.score`; every state's share is in it, and `scored` is the mean of states.
        """
        count, rows = window.live.shape
        # By example first: a shard's rows stay its own.
        merged = lambda tree: jax.tree.map(
            lambda a: a.swapaxes(0, 1).reshape(rows * count, *a.shape[2:]), tree
        )
        alike = lambda a: jnp.repeat(a, count, axis=0)
        z, clock, factor, live, share = merged(window)
        z0, keep, weight = (alike(a) for a in (batch.z0, batch.keep, batch.weight))
        many = batch._replace(z0=z0, keep=keep, weight=weight)
        share = share if factor.ndim == 1 else share[:, None]
        length = z0.shape[1]
        args = (*positions.flat((z0, z)), positions.of_rows(clock, length))
        on = objective.process.scored(z) & ~keep & live[:, None]
        loss = objective.summed(
            denoiser, many, merged(features), objective.integrand, args, factor * share, on
        )
        metrics = {
            "loss_B": loss.metrics["loss_B"].reshape(rows, count).sum(1),
            "scored": loss.metrics["scored"] // count,
        }
        return Loss(loss.total, metrics)


def check(objective: Any, base: type) -> None:
    """Refuse an objective whose states are not those of one forward trajectory.

    Args:
      objective: whose context has `moves`.
      base: the class that corrupts and scores as `Windowed` expects.

    Raises:
      ValueError: saying what to do.
    """
    kind, process, times = type(objective), objective.process, objective.times
    name = f"context {objective.context.registered[1]}"
    if kind.corrupted is not base.corrupted or kind.score is not base.score:  # type: ignore[attr-defined]
        raise ValueError(f"{name} is for objectives nelbo and mgdm; use context pseudo here")
    if process is not None and not process.bridges:
        raise ValueError(
            f"{name} follows tokens along their forward path, which is known for masked and "
            "uniform diffusion; use context pseudo here"
        )
    if not times.falls:
        raise ValueError(
            f"{name} needs times that fall as their uniform number rises (uniform, grid, steps), "
            f"not {times.registered[1]}"
        )
