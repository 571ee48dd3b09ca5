"""Signal level alpha(t) of the forward process: t = 0 clean, t = 1 noise.

A schedule defines `noise(t) = 1 - alpha(t)`, accurate near t = 0, and everything else follows; its
derivative comes from the same function by automatic differentiation, so the two cannot disagree.
Sources: MDLM (arXiv 2406.07524), MD4 (2406.04329), SEDD (2310.16834), Duo (2506.10892).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array


class Schedule:
    """What all schedules share; `noise` is theirs.

    resolution: the least alpha that can be told from 0. As 1 - noise it is rounding below 2^-22 in
    float32; a schedule that computes it otherwise may go lower.
    """

    resolution: ClassVar[float] = 2.0**-22

    def noise(self, t: Array) -> Array:
        """1 - alpha(t)."""
        raise TypeError(f"{type(self).__name__} defines no noise level")

    def alpha(self, t: Array) -> Array:
        """Signal level alpha(t)."""
        return 1 - self.noise(t)

    def d_alpha(self, t: Array) -> Array:
        """D alpha / dt, negative; elementwise."""
        t = jnp.asarray(t)
        return -jax.jvp(self.noise, (t,), (jnp.ones_like(t),))[1]

    def sigma(self, t: Array) -> Array:
        """Total noise -log alpha(t)."""
        return -jnp.log1p(-self.noise(t))

    def d_sigma(self, t: Array) -> Array:
        """D sigma / dt = -alpha' / alpha."""
        return -self.d_alpha(t) / self.alpha(t)

    def weight(self, t: Array) -> Array:
        """-alpha' / (1 - alpha): the absorbing NELBO weight (MDLM eq. 10)."""
        return -self.d_alpha(t) / self.noise(t)

    def rest(self) -> float:
        """alpha(1), a number also while a program is traced."""
        with jax.ensure_compile_time_eval():
            return float(self.alpha(jnp.ones(())))

    def exhausted(self) -> bool:
        """Whether alpha(1) is 0 to rounding, so that sigma(1) has no value."""
        return not self.rest() > self.resolution

    def inverse(self, noise: Array) -> Array:
        """The t with 1 - alpha(t) = noise, by bisection; schedules are monotone."""
        noise = jnp.asarray(noise)
        low, high = jnp.zeros_like(noise), jnp.ones_like(noise)

        def halve(_: Any, interval: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = interval
            middle = (low + high) / 2
            above = self.noise(middle) > noise
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        low, high = jax.lax.fori_loop(0, 60, halve, (low, high))
        return (low + high) / 2


@register("schedule", "log_linear")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LogLinear(Schedule):
    """alpha = 1 - (1 - eps) t; the absorbing weight is 1 / t exactly (SEDD, MDLM, Duo, LDDM)."""

    eps: float = 1e-3

    def noise(self, t: Array) -> Array:
        """(1 - eps) t."""
        return (1 - self.eps) * t

    def weight(self, t: Array) -> Array:
        """1 / t."""
        return 1 / t

    def inverse(self, noise: Array) -> Array:
        """Noise / (1 - eps)."""
        return noise / (1 - self.eps)


class FromSigma(Schedule):
    """Those that define sigma, so that alpha is accurate at both ends."""

    resolution = 0.0

    def noise(self, t: Array) -> Array:
        """1 - exp(-sigma)."""
        return -jnp.expm1(-self.sigma(t))

    def alpha(self, t: Array) -> Array:
        """exp(-sigma)."""
        return jnp.exp(-self.sigma(t))

    def d_alpha(self, t: Array) -> Array:
        """-alpha d sigma/dt."""
        return -self.alpha(t) * self.d_sigma(t)

    def d_sigma(self, t: Array) -> Array:
        """By differentiation of sigma."""
        t = jnp.asarray(t)
        return jax.jvp(self.sigma, (t,), (jnp.ones_like(t),))[1]


@register("schedule", "linear_sigma")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearSigma(FromSigma):
    """sigma = sigma_min + t (sigma_max - sigma_min) (MDLM's noise file)."""

    sigma_min: float = 0.0
    sigma_max: float = 10.0

    def sigma(self, t: Array) -> Array:
        """The defining line."""
        return self.sigma_min + t * (self.sigma_max - self.sigma_min)


@register("schedule", "geometric")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometric(FromSigma):
    """sigma = sigma_min^(1-t) sigma_max^t (SEDD)."""

    sigma_min: float = 1e-4
    sigma_max: float = 20.0

    def sigma(self, t: Array) -> Array:
        """The defining product."""
        return self.sigma_min ** (1 - t) * self.sigma_max**t

    def d_sigma(self, t: Array) -> Array:
        """Sigma log(sigma_max / sigma_min)."""
        return self.sigma(t) * math.log(self.sigma_max / self.sigma_min)


@register("schedule", "exponential_sigma")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ExponentialSigma(FromSigma):
    """sigma = sigma_max (e^(k t) - 1) / growth, k = log(1 + growth): from 0 on, later geometric.

    Equal times for equal ratios of 1 + growth sigma / sigma_max, as suits data whose noise is felt
    over orders of magnitude: with scud and a slow kernel, growth = its events at t = 1.
    """

    sigma_max: float = 9.21
    growth: float = 100.0

    def __post_init__(self):
        if not (self.growth > 0 and self.sigma_max > 0):
            raise ValueError(
                f"sigma_max is {self.sigma_max} and growth {self.growth}; both must be above 0"
            )

    def sigma(self, t: Array) -> Array:
        """The defining curve."""
        return self.sigma_max * jnp.expm1(t * math.log1p(self.growth)) / self.growth


@register("schedule", "cosine")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """alpha = eps + (1 - eps) cos(pi t / 2) (MDLM's cosine; MD4's is `cosine_md4`)."""

    eps: float = 1e-3

    def noise(self, t: Array) -> Array:
        """(1 - eps) (1 - cos(pi t / 2)), as 2 sin^2 of the half angle."""
        return (1 - self.eps) * 2 * jnp.sin(jnp.pi * t / 4) ** 2


@register("schedule", "cosine_squared")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineSquared(Schedule):
    """alpha = eps + (1 - eps) cos^2(pi t / 2) (MDLM)."""

    eps: float = 1e-3

    def noise(self, t: Array) -> Array:
        """(1 - eps) sin^2(pi t / 2)."""
        return (1 - self.eps) * jnp.sin(jnp.pi * t / 2) ** 2


@register("schedule", "cosine_md4")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineMD4(Schedule):
    """alpha = (1 - 2 eps) (1 - cos(pi/2 (1 - t))) + eps (MD4)."""

    eps: float = 1e-4

    def noise(self, t: Array) -> Array:
        """(1 - 2 eps) sin(pi t / 2) + eps."""
        return (1 - 2 * self.eps) * jnp.sin(jnp.pi * t / 2) + self.eps


@register("schedule", "cosine_duo")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineDuo(Schedule):
    """alpha = 1 - cos(pi/2 r), r = 1 - (1 - eps) t (Duo); alpha(1) = (pi/2 eps)^2 / 2.

    As 2 sin^2(pi/4 r) it holds in float32 where 1 - noise is 0 (eps = 1e-4: alpha(1) = 1.2e-8).
    """

    eps: float = 1e-3
    resolution = 0.0

    def _rest(self, t: Array) -> Array:
        return (1 - t) + self.eps * t

    def noise(self, t: Array) -> Array:
        """sin(pi/2 (1 - eps) t)."""
        return jnp.sin(jnp.pi / 2 * (1 - self.eps) * t)

    def alpha(self, t: Array) -> Array:
        """2 sin^2(pi/4 r)."""
        return 2 * jnp.sin(jnp.pi / 4 * self._rest(t)) ** 2

    def d_alpha(self, t: Array) -> Array:
        """-pi/2 (1 - eps) sin(pi/2 r)."""
        return -jnp.pi / 2 * (1 - self.eps) * jnp.sin(jnp.pi / 2 * self._rest(t))

    def sigma(self, t: Array) -> Array:
        """-log alpha; near t = 0 from the noise, near t = 1 from alpha."""
        alpha = self.alpha(t)
        return jnp.where(alpha < 0.5, -jnp.log(alpha), -jnp.log1p(-jnp.minimum(self.noise(t), 0.9)))


@register("schedule", "polynomial")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Polynomial(Schedule):
    """alpha = (1 - 2 eps) (1 - t^power) + eps; power 1 is MD4's linear schedule."""

    power: float = 1.0
    eps: float = 1e-4

    def noise(self, t: Array) -> Array:
        """(1 - 2 eps) t^power + eps."""
        return (1 - 2 * self.eps) * t**self.power + self.eps


@register("schedule", "angle")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Angle(Schedule):
    """alpha = cos^2 of an angle that grows evenly from `least` noise to `left` signal.

    The cosine schedule of Gaussian diffusion (arXiv 2102.09672), with both ends stated: noise(0) =
    `least` is what the data are blurred with, alpha(1) = `left` what the prior still knows of them.
    """

    least: float = 0.01
    left: float = 1e-4
    resolution = 0.0

    def __post_init__(self):
        if not (0 < self.least < 0.5 and 0 < self.left < 0.5):
            raise ValueError(
                f"least is {self.least} and left {self.left}; both must lie in (0, 0.5)"
            )

    @property
    def _ends(self) -> tuple[float, float]:
        """The angle at t = 0, and how much it grows."""
        begin = math.asin(math.sqrt(self.least))
        return begin, math.acos(math.sqrt(self.left)) - begin

    def _angle(self, t: Array) -> Array:
        begin, span = self._ends
        return begin + span * t

    def noise(self, t: Array) -> Array:
        """sin^2 of the angle."""
        return jnp.sin(self._angle(t)) ** 2

    def alpha(self, t: Array) -> Array:
        """cos^2 of the angle."""
        return jnp.cos(self._angle(t)) ** 2

    def d_alpha(self, t: Array) -> Array:
        """-(growth of the angle) sin of twice the angle."""
        return -self._ends[1] * jnp.sin(2 * self._angle(t))

    def sigma(self, t: Array) -> Array:
        """-2 log cos of the angle."""
        return -2 * jnp.log(jnp.cos(self._angle(t)))


@register("schedule", "bridge")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Bridge(Schedule):
    """alpha = int beta / B, the share tau that a bridge of variance B has gone (RDLM, 2502.11564).

    beta = begin^t end^(1 - t), b0 = `begin` at the noise and bf = `end` at the data; B is its whole
    integral. At t = 0 a share `left` of the way is still ahead: the drift has a pole at tau = 1,
    and what a network gets wrong there costs its bound as 1 / `left`.
    """

    begin: float = 1e-3
    end: float = 0.2
    left: float = 0.1

    def __post_init__(self):
        if not 0 < self.begin < self.end:
            raise ValueError(f"begin is {self.begin} and end {self.end}; 0 < begin < end is needed")
        if not 0 < self.left < 0.5:
            raise ValueError(f"left is {self.left}; it must lie in (0, 0.5)")

    @property
    def total(self) -> float:
        """B, the integral of beta."""
        return (self.end - self.begin) / math.log(self.end / self.begin)

    def alpha(self, t: Array) -> Array:
        """(1 - rest) (r^(1 - t) - 1) / (r - 1), r = end / begin."""
        ratio = self.end / self.begin
        return (1 - self.left) * jnp.expm1((1 - t) * math.log(ratio)) / (ratio - 1)

    def noise(self, t: Array) -> Array:
        """1 - alpha, as rest + (1 - rest) (r - r^(1 - t)) / (r - 1)."""
        ratio = self.end / self.begin
        gone = -jnp.expm1(-t * math.log(ratio)) * ratio / (ratio - 1)
        return self.left + (1 - self.left) * gone
