"""A denoiser that looks an enumerated law up in a table, and a step's matrix from it."""

from __future__ import annotations

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldd_jax.core.types import Cond, Trunk
from ldd_jax.oracle.laws import Law, index, kl, states

__all__ = ["Law", "index", "kl", "states"]

# Small networks spend their time in the compiler; without optimisation it is much quicker.
jit = partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


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

    timed = False

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


def first_params(model, key=None):
    """`model.init` as one program: one by one its operations are compiled for many seconds.

    Those of equal models are made once. Not to be donated.
    """
    key = jax.random.key(0) if key is None else key
    return _first_params(model, tuple(jax.random.key_data(key).tolist()), jax.config.jax_enable_x64)


@lru_cache(maxsize=64)
def _first_params(model, bits, x64):
    return jit(model.init)(jax.random.wrap_key_data(jnp.asarray(bits, jnp.uint32)))


def live_params(model, seed: int = 0, scale: float = 0.3):
    """Parameters with every zero-initialised path opened by noise."""
    params = first_params(model, jax.random.key(seed))
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
