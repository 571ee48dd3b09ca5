"""Moments of the bridge of a sphere, and the law that training draws from in its place (RDLM).

The bridge to a vertex depends on tau, on the total variance B, on the sphere's dimension and on the
angle between beginning and end, and on nothing else; all is numpy in float64, built once.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

PATHS, STEPS = 1 << 13, 400
SEED = 2502


class Moments(NamedTuple):
    """E <X, e'> and E <X, X_0> at `tau`, e' orthogonal to X_0 in the plane of both ends; errors."""

    tau: np.ndarray
    ahead: np.ndarray
    back: np.ndarray
    ahead_se: np.ndarray
    back_se: np.ndarray


class Table(NamedTuple):
    """a and rho at `tau`: X ~ exp_mu(rho xi), mu = a e' + sqrt(1 - a^2) X_0.

    `scale` is rho / sqrt(tau (1 - tau)), which has no root at the ends: what is between the table's
    times is interpolated in it.
    """

    tau: np.ndarray
    a: np.ndarray
    scale: np.ndarray


def _squares(rng: np.random.Generator, degrees: int, paths: int) -> np.ndarray:
    """Chi-squared with so many degrees of freedom; 0 without any."""
    return rng.chisquare(degrees, paths) if degrees > 0 else np.zeros(paths)


def _pair_error(values: np.ndarray, pairs: int) -> float:
    """Standard error of the mean of paths that come in pairs."""
    middle = (values[:pairs] + values[pairs:]) / 2
    return float(middle.std() / np.sqrt(pairs))


@functools.lru_cache(maxsize=32)
def moments(
    total: float, dimension: int, cosine: float, paths: int = PATHS, steps: int = STEPS
) -> Moments:
    """By simulation of what matters of a path: its two coordinates in the plane of both ends.

    Beside them only the distance r to that plane and the squared length of the noise orthogonal to
    all three are needed: the rest is a rotation. Paths come in pairs of opposite noise. Steps
    are those of `Sphere.corrupt_to_prior`.

    Args:
      total: B, variance of the noise in all.
      dimension: of the sphere, d - 1.
      cosine: of the angle between beginning and end.
      paths: number of paths.
      steps: of each, equal in tau.
    """
    rng = np.random.default_rng(SEED)
    pairs = paths // 2
    sine = np.sqrt(1 - cosine**2)
    # Along X_0, along e', and beyond their plane.
    x, y, r = np.ones(2 * pairs), np.zeros(2 * pairs), np.zeros(2 * pairs)
    tau = np.arange(steps + 1) / steps
    kept = [(1.0, 0.0, 0.0, 0.0)]
    spatial = dimension >= 2
    for now, then in zip(tau[:-1], tau[1:]):
        share = (then - now) / (1 - now)
        size = np.sqrt(total * share * (1 - then))
        # The way to the end, and noise in the plane, along r and (squared) in all other directions.
        c = np.clip(cosine * x + sine * y, 1e-6 - 1, 1 - 1e-12)
        pull = share * np.arccos(c) / np.sqrt(1 - c * c)
        half = size * rng.standard_normal((3, pairs))
        g = np.concatenate([half, -half], axis=1)
        g[2] *= spatial
        rest = size**2 * _squares(rng, dimension - 2, 2 * pairs)
        inner = g[0] * x + g[1] * y + g[2] * r
        vx = pull * (cosine - c * x) + g[0] - inner * x
        vy = pull * (sine - c * y) + g[1] - inner * y
        vr = pull * (-c * r) + g[2] - inner * r
        length = np.sqrt(vx**2 + vy**2 + vr**2 + rest)
        cos, sinc = np.cos(length), np.sinc(length / np.pi)
        x, y = cos * x + sinc * vx, cos * y + sinc * vy
        r = np.sqrt((cos * r + sinc * vr) ** 2 + sinc**2 * rest)
        kept.append((x.mean(), y.mean(), *(_pair_error(a, pairs) for a in (x, y))))
    back, ahead, back_se, ahead_se = np.asarray(kept).T
    return Moments(tau, ahead, back, ahead_se, back_se)


def mean_cosine(rho: float, dimension: int) -> float:
    """E cos(rho |xi|), xi ~ N(0, I) of `dimension`: 1F1(dimension / 2; 1/2; -rho^2 / 2).

    The released code of RDLM multiplies this by exp(-rho^2 / 2), which makes rho too small by
    sqrt(dimension / (dimension + 1)) where it is small. Computed as an integral where terms of the
    series cancel.
    """
    from scipy.integrate import quad
    from scipy.special import gammaln, hyp1f1

    if rho * rho * dimension < 30:
        return float(hyp1f1(dimension / 2, 0.5, -rho * rho / 2))
    log = (1 - dimension / 2) * np.log(2) - gammaln(dimension / 2)
    law = lambda r: np.exp((dimension - 1) * np.log(r) - r * r / 2 + log) * np.cos(rho * r)
    middle = np.sqrt(dimension)
    return float(quad(law, max(middle - 9, 1e-9), middle + 9, limit=400)[0])


def spread_of(moment: float, dimension: int) -> float:
    """The least rho with `mean_cosine` = moment; where there is none, the one of its least value.

    Args:
      moment: in (0, 1].
      dimension: of the sphere.
    """
    from scipy.optimize import brentq

    if moment >= 1:
        return 0.0
    above = lambda rho: mean_cosine(rho, dimension) - moment
    grid = np.linspace(0, np.pi / np.sqrt(dimension), 65)[1:]
    values = [above(rho) for rho in grid]
    first = next((i for i, v in enumerate(values) if v <= 0), None)
    if first is None:
        return float(grid[int(np.argmin(values))])
    return float(brentq(above, grid[first - 1] if first else 0.0, grid[first], xtol=1e-12))


@functools.lru_cache(maxsize=32)
def table(total: float, dimension: int, cosine: float) -> Table:
    """The (a, rho) whose law has the moments of the bridge.

    `total`, `dimension` and `cosine` are those of `moments`.
    """
    found = moments(total, dimension, cosine)
    size = np.hypot(found.ahead, found.back)
    every = np.unique(np.append(np.arange(1, STEPS, 2), STEPS - 1))  # both ends have no spread
    rho = np.asarray([spread_of(min(float(m), 1.0), dimension) for m in size[every]])
    tau = found.tau[every]
    scale = rho / np.sqrt(tau * (1 - tau))
    ends = lambda inner: np.concatenate([[inner[0]], inner, [inner[-1]]])
    last = np.sqrt(1 - cosine**2)
    a = np.concatenate([[0.0], np.clip(found.ahead / size, 0, 1)[every], [last]])
    return Table(np.concatenate([[0.0], tau, [1.0]]), a, ends(scale))
