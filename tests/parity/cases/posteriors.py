"""One-step sampling distributions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.processes import Masked, Uniform
from ldd_jax.processes.base import onehot_log
from ldd_jax.schedules import LogLinear
from tests.parity.cases.losses import EPS
from tests.parity.cases.scores import score_tables
from tests.parity.golden import Golden, normalise
from tests.parity.runner import kind


@kind("posteriors")
def posteriors(golden: Golden) -> None:
    """Ancestral tables of MDLM and UDLM, in float64 and the noise-removal step."""
    with jax.enable_x64(True):
        _posteriors(golden)
    golden.gap("psi_.*", "Duo's psi-sampler is not built yet")
    golden.gap(
        "cfg_.*|cbg_.*",
        "guidance is not built yet",
        inputs="logits_cond|logits_uncond|classifier_w",
    )


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
    score_tables(golden, schedule)
