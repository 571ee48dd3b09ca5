"""What log-weights W of rollouts tell: normaliser, effective sample size, means under the target.

With w = e^W / mean e^W the estimators are smooth functions of means over independent rollouts.
Standard errors come from their influence functions (delta method): the estimator moves by the mean
of `influence` to first order. They are blind to what no rollout has met: a sampler that misses a
mode has a small error and a wrong mean.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number with its standard error."""

    value: float
    se: float


def _figure(value: float, influence: np.ndarray) -> Figure:
    n = len(influence)
    with np.errstate(invalid="ignore"):  # an infinite energy has no error
        se = float(influence.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Figure(float(value), se)


@dataclasses.dataclass(frozen=True)
class Weighed:
    """Estimates from n rollouts.

    Attributes:
      elbo: mean W, below log Z on average.
      log_z: log mean e^W, consistent; on average below log Z too.
      ess: effective sample size as a share of the rollouts, (sum w)^2 / (n sum w^2).
      path_kl: log_z - elbo, KL(sampler's paths || target's paths) in nats.
      means: of observables under the target, weighted by w.
      plain: of observables under the sampler itself.
      rollouts: n.
    """

    elbo: Figure
    log_z: Figure
    ess: Figure
    path_kl: Figure
    means: dict[str, Figure]
    plain: dict[str, Figure]
    rollouts: int


def weigh(log_w: np.ndarray, observables: Mapping[str, np.ndarray]) -> Weighed:
    """All estimates from W [n] and observables [n], in float64 and log space.

    Raises:
      FloatingPointError: for a W that is no number, or where no rollout has a weight.
    """
    w = np.asarray(log_w, np.float64)
    top = w.max()
    if np.isnan(w).any() or not np.isfinite(top):
        raise FloatingPointError(
            f"{int((~np.isfinite(w)).sum())} of {len(w)} rollouts have a log-weight that is no "
            "number, or none is possible under the target"
        )
    share = np.exp(w - top)
    mean = share.mean()
    share = share / mean
    square = np.mean(share**2)
    log_z = float(top + np.log(mean))
    possible = np.isfinite(w).all()
    elbo = _figure(w.mean(), w) if possible else Figure(-math.inf, math.nan)
    kl_moves = share - w if possible else np.full_like(w, math.nan)
    values = {name: np.asarray(v, np.float64) for name, v in observables.items()}
    kept = share > 0  # an energy is infinite elsewhere
    means, plain = {}, {}
    for name, v in values.items():
        v0 = np.where(kept, v, 0)
        centre = float(np.mean(share * v0))
        means[name] = _figure(centre, share * (v0 - centre))
        plain[name] = _figure(v.mean(), v)
    return Weighed(
        elbo=elbo,
        log_z=_figure(log_z, share),
        ess=_figure(1 / square, (2 * (share - 1) - (share**2 / square - 1)) / square),
        path_kl=_figure(log_z - elbo.value, kl_moves),
        means=means,
        plain=plain,
        rollouts=len(w),
    )
