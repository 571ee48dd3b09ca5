"""Small laws p_0 over V^L, everything about them by enumeration, and the denoiser that knows them.

numpy float64; state number s = sum_l z_l size^(L-1-l).
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldd_jax.core.types import Array, Cond, TokenSpace, Trunk


def states(size: int, length: int) -> np.ndarray:
    """All sequences, [size^length, length]."""
    return np.array(list(itertools.product(range(size), repeat=length)), np.int32)


def index(z: Any, size: int) -> Any:
    """Row number of sequences [..., L]; works on jax and numpy arrays."""
    out = 0
    for position in range(z.shape[-1]):
        out = out * size + z[..., position]
    return out


class Law:
    """p_0 ~ Dirichlet(concentration) over V^L; the mask, if any, is an extra last state."""

    def __init__(self, seed: int, vocabulary: int, length: int, concentration=1.0, masked=True):
        rng = np.random.default_rng(seed)
        self.vocabulary, self.length = vocabulary, length
        self.size = vocabulary + masked
        self.tokens = TokenSpace(size=self.size, mask=vocabulary if masked else None)
        self.x = states(vocabulary, length)
        self.p = rng.dirichlet(np.full(len(self.x), concentration))
        self.z = states(self.size, length)

    def likelihood(self, alpha: float) -> np.ndarray:
        """q(z_l | x_l) as [size, vocabulary]."""
        if self.tokens.mask is None:
            return alpha * np.eye(self.size) + (1 - alpha) / self.size
        out = np.zeros((self.size, self.vocabulary))
        out[:-1] = alpha * np.eye(self.vocabulary)
        out[-1] = 1 - alpha
        return out

    def forward(self, alpha: float) -> np.ndarray:
        """q(z | x), [states z, states x]."""
        q = self.likelihood(alpha)
        out = np.ones((len(self.z), len(self.x)))
        for l in range(self.length):
            out *= q[self.z[:, None, l], self.x[None, :, l]]
        return out

    def conditionals(self, alpha: float, leave_one_out: bool) -> np.ndarray:
        """p(x_l = v | z), or given z without z_l: [states z, L, size]."""
        q = self.likelihood(alpha)
        out = np.zeros((len(self.z), self.length, self.size))
        for l in range(self.length):
            w = np.tile(self.p, (len(self.z), 1))
            for k in range(self.length):
                if k != l or not leave_one_out:
                    w *= q[self.z[:, None, k], self.x[None, :, k]]
            for v in range(self.vocabulary):
                out[:, l, v] = w[:, self.x[:, l] == v].sum(1)
        total = out.sum(-1, keepdims=True)
        return np.divide(out, total, out=np.full_like(out, 1 / self.size), where=total > 0)

    def marginal(self, alpha: float) -> np.ndarray:
        """q(z) at signal level alpha, [states z]."""
        return self.forward(alpha) @ self.p

    def total_correlation(self) -> float:
        """KL(p_0 || product of its marginals)."""
        product = np.ones(len(self.x))
        for l in range(self.length):
            marginal = np.bincount(self.x[:, l], self.p, self.vocabulary)
            product *= marginal[self.x[:, l]]
        return float(np.sum(self.p * np.log(self.p / product)))


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) of two vectors, nats; inf where q misses p."""
    on = p > 0
    with np.errstate(divide="ignore"):
        return float(np.sum(p[on] * (np.log(p[on]) - np.log(q[on])) - p[on] + q[on]) + q[~on].sum())


@struct.dataclass
class Identity:
    """Features are logits."""

    def __call__(self, features_ND: Array) -> Array:
        """Unchanged."""
        return features_ND


@struct.dataclass
class Exact:
    """The ideal denoiser of a law: p(x_l | z without z_l) from the clock sigma = -log alpha.

    With a mask it is the conditional given the visible tokens, whatever the time. Without one it is
    the leave-one-out posterior, for which the plug-in posterior of uniform diffusion is exact. The
    features are the log-probabilities. It takes no latent.
    """

    p: Array
    x: Array
    size: int = struct.field(pytree_node=False)
    masked: bool = struct.field(pytree_node=False)

    @classmethod
    def of(cls, law: Law) -> Any:
        """For an enumerated law."""
        return cls(jnp.asarray(law.p), jnp.asarray(law.x), law.size, law.tokens.mask is not None)

    @property
    def head(self) -> Identity:
        """Nothing left to project."""
        return Identity()

    @property
    def hollow(self) -> bool:
        """Its own token is left out everywhere."""
        return True

    @property
    def timed(self) -> bool:
        """Visible tokens do not age; uniform noise does."""
        return not self.masked

    def trunk(
        self, z_BL: Any, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """Log-posteriors [B, L, size], -1e4 for zero."""
        del key, cache
        same = z_BL[:, None, :] == self.x[None]
        if self.masked:
            likelihood = (same | (z_BL == self.size - 1)[:, None, :]).astype(self.p.dtype)
        else:
            assert cond.clock is not None
            alpha = jnp.exp(-cond.clock)[:, None, None].astype(self.p.dtype)
            likelihood = jnp.where(same, alpha, 0) + (1 - alpha) / self.size
        length = z_BL.shape[1]
        rows = []
        for l in range(length):
            others = jnp.prod(jnp.delete(likelihood, l, axis=2), axis=2) * self.p
            rows.append(others @ jax.nn.one_hot(self.x[:, l], self.size, dtype=self.p.dtype))
        weight = jnp.stack(rows, axis=1)
        total = jnp.sum(weight, -1, keepdims=True)
        p = jnp.where(total > 0, weight / jnp.where(total > 0, total, 1), 1 / self.size)
        return Trunk(features=jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1)), -1e4), latent=h)

    def latent(self, batch: int, length: int) -> None:
        """None."""
