"""A tiny network by blocks and its exact laws by enumeration: V = 3, L = 4, blocks of 2.

Everything is asked of the network by rows that end with the block in question, under a mask
written out in loops: neither doubled rows nor caches have a part in it.
"""

import itertools

import jax.numpy as jnp
import numpy as np

from ldd_jax.core.types import Attend, Cond, TokenSpace
from ldd_jax.denoisers import DiT, Llama
from ldd_jax.processes import Masked
from ldd_jax.schedules import LogLinear
from tests.lab import jit, live_params

V, L, SIZE, MASK = 3, 4, 2, 3
TOKENS = TokenSpace(size=V + 1, mask=MASK)
PROCESS = Masked(tokens=TOKENS, schedule=LogLinear(eps=1e-3))
FIELDS = dict(tokens=TOKENS, width=16, depth=2, heads=2)
MODELS = {
    "dit": DiT(**FIELDS, cond_width=8, latent=False, block=SIZE),
    "llama": Llama(**FIELDS, block=SIZE),
}
ROWS = jnp.asarray(list(itertools.product(range(V), repeat=L)))
SUBSETS = [s for n in (1, 2) for s in itertools.combinations(range(SIZE), n)]


def see(length: int, size: int) -> np.ndarray:
    """Block-causal, by its definition."""
    return np.array([[k // size <= q // size for k in range(length)] for q in range(length)])


def network(name: str):
    """The denoiser with live parameters."""
    return MODELS[name].bind(live_params(MODELS[name], scale=0.1))


def log_laws(denoiser) -> dict[tuple[int, tuple[int, ...]], np.ndarray]:
    """log p(x_i | clean blocks before, the block with a subset of its places masked), [rows, SIZE],
    by (block, subset); one program.
    """

    def one(d, block, hidden):
        end = (block + 1) * SIZE
        z = ROWS[:, :end].at[:, [block * SIZE + i for i in hidden]].set(MASK)
        trunk = d.trunk(z, Cond(attend=Attend("mask", mask=jnp.asarray(see(end, SIZE)))))
        return d.head(trunk.features[:, -SIZE:])

    keys = list(itertools.product(range(L // SIZE), SUBSETS))
    found = jit(lambda d: [one(d, *key) for key in keys])(denoiser)
    out = {}
    for (block, subset), logits in zip(keys, found):
        logits = np.asarray(logits, np.float64)[..., :V]
        logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        own = np.asarray(ROWS)[:, block * SIZE : (block + 1) * SIZE]
        out[block, subset] = np.take_along_axis(logp, own[..., None], -1)[..., 0]
    return out


def share(subset: tuple[int, ...]) -> float:
    """Its probability, 1 / (SIZE C(SIZE, n)), times what each of its n places weighs, SIZE / n."""
    n = len(subset)
    return 1 / (SIZE * sum(len(s) == n for s in SUBSETS)) * SIZE / n


def bound(laws) -> np.ndarray:
    """sum_b E_t sum_i of every row, over subsets of masks."""
    of = lambda block, s: share(s) * laws[block, s][:, list(s)].sum(1)
    return -sum(of(*key) for key in laws)


def log_likelihood(laws) -> np.ndarray:
    """Of the sampler that reveals one place at a time, in random order within a block."""
    total = np.zeros(len(ROWS))
    for block in range(L // SIZE):
        both, first, second = (laws[block, s] for s in ((0, 1), (0,), (1,)))
        total += np.logaddexp(both[:, 0] + second[:, 1], both[:, 1] + first[:, 0]) - np.log(2)
    return total
