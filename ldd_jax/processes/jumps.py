"""Powers of the kernel of one event: closed for uniform jumps, by repeated squares for a matrix.

Rows of K are laws of the next state: K[a, b] = P(b | a). Nothing here subtracts probabilities of
like size, so that zeros of K^n are zeros and small entries keep their digits.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.draws import fold, integers, uniforms
from ldd_jax.core.types import Array
from ldd_jax.processes.base import onehot_log

WORST = 1e-7  # of 1 - |eigenvalue|: below, K^n never comes to rest


class Jumps(Protocol):
    """What a process of counted events asks of a kernel with its gamma."""

    size: int
    gap: float  # 1 - the second largest eigenvalue of K

    def forward(self, logp_NV: Array, n_N: Array) -> Array:
        """Log sum_a p(a) K^n[a, .], [N, V]."""
        ...

    def back(self, z_N: Array, n_N: Array) -> Array:
        """Log K^n[., z], [N, V]."""
        ...

    def rest(self, keys_B: Array, length: int) -> Array:
        """States [B, L] of the stationary law."""
        ...

    def jump(self, keys_B: Array, x_BL: Array, n_BL: Array) -> Array:
        """States after n events from x, [B, L].

        Args:
          keys_B: a PRNG key per example.
          x_BL: states.
          n_BL: events of each position.
        """
        ...

    def unrest(self, counts: np.ndarray) -> np.ndarray:
        """max_x KL(K^n[x] || stationary) at each count, nats."""
        ...


def log_other(logp_NV: Array) -> Array:
    """Log(1 - p), with all digits also where p is near 1."""
    size = logp_NV.shape[-1]
    top = jnp.arange(size) == jnp.argmax(logp_NV, -1)[:, None]
    rest = jax.nn.logsumexp(jnp.where(top, -jnp.inf, logp_NV), axis=-1, keepdims=True)
    return jnp.where(top, rest, jnp.log1p(-jnp.exp(jnp.where(top, -jnp.inf, logp_NV))))


class UniformJumps:
    """K = c I + (1 - c) / V, c = 1 - (1 - gamma) V / (V - 1): to another state with 1 - gamma.

    c is negative for gamma < 1 / V, so that c^n = sign(c)^n |c|^n.
    """

    def __init__(self, size: int, gamma: float):
        if size < 2:
            raise ValueError("events need at least 2 states")
        self.size, self.gamma = size, gamma
        self.gap = (1 - gamma) * size / (size - 1)  # 1 - c
        if 1 - abs(1 - self.gap) < WORST:
            raise ValueError(_NO_REST)

    def _levels(self, n: Array) -> tuple[Array, Array]:
        """K^n on and off the diagonal, without differences of like numbers."""
        size, c = self.size, 1 - self.gap
        scaled = self.gamma * size - 1  # (V - 1) c
        log_c = math.log(abs(c)) if c else -math.inf
        before = jnp.maximum(n - 1, 0)
        odd = jnp.mod(before, 2) == 1
        magnitude = jnp.exp(jnp.where(before > 0, before, 1) * log_c)
        signed = jnp.where(odd, -magnitude, magnitude) if c < 0 else magnitude
        power = jnp.where(before > 0, signed, 1)  # c^(n - 1); 0^0 = 1
        same = jnp.where(n == 1, self.gamma, (1 + scaled * power) / size)
        moved = -jnp.expm1(n * log_c) if c > 0 else 1 - c * power
        return jnp.where(n == 0, 1, same), jnp.where(n == 0, 0, moved / size)

    def forward(self, logp_NV: Array, n_N: Array) -> Array:
        """Log(same p + other (1 - p)): both terms are positive whatever the sign of c."""
        same, other = (jnp.log(a)[:, None] for a in self._levels(n_N))
        return jnp.logaddexp(same + logp_NV, other + log_other(logp_NV))

    def back(self, z_N: Array, n_N: Array) -> Array:
        """K^n is symmetric."""
        same, other = (jnp.log(a)[:, None] for a in self._levels(n_N))
        return jnp.where(jnp.arange(self.size) == z_N[:, None], same, other)

    def rest(self, keys_B: Array, length: int) -> Array:
        """Uniform."""
        return integers(fold(keys_B, 1), (length,), self.size)

    def jump(self, keys_B: Array, x_BL: Array, n_BL: Array) -> Array:
        """Stay with K^n[x, x], or any other state."""
        shape = x_BL.shape[1:]
        stays = uniforms(fold(keys_B, 2), shape) < self._levels(n_BL)[0]
        step = 1 + integers(fold(keys_B, 3), shape, self.size - 1)
        return jnp.where(stays, x_BL, jnp.mod(x_BL + step, self.size))

    def unrest(self, counts: np.ndarray) -> np.ndarray:
        """The same for every x."""
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            same, other = (np.asarray(a) for a in self._levels(jnp.asarray(counts, float)))
        return _plogp(same, 1 / self.size) + (self.size - 1) * _plogp(other, 1 / self.size)


def _plogp(p: np.ndarray, q: Any) -> np.ndarray:
    """P log(p / q), 0 at p = 0."""
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0)


_NO_REST = (
    "the states fall into parts that events never join, or that they visit in turn, so that no "
    "number of events forgets the data; add edges, or raise gamma"
)


class MatrixJumps:
    """K = I + (1 - gamma) L / max_a(-L_aa) for rates W, L = W - diag(its row sums).

    A row of K^n for any n takes a product with K^(2^j) for every bit of n: log2(most events)
    matrices are kept, not one for every n, and products of non-negative numbers keep true zeros and
    the relative size of what is small, which an eigendecomposition does not.
    """

    def __init__(self, rates: np.ndarray, gamma: float):
        rates = np.array(rates, np.float64)
        np.fill_diagonal(rates, 0)
        self.size = len(rates)
        out = rates.sum(1)
        if self.size < 2 or not (out > 0).all():
            raise ValueError("every state of the kernel needs another one to go to")
        self.one = (1 - gamma) * rates / out.max()
        np.fill_diagonal(self.one, 1 - (1 - gamma) * out / out.max())
        symmetric = bool(np.allclose(rates, rates.T, rtol=1e-12, atol=0))
        value = np.linalg.eigvalsh(self.one) if symmetric else np.linalg.eigvals(self.one)
        value = np.delete(value, np.argmax(value.real))
        self.gap = float(1 - value.real.max())
        if 1 - np.abs(value).max() < WORST:
            raise ValueError(_NO_REST)
        self.law = np.full(self.size, 1 / self.size) if symmetric else _stationary(self.one)
        self._kept: dict[int, np.ndarray] = {}

    def power(self, j: int) -> np.ndarray:
        """K^(2^j), float64."""
        if j == 0:
            return self.one
        if j not in self._kept:
            half = self.power(j - 1)
            self._kept[j] = half @ half
        return self._kept[j]

    @cached_property
    def bits(self) -> int:
        """Squares until K^n is the stationary law to rounding: more events change nothing."""
        j = 0
        while np.abs(self.power(j) / self.law - 1).max() > 1e-13 and j < 40:
            j += 1
        return j + 1

    def _squares(self) -> np.ndarray:
        return np.stack([self.power(j) for j in range(self.bits)])

    def _bits(self, n: Array) -> Array:
        """Of n, which may not exceed 2^bits - 1; [bits, ...]."""
        most = 2**self.bits - 1
        whole = jnp.minimum(n, most).astype(jnp.int32)
        return jnp.stack([(whole >> j) & 1 == 1 for j in range(self.bits)])

    def _walk(self, p_NV: Array, n_N: Array, squares: np.ndarray) -> Array:
        """Rows times the matrix of their own power."""

        def one(p, item):
            matrix, bit = item
            moved = jnp.matmul(p, matrix, precision=jax.lax.Precision.HIGHEST)
            return jnp.where(bit[:, None], moved, p), None

        tables = jnp.asarray(squares, p_NV.dtype)
        return jax.lax.scan(one, p_NV, (tables, self._bits(n_N)))[0]

    def forward(self, logp_NV: Array, n_N: Array) -> Array:
        """By products; a probability that is not 0 is taken for at least 1e7 of the least float."""
        least = float(np.log(jnp.finfo(logp_NV.dtype).tiny)) + 16
        p = jnp.exp(jnp.where(logp_NV == -jnp.inf, -jnp.inf, jnp.maximum(logp_NV, least)))
        return jnp.where(n_N[:, None] == 0, logp_NV, _log(self._walk(p, n_N, self._squares())))

    def back(self, z_N: Array, n_N: Array) -> Array:
        """The row of z in the transposed power."""
        one = jnp.exp(onehot_log(z_N, self.size, n_N.dtype))
        return _log(self._walk(one, n_N, self._squares().swapaxes(1, 2)))

    def rest(self, keys_B: Array, length: int) -> Array:
        """By inversion of the stationary law."""
        u = uniforms(fold(keys_B, 1), (length,))
        table = jnp.asarray(_cumulative(self.law[None]), u.dtype)
        return _inverse(table, jnp.zeros(u.shape, jnp.int32), u)

    def jump(self, keys_B: Array, x_BL: Array, n_BL: Array) -> Array:
        """One draw for every bit of n: no row of V numbers is made for a position."""
        bits = self._bits(n_BL)
        tables = np.stack([_cumulative(square) for square in self._squares()])
        x = x_BL
        for j, table in enumerate(tables):  # log2 of the most events
            u = uniforms(fold(keys_B, 2 + j), x.shape[1:])
            x = jnp.where(bits[j], _inverse(jnp.asarray(table, u.dtype), x, u), x)
        return x.astype(x_BL.dtype)

    def unrest(self, counts: np.ndarray) -> np.ndarray:
        """The largest over x, by products from count to count."""
        out, at, row = [], 0, np.eye(self.size)
        for n in counts:
            row, at = row @ np.linalg.matrix_power(self.one, int(n) - at), int(n)
            out.append(_plogp(row, self.law).sum(1).max())
        return np.array(out)


def _log(p: Array) -> Array:
    """Log p, -inf at 0, where it has no gradient."""
    return jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1)), -jnp.inf)


def _stationary(kernel: np.ndarray) -> np.ndarray:
    """The law with law K = law."""
    size = len(kernel)
    system = np.vstack([kernel.T - np.eye(size), np.ones(size)])
    law = np.linalg.lstsq(system, np.append(np.zeros(size), 1), rcond=None)[0]
    if not (law > 1e-12).all():
        raise ValueError("some states of the kernel are left for good; add edges back to them")
    return law / law.sum()


def _cumulative(rows: np.ndarray) -> np.ndarray:
    """Sums along rows; 1 from the last state that is possible on."""
    total = np.cumsum(rows, axis=1)
    possible = np.flip(np.cumsum(np.flip(rows, 1), axis=1), 1)
    last = np.concatenate([possible[:, 1:], np.zeros((len(rows), 1))], axis=1) == 0
    return np.where(last, 1, total / total[:, -1:])


def _inverse(table: Array, x: Array, u: Array) -> Array:
    """The least b with u < table[x, b], by bisection, elementwise."""
    size = table.shape[1]
    low, high = jnp.zeros(u.shape, jnp.int32), jnp.full(u.shape, size - 1, jnp.int32)

    def halve(_, interval):
        low, high = interval
        middle = (low + high) // 2
        left = u < table[x, middle]
        return jnp.where(left, low, middle + 1), jnp.where(left, middle, high)

    return jax.lax.fori_loop(0, max(size - 1, 1).bit_length(), halve, (low, high))[0]
