"""The only sampling loop: (z, h) carried over a time grid, or until every row is done."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core import positions
from ldd_jax.core.checks import UserError
from ldd_jax.core.draws import NO_LAW, most_probable
from ldd_jax.core.types import Array, Draw
from ldd_jax.samplers.ancestral import Ancestral
from ldd_jax.samplers.base import Clamp, Latent, Net, SampleState, Step
from ldd_jax.samplers.grids import LinearGrid

# Scope of the loop over a grid, or until done.
STEPS = "sampling_steps"

TAILS: dict[str, Callable] = {}


def tail(name: str):
    """Register a way to finish at the end of the grid."""

    def wrap(fn):
        TAILS[name] = fn
        return fn

    return wrap


@tail("none")
def _leave(net, state, draw, segment):
    return state


@tail("sample")
def _remove_noise(net, state, draw, segment):
    return Ancestral()(net, state, None, draw, segment)


@tail("greedy")
def _arg_max(net, state, draw, segment):
    trunk = net.trunk(state, segment)
    process = net.process

    def best(pred, z, t, args):
        token = most_probable(process.clean(pred, z, t)).astype(process.of_tokens(z).dtype)
        return process.with_tokens(process.drift(pred, z, t, None), token)

    z = net.rows(best, trunk, state.z, state.clock, ())
    z = positions.where(state.free, z, state.z)
    return state._replace(z=z, h=trunk.latent, calls=state.calls + 1)


def start(net: Net, prior: tuple[Any, Any], clamp: Clamp | None, h: Any = None) -> SampleState:
    """The state before the first step, with clamped positions in place.

    Args:
      net: makes the latent.
      prior: (z, clock) at t = 1.
      clamp: positions that are fixed; None = all are free.
      h: latent before the first step; None = that of `net`, zeros.
    """
    z, clock = prior
    batch, length = positions.shape(z)
    free = jnp.ones((batch, length), bool)
    prompt = ~free
    if clamp is not None:
        free = ~clamp.fixed
        prompt = clamp.fixed if clamp.prompt is None else clamp.prompt
        z = positions.where(clamp.fixed, clamp.tokens, z)
        if clamp.segment is not None:
            free &= clamp.segment > 0
    calls = jnp.zeros(batch, jnp.int32)
    h = net.latent(batch, length) if h is None else h
    return SampleState(
        z=z, clock=clock, h=h, free=free, calls=calls, prompt=prompt, lawless=calls > 0
    )


def undrawn(z: Any) -> Array:
    """Positions [B, L] that came from no law: `NO_LAW` as a token, or a point that is no number."""

    def one(a):
        floats = jnp.issubdtype(a.dtype, jnp.floating)
        wrong = ~jnp.isfinite(a) if floats else a == NO_LAW
        return jnp.any(wrong.reshape(*a.shape[:2], -1), axis=-1)

    return functools.reduce(jnp.logical_or, map(one, jax.tree.leaves(z)))


def check_lawful(lawless_B: np.ndarray) -> None:
    """Refuse samples that were not drawn from a law.

    Raises:
      FloatingPointError: with their number.
    """
    if lawless_B.any():
        raise FloatingPointError(
            f"{int(lawless_B.sum())} of {lawless_B.size} samples could not be drawn: the network's "
            "probabilities were NaN, infinite or all zero (are its parameters finite?)"
        )


def fetched(state: SampleState) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [B, L] and calls [B] on the host.

    Raises:
      UserError: where rows could not be drawn, as the network gave no probabilities.
    """
    tokens, calls, lawless = jax.device_get((state.z, state.calls, state.lawless))
    try:
        check_lawful(lawless)
    except FloatingPointError as error:
        raise UserError(str(error)) from error
    return tokens, calls


def choose(keep_B: Array, old: Any, new: Any) -> Any:
    """Old or new, row by row.

    Args:
      keep_B: True where a row stays old.
      old: a pytree, leaves [B, ...].
      new: another in the same structure.
    """
    pick = lambda a, b: jnp.where(keep_B.reshape(-1, *(1,) * (b.ndim - 1)), a, b)
    return jax.tree.map(pick, old, new)


