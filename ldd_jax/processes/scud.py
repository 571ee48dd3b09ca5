"""Schedule-conditioned diffusion (SCUD, arXiv 2506.08316): the clock of a position is its events.

A token jumps by a kernel K at the events of a Poisson process, and the network is told how many
there were, so that it has to learn where tokens come from and not when they moved.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.draws import fold, uniforms
from ldd_jax.core.kl import divergence
from ldd_jax.core.registry import component, register
from ldd_jax.core.types import Array
from ldd_jax.processes import counts
from ldd_jax.processes.base import Diffusion, check_rows, log_softmax
from ldd_jax.processes.jumps import Jumps
from ldd_jax.processes.kernels import UniformKernel

MOST_EVENTS = 1 << 16  # of a position
GROUPS = 64  # products of matrices that a prior term is made of


@register("process", "scud")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Scud(Diffusion):
    """z ~ K^S[x], S ~ Poisson(m(t)) for every position; the clock is S [B, L], 0 where kept.

    m(t) = sigma(t) / gap, with sigma of the schedule and gap = 1 - the second largest eigenvalue of
    K: what lasts longest decays as alpha(t), so that with uniform jumps q(z_t | x) is that of
    `Uniform` for every gamma, and with gamma = 1 / V, P(S > 0) is P(mask) of `Masked`. The bound,
    sum_i S_i KL(q(prev | z, x, S) || p(prev | z, S)) dsigma/dt / sigma (`times: events`), is exact
    for the leave-one-out x_theta = p(x^i | z without i, S without i).

    Attributes:
      gamma: probability that an event changes nothing; 0 = all of the clock is known, towards 1
        nothing of it is, and the process is uniform diffusion.
    """

    gamma: float = 0.0
    kernel: Any = component("kernel", UniformKernel)
    by_position = True
    counts_events = True

    def __post_init__(self):
        if not 0 <= self.gamma < 1:
            raise ValueError(f"gamma is {self.gamma}; it must lie in [0, 1)")
        if self.tokens is not None:
            self.check(timed=True)
        if self.tokens is not None and self.tokens.exact:
            found = self.jumps  # refuses what cannot be
            if self.most() > MOST_EVENTS:
                raise ValueError(
                    f"a token has {math.ceil(1 / found.gap)} events until it is forgotten; lower "
                    "gamma (towards 1 it is process uniform), or give the kernel wider jumps"
                )

    @property
    def jumps(self) -> Jumps:
        """Powers of K."""
        return self.kernel.jumps(self.tokens.size, self.gamma)

    @staticmethod
    def token_space_size(vocabulary: int) -> tuple[int, int | None]:
        """States and mask id for a vocabulary: no mask."""
        return vocabulary, None

    def check(self, *, timed: bool) -> None:
        """Refuse a schedule without log alpha(1), or with noise at t = 0.

        Raises:
          ValueError: saying what to do.
        """
        super().check(timed=True)
        with jax.ensure_compile_time_eval():
            begun = float(self.schedule.noise(jnp.zeros(())))
        if begun > 0:
            raise ValueError(
                f"schedule {self.schedule.registered[1]} begins with noise (alpha(0) = "
                f"{1 - begun:.4g}), but process scud with no events; use log_linear or linear_sigma"
            )

    def mean(self, t: Array) -> Array:
        """m(t), expected events of a position."""
        return self.schedule.sigma(t) / self.jumps.gap

    def last(self) -> float:
        """m(1), a number also while a program is traced."""
        with jax.ensure_compile_time_eval():
            return float(self.mean(jnp.ones(())))

    def most(self) -> int:
        """Events that no position exceeds."""
        return counts.ceiling(self.last())

    def conditioning(self, clock: Array) -> Array:
        """3 log(1 + S) by position: sines of it tell few events apart, and many roughly."""
        return 3 * jnp.log1p(clock)

    def clock(self, t_B: Array, length: int) -> Array:
        """Expected events at t: counts themselves are drawn, by `prior` and `corrupt`."""
        return jnp.broadcast_to(self.mean(t_B)[:, None], (t_B.shape[0], length))

    def prior(self, keys_B: Array, length: int) -> tuple[Array, Array]:
        """States of the stationary law, and counts at t = 1."""
        one = jnp.ones(keys_B.shape[0], jnp.result_type(float))
        return self.jumps.rest(keys_B, length), self._count(keys_B, one, length)

    def _count(self, keys_B: Array, t_B: Array, length: int) -> Array:
        u = uniforms(fold(keys_B, 0), (length,))
        return counts.draw(u, self.mean(t_B), self.most())

    def corrupt(self, keys_B: Array, z0: Array, t_B: Array, keep: Array) -> tuple[Array, Array]:
        """S events at each position outside `keep`, and S."""
        count = jnp.where(keep, 0, self._count(keys_B, t_B, z0.shape[1]))
        return self.jumps.jump(keys_B, z0, count), count

    def scored(self, z: Array) -> Array:
        """Every position; those without events add 0."""
        return jnp.ones(z.shape, bool)

    def bound(self, logits_NV: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """S KL(q(prev | z, x, S) || p(prev | z, S)), nats; the factor of t comes from the times."""
        before = jnp.maximum(clock_N - 1, 0)
        law = lambda pred: self.log_posterior(pred, z_N, clock_N, before)
        true = law(self.one_hot_prediction(z0_N, z_N, clock_N))
        return clock_N * divergence(true, law(self.read(logits_NV, z_N, clock_N)))

    def boundary(self, dtype=jnp.float32) -> Array:
        """Prior term E_S KL(K^S[x] || stationary) at t = 1 of the worst x, nats per token.

        The divergence falls with S: where S has many likely values, groups of them count as their
        first.
        """
        mean, most = self.last(), self.most()
        log_p = counts.log_poisson(jnp.asarray([mean], float), most)
        p = np.asarray(jnp.exp(log_p), np.float64)[0]
        first = np.unique(np.append(0, np.linspace(1, most, min(GROUPS, most)).astype(int)))
        weight = np.add.reduceat(p, first)
        return jnp.asarray(weight @ self.jumps.unrest(first), dtype)

    def read(self, logits_NV: Array, z_N: Array, clock_N: Array) -> Array:
        """Log softmax over all states."""
        del z_N, clock_N
        return log_softmax(logits_NV)

    def log_posterior(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """K^(S - s)[., z] sum_a x_theta(a) K^s[a, .], normalised; s None = no event is left.

        Args:
          pred_NV: log x_theta.
          z_N: states.
          t_N: their counts S.
          s_N: counts to go back to, 0 .. S.
        """
        check_rows(pred_NV, z_N, self.tokens.size)
        s_N = jnp.zeros_like(t_N) if s_N is None else s_N
        joint = self.jumps.back(z_N, t_N - s_N) + self.jumps.forward(pred_NV, s_N)
        return joint - jax.nn.logsumexp(joint, axis=-1, keepdims=True)

    def move_probability(self, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """1 where events are undone."""
        moved = t_N > (0 if s_N is None else s_N)
        return jnp.broadcast_to(moved, z_N.shape).astype(t_N.dtype)
