"""The exact law of a sampler that carries h: all that can happen on the way, enumerated.

h is a function of the states so far, so (z, h) of every history is a state of its own. Each step of
the production rule is applied to all of them with every outcome dictated (`EnumeratingDraw`).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.oracle.enumerating_draw import EnumeratingDraw
from ldd_jax.oracle.lab import _jit, at_rest, outcomes
from ldd_jax.oracle.laws import Law, index
from ldd_jax.samplers.ancestral import Ancestral
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.grids import LinearGrid
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState
from ldd_jax.samplers.stops import choose

ROWS = 8192  # histories, each with one outcome, of a call


class Histories(NamedTuple):
    """Ways to the end: their log-probability [N] and their final states, leaves [N, ...]."""

    log_p: np.ndarray
    state: SampleState

    def law(self, law: Law) -> np.ndarray:
        """Probabilities of z, [states z]."""
        cell = index(np.asarray(self.state.z), law.size)
        return np.bincount(cell, np.exp(self.log_p), len(law.z))


def histories(
    net: Net,
    step: Step,
    law: Law,
    num_steps: int,
    *,
    grid: Any = LinearGrid(),  # noqa: B008 (frozen)
    latent: Latent = Latent(),  # noqa: B008 (frozen)
    removal: Step | None = None,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> Histories:
    """All ways of `sample` from noise to its end.

    Args:
      net: denoiser and process.
      step: a rule; one with a clock of its own is applied `num_steps` times.
      law: its states; p_0 does not matter.
      num_steps: on the grid, before the call that removes what noise is left.
      grid: as of `sample`.
      latent: as of `sample`.
      removal: the rule of that call; None = ancestral, without memory.
      start: (z [N, L], probabilities [N]); None = the prior.

    Returns:
      See `Histories`.

    Raises:
      ValueError: for more outcomes of a step than can be enumerated.
    """
    process = net.process
    if start is None:
        noise = np.asarray(process.noise_law(jnp.zeros(()).dtype))
        start = law.z, noise[law.z].prod(1)
    z, p = (a[start[1] > 0] for a in start)
    state = at_rest(net, step, jnp.asarray(z))
    state = state._replace(memory=step.init(net, state))
    on_grid = step.clock == "grid"
    times = [float(grid(jnp.asarray(float(i)), num_steps)) for i in range(num_steps + 1)]
    at = lambda i: dataclasses.replace(net, policy=latent, number=i)
    found = Histories(np.log(p), jax.tree.map(np.asarray, state))
    if not on_grid:
        walk = _expansion(at, step, law, removal=False)
        for i in range(num_steps):
            found = walk(found, i, None, None)
        return found
    walk = _expansion(at, step, law, removal=False)
    for i in range(num_steps):
        found = walk(found, i, times[i], times[i + 1])
    if removal is None:
        found = found._replace(state=found.state._replace(memory=()))
    last = _expansion(at, removal or Ancestral(), law, removal=True)
    return last(found, num_steps, times[-1], times[-1])


def _expansion(at: Any, step: Step, law: Law, *, removal: bool) -> Any:
    """(histories, number of the step, t, s) -> the histories after it."""
    own = step.clock == "own"

    def apply(state, choices, number, t, s):
        net = at(number)
        draw = EnumeratingDraw(choices)
        every = lambda a: net.process.clock(jnp.full(len(state.z), a), law.length)
        old = state if own else state._replace(clock=every(t))
        new = step(net, old, None if own or removal else every(s), draw, None)
        new = new._replace(h=net.taken_back(old.z, new.z, new.h))
        if own:
            new = choose(step.done(net, old), old, new)
        return new, jnp.broadcast_to(draw.log_probability, len(state.z)), draw.kinds

    run = _jit(lambda *a: apply(*a)[:2])

    def walk(found: Histories, number: int, t: Any, s: Any) -> Histories:
        t, s = (np.float64(0 if a is None else a) for a in (t, s))
        note: dict = {}

        def noted(state):
            note.update(apply(state, None, 0, t, s)[2])

        jax.eval_shape(noted, found.state)
        choices, count = outcomes(note, law)
        origin = np.repeat(np.arange(len(found.log_p)), count)
        tiled = {site: np.tile(c, (len(found.log_p), 1)) for site, c in choices.items()}
        log_p, states = [], []
        for first in range(0, len(origin), ROWS):
            rows = np.arange(first, first + ROWS) % len(origin)  # the last call is filled up
            take = lambda tree, rows: jax.tree.map(lambda a: a[rows], tree)
            new, gained = run(
                take(found.state, origin[rows]), take(tiled, rows), np.int32(number), t, s
            )
            real = min(ROWS, len(origin) - first)
            gained = np.asarray(gained)[:real] + found.log_p[origin[rows[:real]]]
            kept = np.flatnonzero(gained > -np.inf)
            log_p.append(gained[kept])
            states.append(jax.tree.map(lambda a, kept=kept: np.asarray(a)[kept], new))
        whole = jax.tree.map(lambda *parts: np.concatenate(parts), *states)
        return Histories(np.concatenate(log_p), whole)

    return walk
