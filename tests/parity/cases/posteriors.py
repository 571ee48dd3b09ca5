"""One-step sampling distributions."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldd_jax.processes import Masked, Uniform
from ldd_jax.processes.base import onehot_log
from ldd_jax.samplers.classifier import steer
from ldd_jax.samplers.guidance import GuidedProcess
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.psi import log_psi
from ldd_jax.schedules import LogLinear
from tests.parity.cases.losses import EPS
from tests.parity.cases.scores import score_tables
from tests.parity.golden import Golden, normalise
from tests.parity.runner import kind


@struct.dataclass
class Linear:
    """log_softmax over classes of sum_l W[l, x_l]; soft inputs allowed."""

    weight: jax.Array

    @property
    def table(self):
        """One-hot."""
        return jnp.eye(self.weight.shape[1], dtype=self.weight.dtype)

    def __call__(self, e, clock, label):
        """[B]."""
        logp = jax.nn.log_softmax(jnp.einsum("blv,lvk->bk", e, self.weight))
        return logp[jnp.arange(len(label)), label]


def guided_tables(golden: Golden, masked, uniform, t, s) -> None:
    """Classifier-free and classifier guidance of discrete-diffusion-guidance, as whole laws."""
    number = lambda pattern, name: float(re.search(pattern, name).group(1))
    for kind_, (process, z) in (("mask", masked), ("u", uniform)):
        rows, length, size = z.reshape(-1), z.shape[1], process.tokens.size
        spread = lambda a, n=length: jnp.asarray(np.repeat(a, n))
        shape = (*z.shape, size)

        def law(process, pred, rows=rows, shape=shape, spread=spread):
            out = process.log_posterior(pred, jnp.asarray(rows), spread(t), spread(s))
            return np.exp(np.asarray(out)).reshape(shape)

        for name in [n for n in golden.arrays if n.startswith(f"cfg_{kind_}_g")]:
            both = [np.asarray(golden.given(f"logits_{c}"), np.float64) for c in ("cond", "uncond")]
            guided = GuidedProcess(process, number(r"_g([\d.]+)", name))
            logits = jnp.stack([jnp.asarray(b.reshape(-1, size)) for b in both], axis=1)
            pred = guided.read(logits, jnp.asarray(rows), spread(t))
            golden.check(name, lambda g=guided, p=pred, f=law: f(g, p), 5e-6, prepare=normalise)
        for name, mode in ((f"cbg_{kind_}", "exact"), (f"cbg_{kind_}_approx", "first_order")):
            if name not in golden:
                continue
            meaning = golden.meta["arrays"][name]["meaning"]
            label = jnp.full(len(z), int(number(r"class (\d+)", meaning)))
            classifier = Linear(jnp.asarray(golden.given("classifier_w"), jnp.float64))
            net = steer(
                Net(None, process), classifier, label, mode=mode, whole=True,
                gamma=number(r"weight ([\d.]+)", meaning),
            )  # fmt: skip
            free = np.asarray(
                golden.given("logits_uncond"), np.float64
            )  # the network is told no class
            logits = jnp.asarray(free.reshape(-1, size))
            beside = net.beside(jnp.asarray(z), jnp.asarray(t))
            pred = net.predict(logits, jnp.asarray(rows), spread(t), beside)
            golden.check(
                name, lambda n=net, p=pred, f=law: f(n.process, p), 5e-6, prepare=normalise
            )


@kind("posteriors")
def posteriors(golden: Golden) -> None:
    """Ancestral tables of MDLM and UDLM, in float64 and the noise-removal step."""
    with jax.enable_x64(True):
        _posteriors(golden)


def _posteriors(golden: Golden) -> None:
    schedule = LogLinear(eps=golden.number(EPS, ["eps"], golden.meta.get("about", ""), 1e-3))
    masked = Masked(schedule=schedule, tokens=golden.tokens())
    uniform = Uniform(schedule=schedule, tokens=golden.tokens(masked=False))
    logits = np.asarray(golden.given("logits"), np.float64)
    z_m, z_u, x0 = (golden.given(n) for n in ("x_mask", "x_u", "x0"))
    t = np.asarray(golden.given("t"), np.float64).reshape(-1)
    s = t - float(golden.given("dt"))
    hidden = z_m == masked.tokens.mask
    size = logits.shape[-1]
    spread = lambda a: jnp.asarray(np.repeat(a, z_m.shape[1]))

    def table(process, z, s, prediction=None):
        z = jnp.asarray(z.reshape(-1))
        rows = jnp.asarray(logits.reshape(-1, size))
        pred = process.read(rows, z, spread(t)) if prediction is None else prediction
        out = process.log_posterior(pred, z, spread(t), None if s is None else spread(s))
        return np.exp(np.asarray(out)).reshape(logits.shape)

    # The references form their log-softmax in float32: 1e-6, though the tables are float64.
    at = dict(prepare=normalise, where=hidden)
    golden.check("mdlm_q", lambda: table(masked, z_m, s), 2e-6, **at)
    golden.check("mdlm_q_final", lambda: table(masked, z_m, None), 2e-6, **at)
    golden.check("mdlm_q_mdlmrepo", lambda: table(masked, z_m, s), 2e-6, **at)
    golden.check("mdlm_posterior", lambda: table(masked, z_m, s), 2e-6)
    caching = Masked(schedule=LogLinear(eps=0.0), tokens=masked.tokens)
    golden.check("mdlm_q_cache", lambda: table(caching, z_m, s), 2e-6, **at)
    golden.check("udlm_posterior", lambda: table(uniform, z_u, s), 2e-6)
    golden.check("udlm_posterior_final", lambda: table(uniform, z_u, None), 2e-6)
    true = onehot_log(jnp.asarray(x0.reshape(-1)), size, jnp.float64)
    golden.check("udlm_posterior_true", lambda: table(uniform, z_u, s, true), 1e-6)
    for name in [n for n in golden.arrays if re.fullmatch(r"psi_[mu]dlm_k[\d.]+", n)]:
        process, z = (masked, z_m) if name.startswith("psi_m") else (uniform, z_u)
        kappa = float(name.rpartition("_k")[2])

        def mixed(process=process, tokens=z, kappa=kappa):
            z = jnp.asarray(tokens.reshape(-1))
            pred = process.read(jnp.asarray(logits.reshape(-1, size)), z, spread(t))
            law = log_psi(process, pred, z, spread(t), spread(s), kappa)
            return np.exp(np.asarray(law)).reshape(logits.shape)

        golden.check(name, mixed, 2e-6, prepare=normalise)
    score_tables(golden, schedule)
    guided_tables(golden, (masked, z_m), (uniform, z_u), t, s)