def sample(
    net: Net,
    step: Step,
    draw: Draw,
    prior: tuple[Any, Any],
    num_steps: Array | int,
    *,
    grid: Any = LinearGrid(),  # noqa: B008 (frozen)
    clamp: Clamp | None = None,
    latent: Latent = Latent(),  # noqa: B008 (frozen)
    tail: str = "sample",
    record: Callable[[SampleState], Any] | None = None,
    h: Any = None,
) -> tuple[SampleState, Any]:
    """Run `step` from the prior, h in the carry.

    A rule on a grid takes `num_steps` intervals and the tail. A rule with its own clock runs until
    every row is done, whatever `num_steps`, and needs no tail. A finished row stays as it is and
    pays for no more calls, as does one with nothing to make (all of it clamped or padding).

    Args:
      net: denoiser, process and read-out settings.
      step: the step rule.
      draw: randomness; step i uses draw.at(step=i), the tail draw.at(step=num_steps).
      prior: (z, clock) at t = 1, from `process.prior`.
      num_steps: traced or not when nothing is recorded (one compilation for all); static when
        `record` is given, as the trace has that length.
      grid: (i, n) -> t; `process.clock` makes a clock of it.
      clamp: fixed tokens (prompts, infilling) and padding.
      latent: what happens to h between steps.
      tail: "sample" (one more call with alpha_s = 1), "greedy" (arg max of p(x0 | z)) or "none".
      record: state -> pytree kept for every step, stacked along a leading axis.
      h: the latent before the first step; None = zeros.

    Returns:
      Final state (calls per row counted) and the trace, or None. In a compiled program the caller
      looks at `lawless`.

    Raises:
      ValueError: for an unknown tail, or a rule that cannot run with this process or latent.
      FloatingPointError: where rows were to be drawn from NaN, and this is not being compiled.
    """
    if tail not in TAILS:
        raise ValueError(f"tail {tail!r} is not one of {', '.join(TAILS)}")
    segment = None if clamp is None else clamp.segment
    real = jnp.zeros((), jnp.result_type(float))
    batch, length = positions.shape(prior[0])

    def time(i):
        """The grid's time number i."""
        return jnp.asarray(grid(jnp.asarray(i, real.dtype), num_steps), real.dtype)

    def clock(i):
        """That of the grid's time number i."""
        return net.process.clock(jnp.broadcast_to(time(i), (batch,)), length)

    on_grid = step.clock == "grid"
    state = start(net, prior, clamp, h)
    if on_grid:
        state = state._replace(clock=clock(0))
    carried = bool(jax.tree.leaves(state.h)) and not latent.off
    step.check(net.process, latent=carried, timed=net.denoiser.timed)
    state = state._replace(memory=step.init(net, state))
    idle = ~jnp.any(state.free, axis=1)

    def one(i, state):
        s = clock(i + 1) if on_grid else None
        at = dataclasses.replace(net, policy=latent, number=i, time=time, steps=num_steps)
        new = step(at, state, s, draw.at(step=i), segment)
        new = settled(state, new._replace(h=at.taken_back(state.z, new.z, new.h)))
        if not on_grid:
            return choose(over(state), state, new)
        new = new if clamp is None else choose(idle, state, new)
        return new._replace(clock=s)

    def over(state):
        """Rows of a rule with its own clock that need no further step, or cannot go on."""
        return step.done(net, state) | state.lawless

    def settled(old, new):
        """Calls in network passes; tokens that no law gave are noted and not kept."""
        calls = old.calls + net.passes * (new.calls - old.calls)
        none = undrawn(new.z)
        lawless = old.lawless | jnp.any(none, axis=1)
        return new._replace(z=positions.where(none, old.z, new.z), calls=calls, lawless=lawless)

    def end(state, trace):
        if not isinstance(state.lawless, jax.core.Tracer):
            check_lawful(np.asarray(state.lawless))
        return state, trace

    trace = None
    if record is not None:

        def body(state, i):
            new = one(i, state)
            return new, record(new)

        state, trace = jax.lax.scan(body, state, jnp.arange(num_steps))
    if not on_grid:
        busy = lambda carry: ~jnp.all(over(carry[1]))
        more = lambda carry: (carry[0] + 1, one(*carry))
        first = jnp.asarray(0 if record is None else num_steps, jnp.int32)
        with jax.named_scope(STEPS):
            return end(jax.lax.while_loop(busy, more, (first, state))[1], trace)
    if record is None:
        count = num_steps if clamp is None else jnp.where(jnp.all(idle), 0, num_steps)
        with jax.named_scope(STEPS):
            state = jax.lax.fori_loop(0, count, one, state)
    at = dataclasses.replace(net, policy=latent, number=num_steps)
    last_draw = draw.at(step=num_steps)
    finish = lambda state: settled(state, TAILS[tail](at, state, last_draw, segment))
    if not step.finishes:
        return end(finish(state) if clamp is None else choose(idle, state, finish(state)), trace)
    done = ~jnp.any(net.process.scored(state.z) & state.free, axis=1)
    state = jax.lax.cond(jnp.all(done), lambda s: s, lambda s: choose(done, s, finish(s)), state)
    return end(state, trace)
