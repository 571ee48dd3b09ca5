"""The only sampling loop: (z, h) carried over a time grid, or until every row is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core import positions
from ldd_jax.core.checks import UserError
from ldd_jax.core.draws import most_probable
from ldd_jax.core.types import Array, Draw
from ldd_jax.samplers.ancestral import Ancestral
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.grids import LinearGrid
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.segments import Loop
from ldd_jax.samplers.state import Clamp, SampleState
from ldd_jax.samplers.stops import Never, Stop, Watch, choose
from ldd_jax.samplers.windows import Window

# Scope of the loop over a grid, or until done.
STEPS = "sampling_steps"
# Scope of the last call, where rows may be spared it.
TAIL = "sampling_tail"

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


def noisy(process: Any, state: SampleState) -> Array:
    """Rows that have noise left, [B]: a mask, or where nothing tells noise from text, all of them.

    Args:
      process: the forward side.
      state: at the end of a grid.
    """
    left = state.free
    if process.absorbing:
        left = left & process.scored(state.z)
    return jnp.any(left, axis=1)


def check_lawful(lawless_B: Any) -> None:
    """Refuse samples that were not drawn from a law; while a program is traced nothing is known.

    Raises:
      FloatingPointError: with their number.
    """
    if isinstance(lawless_B, jax.core.Tracer):
        return
    lawless_B = np.asarray(lawless_B)
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
    stop: Stop = Never(),  # noqa: B008 (frozen)
    window: Window | None = None,
    compact: int = 0,
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
        A row without noise is spared it, and where all are no call is made.
      record: state -> pytree kept for every step, stacked along a leading axis.
        With it the loop is a static scan, which has derivatives with respect to parameters and h.
      h: the latent before the first step; None = zeros.
      stop: when a row needs no further step; the tail removes what noise it has left.
      window: these positions are a part of a row, whose others the network knows by a cache that
        is made anew every so many steps; None = they are all there are.
      compact: how often the batch is halved at most as its rows end (`segments.Loop.run`); the
        same rows, each time another program of a step. Not with a record or a window.

    Returns:
      Final state (calls per row counted) and the trace, or None. In a compiled program the caller
      looks at `lawless`.

    Raises:
      ValueError: for an unknown tail, or a rule that cannot run with this process or latent.
      FloatingPointError: where rows were to be drawn from NaN, and this is not being compiled.
    """
    if tail not in TAILS:
        raise ValueError(f"tail {tail!r} is not one of {', '.join(TAILS)}")
    on_grid = step.clock == "grid"
    state = start(net, prior, clamp, h)
    watch, carried = Watch(stop), bool(jax.tree.leaves(state.h)) and not latent.off
    loop = Loop(
        net=net,
        step=step,
        draw=draw,
        num_steps=num_steps,
        grid=grid,
        latent=latent,
        watch=watch,
        length=positions.shape(prior[0])[1],
        segment=None if clamp is None else clamp.segment,
        idle=~jnp.any(state.free, axis=1),
        clamped=clamp is not None,
        window=window,
    )
    state = state._replace(clock=loop.clock(0)) if on_grid else state
    step.check(net.process, latent=carried, timed=net.denoiser.timed)
    stop.check(step, tail)
    state = state._replace(memory=step.init(net, state))

    def end(state, trace):
        check_lawful(state.lawless)
        return state, trace

    carry, trace = (watch.begin(net, state), window and window.empty(net)), None
    if record is not None:

        def body(carry, i):
            carry = loop.advance(i, carry)
            return carry, record(watch.bare(carry[0][0]))

        carry, trace = jax.lax.scan(body, carry, jnp.arange(num_steps))
    halvings = 0 if record is not None or window is not None else compact
    ends = stop.watches or (halvings and loop.clamped)  # rows of a grid, before it does
    with jax.named_scope(STEPS):
        if not on_grid or (record is None and ends):
            first = jnp.asarray(0 if record is None else num_steps, jnp.int32)
            carry = loop.run((first, carry), halvings)[1]
        elif record is None:
            count = num_steps if clamp is None else jnp.where(jnp.all(loop.idle), 0, num_steps)
            carry = jax.lax.fori_loop(0, count, loop.advance, carry)
    (state, _), cache = carry
    state = watch.bare(state)
    if not on_grid and not stop.watches:
        return end(state, trace)

    def finish(state):
        state, _, seeing = loop.renewed(num_steps, state, None, cache)
        at = dataclasses.replace(seeing, policy=latent, number=num_steps)
        last = TAILS[tail](at, state, draw.at(step=num_steps), loop.segment)
        return loop.settled(state, last)

    done = ~noisy(net.process, state) if on_grid else loop.over(state)
    finished = lambda state: choose(done, state, finish(state))
    with jax.named_scope(TAIL):
        state = jax.lax.cond(jnp.all(done), lambda state: state, finished, state)
    return end(state, trace)
