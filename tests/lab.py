"""Everything about a small law p_0 over V^L by enumeration, and a denoiser that looks it up.

numpy float64 throughout; `digits` order: state s = sum_l z_l size^(L-1-l).
"""

from __future__ import annotations

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldd_jax.core.types import Cond, TokenSpace, Trunk

# Small networks spend their time in the compiler; without optimisation it is much quicker.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def states(size: int, length: int) -> np.ndarray:
    """All sequences, [size^length, length]."""
    return np.array(list(itertools.product(range(size), repeat=length)), np.int32)


def index(z: np.ndarray, size: int):
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

    def total_correlation(self) -> float:
        """KL(p_0 || product of its marginals)."""
        product = np.ones(len(self.x))
        for l in range(self.length):
            marginal = np.bincount(self.x[:, l], self.p, self.vocabulary)
            product *= marginal[self.x[:, l]]
        return float(np.sum(self.p * np.log(self.p / product)))


def log_table(probabilities: np.ndarray) -> np.ndarray:
    """log with -inf where zero, silently."""
    with np.errstate(divide="ignore"):
        return np.log(probabilities)


@struct.dataclass
class TableHead:
    """Row number -> row of the table."""

    table: jax.Array

    def __call__(self, features_ND):
        """Look up [N, V]."""
        return self.table[features_ND[:, 0].astype(jnp.int32)]


@struct.dataclass
class Table:
    """A denoiser that knows logits for every state and position: `table` is [states * L, size]."""

    table: jax.Array
    size: int = struct.field(pytree_node=False)
    carry: bool = struct.field(pytree_node=False, default=False)

    @property
    def head(self):
        """The look-up."""
        return TableHead(self.table)

    def trunk(self, z, cond: Cond, h=None, *, key=None, cache=None):
        """Features are row numbers; the latent, if any, just counts passes."""
        row = index(z, self.size)[:, None] * z.shape[1] + jnp.arange(z.shape[1])[None]
        latent = (0 if h is None else h) + jnp.ones((*z.shape, 1)) if self.carry else None
        return Trunk(features=row[..., None].astype(jnp.result_type(float)), latent=latent)

    def latent(self, batch, length):
        """Zeros, or None."""
        return jnp.zeros((batch, length, 1)) if self.carry else None


def table_denoiser(law: Law, logp: np.ndarray, carry: bool = False) -> Table:
    """From log-probabilities [states z, L, size]; -inf becomes a very negative logit."""
    finite = np.maximum(logp, -1e4)
    return Table(table=jnp.asarray(finite.reshape(-1, law.size)), size=law.size, carry=carry)


def transition(law: Law, process, logp: np.ndarray, t: float, s: float | None) -> np.ndarray:
    """One step's matrix [from z, to z'] from the production posterior of every state."""
    n, length = law.z.shape
    z = jnp.asarray(law.z.reshape(-1))
    spread = lambda a: None if a is None else jnp.full(z.shape, a)
    pred = process.read(jnp.asarray(np.maximum(logp, -1e4).reshape(-1, law.size)), z, spread(t))
    rows = np.exp(np.asarray(process.log_posterior(pred, z, spread(t), spread(s))))
    rows = rows.reshape(n, length, law.size)
    out = np.ones((n, n))
    for l in range(length):
        out *= rows[:, l][:, law.z[:, l]]
    return out


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) of two vectors."""
    on = p > 0
    return float(np.sum(p[on] * (np.log(p[on]) - np.log(q[on]))))


def live_params(model, seed: int = 0, scale: float = 0.3):
    """Parameters with every zero-initialised path opened by noise."""
    params = model.init(jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    noisy = [leaf + jnp.asarray(rng.normal(0, scale, leaf.shape), leaf.dtype) for leaf in leaves]
    return jax.tree.unflatten(tree, noisy)


def subjaxprs(jaxpr):
    """A jaxpr and all those inside it."""
    yield jaxpr
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from subjaxprs(inner)
