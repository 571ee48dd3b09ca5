"""The path objective of a masked sampler, and the time grid that is best for it.

Which positions a masked sampler reveals at a call, the grid alone decides: with u_k = (1 -
alpha(t_k)) / (1 - alpha(1)), the share that is masked, call k reveals each masked position with
probability rho_k = 1 - u_{k+1} / u_k. A rate times a factor a step, a schedule of another shape,
a factor times a power (LSD and LSD+, arXiv 2509.19962): for a network that is not told the time
they are all one sequence of u, a grid. With e(n) the mean of -log x_theta at a masked position
where n of L are masked, the nats of a path are

    J(u) = sum_k sum_n Binom(n; L, u_k) n rho_k e(n) = L sum_k (u_k - u_{k+1}) E(u_k),
    E(u) = sum_m Binom(m; L - 1, u) e(m + 1),

the Riemann sum of a rising function from above, so that J falls to L int E = sum_n e(n) with ever
more calls. For exact conditionals that is the entropy, and J less it the KL of the law of paths,
no less than that of samples.

A grid of M steps is its levels [M + 1] here, from 1 down to `end`; what is left at `end`, if
anything, is removed by one more call.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import gammaln


@dataclasses.dataclass(frozen=True)
class MaskLosses:
    """e(n): nats of a masked position by the number n of those masked, n = 1 .. L.

    Args:
      values: [L] nats; NaN where nothing was measured.
      counts: [L] measurements behind each.
    """

    values: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, masked: np.ndarray, loss: np.ndarray, length: int, weight: float | np.ndarray = 1):
        """From measurements of rows.

        Args:
          masked: numbers of masks, any shape.
          loss: mean nats of the masked positions, in the same shape.
          length: the largest number of masks.
          weight: of each measurement, or of all.
        """
        masked, loss = (np.asarray(a, np.float64).ravel() for a in (masked, loss))
        weight = np.broadcast_to(weight, masked.shape) * (masked > 0)
        sums, counts = (
            np.bincount(masked.astype(int), w, length + 1)[1:]
            for w in (np.where(masked > 0, loss, 0) * weight, weight)
        )
        return cls(np.divide(sums, counts, out=np.full(length, np.nan), where=counts > 0), counts)

    def rising(self) -> MaskLosses:
        """The nearest e that never falls, gaps filled in between.

        More masks cannot help an exact network. A noisy e that falls somewhere would have its grid
        jump to there.
        """
        known = self.counts > 0
        fit = isotonic_regression(self.values[known], weights=self.counts[known]).x
        at = np.arange(len(self.values))
        return MaskLosses(np.interp(at, at[known], fit), np.ones(len(at)))

    @property
    def total(self) -> float:
        """Nats of a row whose positions are revealed one by one in random order."""
        return float(self.values.sum())

    def mean(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """E(u) and its derivative, [K] each, for levels u [K]."""
        e, length = self.values, len(self.values)
        slope = np.zeros(len(u))
        if length > 1:
            slope = (length - 1) * _binomial(u, length - 2) @ (e[1:] - e[:-1])
        return _binomial(u, length - 1) @ e, slope


def _binomial(u: np.ndarray, n: int) -> np.ndarray:
    """Probabilities [K, n + 1] of 0 .. n successes with chance u [K]."""
    m = np.arange(n + 1.0)
    ways = gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = ways + _times(m, np.log(u)[:, None]) + _times(n - m, np.log1p(-u)[:, None])
    return np.exp(log)


def _times(power: np.ndarray, log: np.ndarray) -> np.ndarray:
    """Power * log with 0 * -inf = 0."""
    return np.where(power > 0, power * log, 0)


def path_nats(losses: MaskLosses, u: np.ndarray) -> tuple[float, np.ndarray]:
    """J of a grid, the removal of what it leaves included, and its gradient.

    Args:
      losses: e(n), without gaps.
      u: levels [M + 1], from 1 down to `end`.

    Returns:
      Nats a row; dJ/du [M + 1], 0 at both ends, which are not free.
    """
    mean, slope = losses.mean(u)
    width = u - np.append(u[1:], 0.0)
    gradient = np.zeros(len(u))
    gradient[1:-1] = (mean[1:] - mean[:-1] + width[1:] * slope[1:])[:-1]
    length = len(losses.values)
    return length * float(width @ mean), length * gradient


def by_counts(losses: MaskLosses, steps: int) -> tuple[np.ndarray, float]:
    """The best numbers of masks n_0 = L >= .. >= n_M = 0, were each step to reveal n_k - n_{k+1}.

    C_j(n) = min_{n' <= n} (n - n') e(n) + C_{j-1}(n'), in O(M L^2).

    Returns:
      Numbers [M + 1], and their nats a row C_M(L).
    """
    length = len(losses.values)
    e = np.concatenate([[0.0], losses.values])
    n = np.arange(length + 1)
    step = np.where(n <= n[:, None], (n[:, None] - n) * e[:, None], np.inf)  # [from, to]
    cost, chosen = np.where(n == 0, 0.0, np.inf), []
    for _ in range(steps):
        every = step + cost
        chosen.append(every.argmin(1))
        cost = every.min(1)
    path = [length]
    for best in reversed(chosen):
        path.append(int(best[path[-1]]))
    return np.asarray(path), float(cost[length])


def best_levels(losses: MaskLosses, starts: list[np.ndarray]) -> np.ndarray:
    """Levels [M + 1] that minimise J, the best that BFGS finds from several starts.

    The unknowns are the logarithms of the intervals, so that levels fall from 1 to the start's
    `end` whatever is tried.
    """
    found = []
    for start in starts:
        end = float(start[-1])
        width = np.maximum(start[:-1] - start[1:], 1e-6)

        def levels(logits: np.ndarray, end: float = end) -> tuple[np.ndarray, np.ndarray]:
            share = np.exp(logits - logits.max())
            share /= share.sum()
            above = np.cumsum(share[::-1])[::-1]
            return np.append(np.minimum(end + (1 - end) * above, 1), end), share

        def objective(logits: np.ndarray, end: float = end, levels=levels) -> tuple:
            u, share = levels(logits)
            nats, gradient = path_nats(losses, u)
            pull = (1 - end) * np.cumsum(gradient[:-1])  # u_j has the shares i >= j in it
            return nats, share * (pull - share @ pull)

        result = minimize(objective, np.log(width), jac=True, options={"gtol": 1e-8})
        found.append((float(result.fun), levels(result.x)[0]))
    best = min(found, key=lambda pair: pair[0])[1]
    return np.concatenate([[1.0], best[1:]])
