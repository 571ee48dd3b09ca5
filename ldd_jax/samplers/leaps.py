"""Leaps: what a position does within a step of length h when its intensities mu are held fixed.

A token is categorical, so the Poisson counts of tau-leaping have to become at most one jump. With
m_y = h mu_y and M = sum_y m_y, a leap jumps to y with probability m_y g(M):
  first_jump  g = (1 - e^-M) / M    the first of the competing exponentials
  linear      g = min(1, 1 / M)     Euler: m_y itself, scaled down where it exceeds 1
  rejection   g = e^-M              exactly one event of all counts (arXiv 2502.00234's code)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.checks import nearest
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.dictation import Way
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


def _first_jump(total: Array) -> Array:
    safe = jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, -jnp.expm1(-safe) / safe, 1)


LEAPS: dict[str, Callable[[Array], Array]] = {
    "first_jump": _first_jump,
    "linear": lambda total: 1 / jnp.maximum(total, 1),
    "rejection": lambda total: jnp.exp(-total),
}


def check_leap(name: str) -> None:
    """Refuse an unknown leap.

    Raises:
      ValueError: with those that exist.
    """
    if name not in LEAPS:
        raise ValueError(f"leap {name!r}: {nearest(name, LEAPS)}")


def chance(leap: str, total_N: Array, scale_N: Array | None = None) -> Array:
    """Probability that a row is drawn anew: M g(M), or 1 where M is not known yet (+inf).

    With `scale_N` >= M it is M g(scale): where both ends of every jump have the same scale, a leap
    of any length keeps the detailed balance of its intensities.

    Args:
      leap: which g, a key of `LEAPS`.
      total_N: M, expected jumps of a row in the leap; +inf = not known.
      scale_N: in the place of M within g.
    """
    known = jnp.isfinite(total_N)
    safe = jnp.where(known, total_N, 0)
    return jnp.where(known, safe * LEAPS[leap](safe if scale_N is None else scale_N), 1)


def outcome(leap: str, mean_NV: Array, z_N: Array, known_N: Array) -> Array:
    """Log-law of the new token of a row that is drawn anew; where M was known, it has jumped.

    Args:
      leap: name of the leap.
      mean_NV: m = h mu by target token, 0 at the present one.
      z_N: present tokens.
      known_N: rows whose M was known, of which `chance` has said that they jump.
    """
    total = jnp.sum(mean_NV, -1)
    jump = mean_NV * LEAPS[leap](total)[:, None]
    stay = jnp.where(known_N & (total > 0), 0, jnp.maximum(1 - jnp.sum(jump, -1), 0))
    here = jnp.arange(mean_NV.shape[-1]) == z_N[:, None]
    return jnp.log(jnp.where(here, stay[:, None], jump))


def check_scales(scales: tuple[float, ...]) -> None:
    """Refuse factors of a rate that are none.

    Raises:
      ValueError: naming them.
    """
    if not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"scales are {scales}; each is above 0 and finite")


def scaled(duration: Array, scales: tuple[float, ...], number: Array | int) -> Array:
    """The duration of a step times its scale.

    Args:
      duration: of the step, in time.
      scales: factors by step, the last for all that follow; () = 1.
      number: of the step, from 0.
    """
    if not scales:
        return duration
    factors = jnp.asarray(scales, duration.dtype)
    return duration * factors[jnp.minimum(number, len(scales) - 1)]


def leaping(name: str, process: Process) -> Way:
    """The way of one leap a step: known where no prediction says whether a position jumps.

    Raises:
      ValueError: elsewhere.
    """
    if not process.absorbing or process.predicts != "clean":
        raise ValueError(
            f"sampler {name}: its own likelihood is known for masked diffusion that predicts "
            "x_theta, where the schedule alone says when a position jumps (use ancestral)"
        )
    return Way()


def leap_all(
    net: Net,
    state: SampleState,
    duration: Array,
    leap: str,
    draw: Draw,
    segment: Array | None,
    *,
    noise: bool = False,
):
    """One network call and one leap of every free position, with the intensities of its clock.

    Only rows that jump are projected where the total intensity is known beforehand.

    Args:
      net: what is sampled from.
      state: where from.
      duration: h, of the clock's shape.
      leap: name of the leap.
      draw: randomness of this leap.
      segment: [B, L] or None.
      noise: add the forward intensities (a corrector: the marginal at t is left unchanged).

    Returns:
      (z [B, L], trunk).
    """
    process, shape = net.process, state.z.shape
    t_N, duration = (positions.of_rows(a, shape[1]) for a in (state.clock, duration))

    def total(z, t, duration):
        rate = process.total_rate(z, t)
        return duration * (rate + process.noise_total_rate(z, t) if noise else rate)

    def moved(z, t, duration):
        """Probability that a row is drawn anew, and whether M is known."""
        both = process.both_ways(z, t) if noise else None
        scale = None if both is None else duration * both
        mean = total(z, t, duration)
        return chance(leap, mean, scale), jnp.isfinite(mean)

    row_draw = draw.rows(shape[1])
    all_rows = moved(state.z.reshape(-1), t_N, duration)[0]
    moves = row_draw.event(all_rows).reshape(shape) & state.free
    trunk = net.trunk(state, segment)

    def move(pred, z, t, args):
        row_draw, duration = args
        rate = process.rate(pred, z, t)
        if noise:
            rate = rate + process.noise_rate(z, t, pred.shape[-1])
        p, known = moved(z, t, duration)
        law = outcome(leap, duration[:, None] * rate, z, known)
        return row_draw.outcome(law, p, z)

    z = net.rows(move, trunk, state.z, state.clock, (row_draw, duration), where=moves)
    return jnp.where(moves, z, state.z), trunk
