"""What the latent does while a sample is made: measured inside the scan, by a step around a step.

`Observed` runs a step rule unchanged and looks at the same state through the same network call. No
[B, L, V] array is kept: predictions that are compared are projected again, row by row. Beside its
own latent it shows the network the pseudo-context of training (the latent of a pass with h = 0 on
the same tokens), so that the shift between what was trained and what is met is a number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.kl import entropy, kl
from ldd_jax.core.types import Array, Draw, Process, Trunk
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


class StepMetrics(NamedTuple):
    """Of one step, before it is taken; NaN where there is nothing to average.

    tokens [B, L] after the step; open [B, L]: masked and free before it (all free ones without
    masks); entropy [B, L] of p(x0 | z) in nats; temporal [B, L] KL(p_{i-K} || p_i) at every K-th
    step; norm [B, L] root mean square of the latent after the call; turn [B, L] cosine of the
    latents before and after; shift [B, L] KL(p || p with the pseudo-context); pseudo [B, L] entropy
    of the latter; likeness [B, L] cosine of latent met and pseudo-context; ratio [B, L] of the
    lengths |LayerNorm(h)| / |E(z)| of what enters the network.
    """

    tokens: Array
    open: Array
    entropy: Array
    temporal: Array
    norm: Array
    turn: Array
    shift: Array
    pseudo: Array
    likeness: Array
    ratio: Array


class Past(NamedTuple):
    """What the next steps compare with: row features, tokens and times K steps ago; the count."""

    features: Array
    z: Array
    t: Array
    seen: Array


def cosine(a_BLK: Array, b_BLK: Array) -> Array:
    """Cosine of the angle of two latents, [B, L]; NaN where one is 0."""
    a_BLK, b_BLK = (jnp.asarray(a, jnp.result_type(a, jnp.float32)) for a in (a_BLK, b_BLK))
    dot = lambda x, y: jnp.sum(x * y, -1)
    size = jnp.sqrt(dot(a_BLK, a_BLK) * dot(b_BLK, b_BLK))
    return jnp.where(size > 0, dot(a_BLK, b_BLK) / jnp.where(size > 0, size, 1), jnp.nan)


def length_ratio(embedded_BLD: Array, fused_BLD: Array) -> Array:
    """|second| / |first| at every position, [B, L]; NaN where the first is 0."""
    below, above = (jnp.linalg.norm(a, axis=-1) for a in (embedded_BLD, fused_BLD))
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), jnp.nan)


def by_position(a_BP: Array, length: int) -> Array:
    """[B, P] of a latent by patch to [B, L], patches as long as each other; [B, L] stays."""
    count = a_BP.shape[1]
    return a_BP if count == length else a_BP[:, jnp.arange(length) * count // length]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observed(Step):
    """`inner` on a grid, and `StepMetrics` of every step in the memory; K = `every`.

    `parts` maps tokens and latent to the two terms that enter the network, E(z) and LayerNorm(h).
    """

    inner: Step
    every: int = 4
    parts: Callable[[Array, Array], tuple[Array, Array]] | None = None

    @property
    def calls(self) -> int:  # type: ignore[override]
        """Those of the rule; looking is not counted."""
        return self.inner.calls

    @property
    def finishes(self) -> bool:  # type: ignore[override]
        """As the rule."""
        return self.inner.finishes

    def check(self, process: Process, *, latent: bool, timed: bool) -> None:
        """What the rule refuses, and rules without a grid."""
        if self.inner.clock != "grid":
            raise ValueError("the mechanism is looked at step by step on a time grid")
        self.inner.check(process, latent=latent, timed=timed)

    def init(self, net: Net, state: SampleState) -> Any:
        """The rule's memory, the past, and empty metrics."""
        batch, length = state.z.shape
        like = jax.eval_shape(lambda: net.trunk(state).features)
        past = Past(
            features=jnp.zeros(like.shape, like.dtype),
            z=state.z,
            t=state.clock,
            seen=jnp.zeros(batch, jnp.int32),
        )
        blank = jnp.full((batch, length), jnp.nan, jnp.float32)
        metrics = StepMetrics(state.z, state.free, *[blank] * (len(StepMetrics._fields) - 2))
        return self.inner.init(net, state), past, metrics

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array | None,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """The rule's step."""
        own, past, _ = state.memory
        # Metrics take every latent as it is, and leave a stop aside; the rule meets what the policy
        # makes of it.
        bare = dataclasses.replace(net.uncarried, look=None)
        before = state._replace(h=net.given(state.h if net.look is None else state.h.h))
        trunk = bare.trunk(before, segment)
        state = self.inner(net, state._replace(memory=own), s, draw, segment)
        past, metrics = self._metrics(bare.plain, before, trunk, past, segment)
        metrics = metrics._replace(tokens=state.z)
        return state._replace(memory=(state.memory, past, metrics))

    def _metrics(self, net, state, trunk, past, segment) -> tuple[Past, StepMetrics]:
        z, process = state.z, net.process
        where = process.scored(z) & state.free
        clean = lambda view: process.clean(*view)
        single = lambda a: jnp.where(where, a, jnp.nan).astype(jnp.float32)

        def both(first, second, args):
            p, q = clean(first), clean(second)
            return kl(p, q), entropy(p), entropy(q)

        here = (trunk, z, state.clock)
        then = (Trunk(features=past.features, latent=None), past.z, past.t)
        moved, _, own = net.rows_of_two(both, then, here, (), where=where)
        due = (past.seen % self.every == 0) & (past.seen > 0)
        fresh = past.seen % self.every == 0
        keep = lambda new, old: jnp.where(fresh.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        new_past = Past(
            keep(trunk.features, past.features),
            keep(z, past.z),
            keep(state.clock, past.t),
            past.seen + 1,
        )
        blank = jnp.full(z.shape, jnp.nan, jnp.float32)
        metrics = StepMetrics(
            tokens=z,
            open=where,
            entropy=single(own),
            temporal=jnp.where(due[:, None], single(moved), jnp.nan),
            norm=blank,
            turn=blank,
            shift=blank,
            pseudo=blank,
            likeness=blank,
            ratio=blank,
        )
        if state.h is None:
            return new_past, metrics
        none = jax.tree.map(jnp.zeros_like, state.h)
        pseudo = net.trunk(state._replace(h=none), segment).latent
        trained = net.trunk(state._replace(h=pseudo), segment)
        apart, _, other = net.rows_of_two(both, here, (trained, z, state.clock), (), where=where)
        h, spread = trunk.latent, partial(by_position, length=z.shape[1])
        return new_past, metrics._replace(
            norm=spread(jnp.sqrt(jnp.mean(jnp.square(h.astype(jnp.float32)), -1))),
            turn=spread(cosine(state.h, h)),
            shift=single(apart),
            pseudo=single(other),
            likeness=spread(cosine(state.h, pseudo)),
            ratio=blank if self.parts is None else length_ratio(*self.parts(z, state.h)),
        )


def while_going(metrics: StepMetrics, taken_TB: np.ndarray) -> StepMetrics:
    """Without what was measured of rows that had stopped.

    Args:
      metrics: by step, leaves [T, B, L].
      taken_TB: which steps a row took.
    """
    on = taken_TB[..., None]
    blank = lambda a: np.where(on, a, np.nan)
    measured: Any = {name: blank(getattr(metrics, name)) for name in MEASURES}
    return metrics._replace(open=metrics.open & on, **measured)


def busy_steps(process: Process, grid: Any, steps: int, length: int) -> float:
    """Expected number of steps, the noise removal included, at which an ancestral masked sampler
    changes a row: sum_i 1 - (1 - p_i)^L, as every token is revealed in exactly one interval, of
    probability p_i = (noise(t_i) - noise(t_{i+1})) / noise(1).

    Args:
      process: a masked one, with its schedule.
      grid: (i, n) to t.
      steps: n.
      length: L.
    """
    at = np.asarray([float(grid(jnp.asarray(float(i)), steps)) for i in range(steps + 1)])
    noise = np.append(np.asarray(process.schedule.noise(jnp.asarray(at)), np.float64), 0)
    p = (noise[:-1] - noise[1:]) / noise[0]
    return float(np.sum(1 - (1 - p) ** length))


def path_counts(path_TBL: np.ndarray) -> dict[str, float | None]:
    """Of tokens by step, the prior first: busy steps, changes beyond the first, and returns.

    oscillations: changes of a position less one, where it changes at all; returns: changes back to
    a token that the position has held before. Means per position, with standard errors over rows;
    None for one row.
    """
    moved = path_TBL[1:] != path_TBL[:-1]
    busy = moved.any(-1).sum(0)
    changes = moved.sum(0)
    extra = np.maximum(changes - 1, 0).mean(-1)
    returns = np.zeros(path_TBL.shape[1:])
    for i in range(1, len(path_TBL)):
        held = (path_TBL[:i] == path_TBL[i]).any(0)
        returns += held & moved[i - 1]
    several = path_TBL.shape[1] > 1
    out: dict[str, float | None] = {}
    for name, rows in (("busy", busy), ("oscillations", extra), ("returns", returns.mean(-1))):
        out[name] = float(rows.mean())
        out[f"{name}_se"] = float(rows.std(ddof=1) / np.sqrt(len(rows))) if several else None
    return out


MEASURES = ("entropy", "temporal", "norm", "turn", "shift", "pseudo", "likeness", "ratio")


def curves(metrics: StepMetrics) -> dict[str, list]:
    """Mean over open positions and rows of every measure by step, and its error over rows.

    The latent's (norm, turn, likeness, ratio) are over all positions. None where nothing is
    averaged.
    """
    out: dict[str, list] = {}
    for name in MEASURES:
        value = np.asarray(getattr(metrics, name), np.float64)
        known = ~np.isnan(value)
        count = known.sum(-1)
        rows = np.where(count > 0, np.where(known, value, 0).sum(-1) / np.maximum(count, 1), np.nan)
        means, errors = [], []
        for step in rows:
            some = step[~np.isnan(step)]
            means.append(float(some.mean()) if len(some) else None)
            several = len(some) > 1
            errors.append(float(some.std(ddof=1) / np.sqrt(len(some))) if several else None)
        if any(m is not None for m in means):
            out[name], out[f"{name}_se"] = means, errors
    return out
