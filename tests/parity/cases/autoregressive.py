"""The causal network, its likelihood and its sampler."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.draws import Replay
from ldd_jax.core.types import Cond
from ldd_jax.processes import LeftToRight
from ldd_jax.samplers import NextToken, sample
from ldd_jax.samplers.net import Net
from tests.parity.cases.networks import NETWORK, network
from tests.parity.golden import Golden
from tests.parity.runner import kind

NOT_CAUSAL = ("sigma_map.", ".adaLN_modulation.")


@kind("dit_ar")
def causal(golden: Golden) -> None:
    """Logits, next-token losses, and a whole sample replayed from its Gumbel noise."""
    tensors = {k: v for k, v in golden.weights().items() if not any(n in k for n in NOT_CAUSAL)}
    choices = dict(causal=True, time_conditioning=False)
    _, denoiser = network(golden, tensors, **choices)
    process = LeftToRight(tokens=golden.tokens())
    x = golden.given("x")
    logits = jax.jit(lambda z: denoiser.head(denoiser.trunk(z, Cond()).features))(x)
    golden.check("logits", lambda: logits, NETWORK)

    def nll():
        rows = logits[:, :-1].reshape(-1, logits.shape[-1])
        return process.bound(rows, x[:, 1:].reshape(-1)).reshape(x.shape[0], -1)

    golden.check("nll", nll, NETWORK)
    if "gumbel" in golden:
        golden.check("ar_sample", lambda: generate(denoiser, process, golden), 0.0)


def generate(denoiser, process: LeftToRight, golden: Golden) -> np.ndarray:
    """The production sampler, the first token of every row in the place of the start state.

    A Gumbel race g over log p is the exponential race of u = exp(-exp(-g)) over p.
    """
    first = golden.arrays["ar_sample"][:, 0]
    gumbel = np.asarray(golden.given("gumbel"), np.float64)
    u = np.exp(-np.exp(-gumbel)).swapaxes(0, 1)[:, :, None]
    trunk = denoiser.params["trunk"]
    table = trunk["embed"]["table"]
    rows = []
    for b, token in enumerate(first):  # the start state is one for all rows of a batch
        started = table.at[process.tokens.mask].set(table[token])
        params = denoiser.params | {"trunk": trunk | {"embed": {"table": started}}}
        draw = Replay(table=jnp.asarray(u[None, :, b : b + 1], jnp.float32))
        prior = process.prior(jnp.zeros(1), gumbel.shape[1])
        net = Net(denoiser.replace(params=params), process)
        rows.append(np.concatenate([[token], sample(net, NextToken(), draw, prior, 1)[0].z[0]]))
    return np.stack(rows)
