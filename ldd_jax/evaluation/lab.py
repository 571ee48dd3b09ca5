"""The oracle lab: exact laws of the production steps on an enumerable p_0.

Every outcome of a step is dictated through the `Draw` seam (`core.ledger`) and its probability read
from the step itself; summing over outcomes gives the exact transition matrix, applied in float64.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.ledger import Ledger
from ldd_jax.core.types import Array
from ldd_jax.evaluation.laws import Exact, Law, index, kl
from ldd_jax.samplers.base import Net, SampleState, Step
from ldd_jax.samplers.loop import choose

LIMIT = 2_000_000  # outcomes enumerated at a time


def at_rest(net: Net, step: Step, z: Array) -> SampleState:
    """States z [B, L], all free, with the memory that a run from noise begins with."""
    state = SampleState(
        z=z,
        h=net.latent(*z.shape),
        free=jnp.ones(z.shape, bool),
        calls=jnp.zeros(z.shape[0], jnp.int32),
    )
    unknown = net.process.prior(jax.random.split(jax.random.key(0), z.shape[0]), z.shape[1])
    return state._replace(memory=step.init(net, state._replace(z=unknown)))


def outcomes(kinds: dict, law: Law) -> tuple[dict, int]:
    """All joint outcomes of the sites: site -> [C, L], and C.

    Raises:
      ValueError: if there are too many.
    """
    orders = np.array(list(itertools.permutations(range(law.length))), np.int32)
    domains = [law.z if kind == "tokens" else orders for kind in kinds.values()]
    count = int(np.prod([len(d) for d in domains]))
    if count * len(law.z) > LIMIT:
        raise ValueError(f"{count * len(law.z)} outcomes to enumerate, more than {LIMIT}")
    grid = np.indices([len(d) for d in domains]).reshape(len(domains), -1)
    return {site: d[i] for site, d, i in zip(kinds, domains, grid)}, count


def transition(net: Net, step: Step, law: Law) -> Callable[[Any, Any], Array]:
    """(t, s) -> the exact matrix [from z, to z'] of one application of a production step.

    A rule with its own clock gets t = s = None. Rules with a memory are given the one of a run's
    start: the matrix is that of a chain only if the memory does not matter to it.
    """
    n = len(law.z)
    spread = lambda a, size: None if a is None else jnp.full(size, a, jnp.result_type(float))

    def apply(z, t, s, ledger):
        state = at_rest(net, step, z)
        new = step(net, state, spread(t, len(z)), spread(s, len(z)), ledger, None)
        return choose(step.done(net, state), state, new) if step.clock == "own" else new

    note = Ledger()
    times = (None, None) if step.clock == "own" else (0.5, 0.4)
    jax.eval_shape(lambda: apply(jnp.asarray(law.z), *times, note).z)
    choices, count = outcomes(note.kinds, law)
    tiled = {site: jnp.asarray(np.tile(c, (n, 1))) for site, c in choices.items()}
    start = jnp.asarray(np.repeat(law.z, count, axis=0))
    origin = jnp.asarray(np.repeat(np.arange(n), count))

    def matrix(t, s):
        ledger = Ledger(tiled)
        z = apply(start, t, s, ledger).z
        cell = origin * n + index(z, law.size)
        p = jnp.exp(ledger.log_probability)
        return jax.ops.segment_sum(p, cell, n * n).reshape(n, n)

    return matrix


def final_laws(net: Net, step: Step, law: Law, grid: Any, start: np.ndarray) -> Callable:
    """Steps -> the exact law of z after them from `start`, compiled once for all numbers of steps."""
    matrix = transition(net, step, law)

    @jax.jit
    def run(n):
        def advance(i, p):
            if step.clock == "own":
                return p @ matrix(None, None)
            t, s = (grid(jnp.asarray(j, p.dtype), n) for j in (i, i + 1))
            return p @ matrix(t, s)

        return jax.lax.fori_loop(0, n, advance, jnp.asarray(start))

    return lambda n: np.asarray(run(n))


@dataclasses.dataclass(frozen=True)
class Measured:
    """Divergences of a sampler's exact law from the exact marginal, by number of steps."""

    sampler: str
    process: str
    steps: list[int]
    calls: list[int]
    kl: list[float]
    tv: list[float]

    @property
    def order_kl(self) -> float | None:
        """Slope of the last doubling of steps; None at the floor of rounding."""
        if len(self.steps) < 2 or self.steps[-1] != 2 * self.steps[-2] or self.kl[-1] < 1e-14:
            return None
        return float(np.log2(self.kl[-2] / self.kl[-1]))

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return {**dataclasses.asdict(self), "order_kl": self.order_kl}


def measure(
    name: str, step: Step, process: Any, law: Law, grid: Any, steps: tuple[int, ...]
) -> Measured:
    """KL(p_end || law of the sampler) and total variation, from the exact law at t = 1.

    Starting from the marginal at t = 1 leaves out the error of the prior, so that what is measured
    is the steps' own. A rule with its own clock ends at t = 0.
    """
    net = Net(Exact.of(law), process)
    alpha = lambda t: float(process.schedule.alpha(jnp.asarray(float(t))))
    own = step.clock == "own"
    end = 1.0 if own else alpha(grid(jnp.asarray(1.0), 1))
    target = law.marginal(end)
    laws = final_laws(net, step, law, grid, law.marginal(alpha(1.0)))
    found = [laws(n) for n in steps]
    return Measured(
        sampler=name,
        process=process.registered[1],
        steps=list(steps),
        calls=[n * step.calls for n in steps],
        kl=[max(kl(target, q), 0.0) for q in found],
        tv=[float(np.abs(target - q).sum() / 2) for q in found],
    )
