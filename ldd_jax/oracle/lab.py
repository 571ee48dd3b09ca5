"""The oracle lab: exact laws of the production steps on an enumerable p_0.

Every outcome of a step is dictated through the `Draw` seam (`EnumeratingDraw`) and its probability
read from the step itself; summing over outcomes gives the exact transition matrix, applied in
float64.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.types import Array
from ldd_jax.oracle.enumerating_draw import EnumeratingDraw
from ldd_jax.oracle.laws import Exact, Law, index, kl
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState
from ldd_jax.samplers.stops import choose

LIMIT = 2_000_000  # outcomes enumerated at a time
FEW = 5_000  # outcomes not worth a look at which of them are possible

# Nearly all the time goes into compiling small programs.
_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def at_rest(net: Net, step: Step, z: Array) -> SampleState:
    """States, all free, with the memory that a run from noise begins with.

    Args:
      net: network and process.
      step: makes its own memory.
      z: tokens [B, L].
    """
    batch, length = z.shape
    unknown, clock = net.process.prior(jax.random.split(jax.random.key(0), batch), length)
    state = SampleState(
        z=z,
        clock=clock,
        h=net.latent(*z.shape),
        free=jnp.ones(z.shape, bool),
        calls=jnp.zeros(z.shape[0], jnp.int32),
    )
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
    grid = np.indices([len(d) for d in domains]).reshape(len(domains), count)
    return {site: d[i] for site, d, i in zip(kinds, domains, grid)}, count


@dataclasses.dataclass(frozen=True)
class Enumeration:
    """All outcomes of one application of a production step from every state of a law.

    A rule with its own clock begins at that of the prior, and gets s = None. A rule with a memory
    is given that of the start: the matrix is that of a chain only if the memory does not matter to
    it.
    """

    net: Net
    step: Step
    law: Law

    def _apply(self, z: Array, t: Any, s: Any, draw: EnumeratingDraw) -> Array:
        state = at_rest(self.net, self.step, z)
        if self.step.clock == "own":
            new = self.step(self.net, state, None, draw, None)
            return choose(self.step.done(self.net, state), state, new).z
        t, s = (
            self.net.process.clock(jnp.full(len(z), a, jnp.result_type(float)), z.shape[1])
            for a in (t, s)
        )
        return self.step(self.net, state._replace(clock=t), s, draw, None).z

    def table(self) -> Any:
        """(states [n * C, L], their origin [n * C], outcomes by site): input of `matrix`.

        Where there are many, those that are impossible at all of a few times are left out;
        `final_laws` checks that no mass is lost with them.
        """
        own = self.step.clock == "own"
        times: list[tuple[Any, Any]] = (
            [(None, None)] if own else [(1.0, 0.99), (0.9, 0.1), (0.5, 0.4), (0.03, 0.02)]
        )
        note, z = EnumeratingDraw(), self.law.z
        jax.eval_shape(lambda: self._apply(jnp.asarray(z), *times[0], note))
        choices, count = outcomes(note.kinds, self.law)
        tiled = {site: np.tile(c, (len(z), 1)) for site, c in choices.items()}
        start, origin = np.repeat(z, count, 0), np.repeat(np.arange(len(z)), count)
        if len(start) <= FEW:
            return jax.tree.map(jnp.asarray, (start, origin, tiled))

        @_jit
        def possible(z, choices, t, s):
            draw = EnumeratingDraw(choices)
            self._apply(z, t, s, draw)
            return jnp.broadcast_to(draw.log_probability > -jnp.inf, len(z))

        kept = np.any([possible(start, tiled, t, s) for t, s in times], axis=0)
        take = lambda a: jnp.asarray(a[kept])
        return take(start), take(origin), jax.tree.map(take, tiled)

    def matrix(self, table: Any, t: Any, s: Any) -> Array:
        """Exact [from z, to z'] of one step.

        Args:
          table: of `table`.
          t: time to begin at; None for clock "own".
          s: time to end at; None for clock "own".
        """
        start, origin, choices = table
        n, draw = len(self.law.z), EnumeratingDraw(choices)
        z = self._apply(start, t, s, draw)
        cell = origin * n + index(z, self.law.size)
        return jax.ops.segment_sum(jnp.exp(draw.log_probability), cell, n * n).reshape(n, n)


def final_laws(net: Net, step: Step, law: Law, grid: Any, start: np.ndarray) -> Callable:
    """Steps -> the exact law of z after them; one compilation for all of them.

    Args:
      net: exact network and process.
      step: the rule.
      law: the data's, which gives the list of all z.
      grid: (i, n) to t.
      start: probabilities of all z before the first step.
    """
    every = Enumeration(net, step, law)
    table = every.table()

    @_jit
    def run(table, start, n):
        def advance(i, p):
            if step.clock == "own":
                return p @ every.matrix(table, None, None)
            t, s = (grid(jnp.asarray(j, p.dtype), n) for j in (i, i + 1))
            return p @ every.matrix(table, t, s)

        return jax.lax.fori_loop(0, n, advance, start)

    def law_after(n: int) -> np.ndarray:
        p = np.asarray(run(table, jnp.asarray(start), n))
        if abs(p.sum() - start.sum()) > 1e-9:
            raise ArithmeticError(f"after {n} steps the probabilities sum to {p.sum()}")
        return p

    return law_after


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
        """Slope of the last doubling from 64 steps or more; None at the floor of rounding."""
        few = len(self.steps) < 2 or self.steps[-2] < 64
        if few or self.steps[-1] != 2 * self.steps[-2] or self.kl[-1] < 1e-14:
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
    is the steps' own. Rules that leave no mask are compared with p_0.

    Args:
      name: of the rule.
      step: the rule.
      process: of the law's states.
      law: the data's.
      grid: (i, n) to t.
      steps: numbers of them to measure.
    """
    net = Net(Exact.of(law), process)
    step.check(process, latent=False, timed=net.denoiser.timed)
    alpha = lambda t: float(process.schedule.alpha(jnp.asarray(float(t))))
    whole = step.clock == "own" or step.finishes
    end = 1.0 if whole else alpha(grid(jnp.asarray(1.0), 1))
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
