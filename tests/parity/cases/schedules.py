"""Schedules, times of a batch, read-out filters, time features."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.denoisers.layers import FREQUENCIES, time_features
from ldd_jax.objectives.strata import stratify
from ldd_jax.objectives.times import ImportanceTimes, UniformTimes
from ldd_jax.samplers.logits import keep_top_k, keep_top_p
from ldd_jax.schedules import CosineDuo, Geometric, LogLinear
from tests.parity.golden import Golden
from tests.parity.runner import kind

ROUND = 1e-12


@kind("schedules")
def schedules(golden: Golden) -> None:
    """All of the file but sinusoidal widths that the network has no use for."""
    with jax.enable_x64(True):
        _levels(golden)
    _times(golden)
    _filters(golden)
    for name in [n for n in golden.arrays if re.fullmatch(r"emb_\d+", n)]:
        if int(name[4:]) == FREQUENCIES:
            sigma = jnp.asarray(golden.given("emb_in"))
            golden.check(name, lambda s=sigma: time_features(s), 5e-6)
        else:
            golden.gap(name, f"our features are {FREQUENCIES} wide", inputs="emb_in")


def _levels(golden: Golden) -> None:
    t = jnp.asarray(golden.given("t"), jnp.float64)
    eps = golden.number(
        [r"\(1 - (\d[\d.e-]*)\) t"], ["eps"], golden.meaning("loglinear_alpha"), 1e-3
    )
    linear, cosine = LogLinear(eps=eps), CosineDuo(eps=eps)
    numbers = re.search(r"with (\S+?), (\S+)", golden.meaning("geometric_sigma"))
    low, high = map(float, numbers.groups()) if numbers else (1e-4, 20.0)
    geometric = Geometric(sigma_min=low, sigma_max=high)
    golden.check("loglinear_alpha", lambda: linear.alpha(t), ROUND)
    golden.check("loglinear_dalpha", lambda: linear.d_alpha(t), ROUND)
    golden.check("loglinear_sigma", lambda: linear.sigma(t), ROUND)
    golden.check("loglinear_dsigma", lambda: linear.d_sigma(t), ROUND)
    golden.check("cosine_alpha", lambda: cosine.alpha(t), ROUND)
    # Recorded without the inner factor 1 - eps.
    golden.check("cosine_dalpha", lambda: cosine.d_alpha(t) / (1 - eps), ROUND)
    # The reference holds sigma_min in float32.
    golden.check("geometric_sigma", lambda: geometric.sigma(t), 5e-8, each=True)
    golden.check("geometric_dsigma", lambda: geometric.d_sigma(t), 5e-8, each=True)
    if "mdlm_importance_t" in golden:
        sigmas = np.asarray(golden.given("mdlm_sigma_min_max"), np.float64)
        start = float(linear.inverse(-np.expm1(-sigmas[0])))
        golden.enter("mdlm_sigma_min_max", abs(float(linear.sigma(1.0)) - sigmas[1]), 1e-4)
        golden.check("mdlm_importance_t", lambda: ImportanceTimes(eps=start)(t, linear)[0], 2e-5)


def _times(golden: Golden) -> None:
    for name in ("antithetic", "iid"):
        if f"t_{name}" not in golden:
            continue
        u = jnp.asarray(golden.given(f"u_{name}"))
        text = golden.meaning(f"t_{name}")
        eps = golden.number([r"sampling_eps (\d[\d.e-]*)"], ["sampling_eps"], text, 1e-3)
        n = u.shape[0]
        place = stratify(u / n, jnp.arange(n), n) if name == "antithetic" else u
        golden.check(
            f"t_{name}",
            lambda v=place, e=eps: UniformTimes(eps=e)(1 - v, LogLinear())[0],
            1e-6,
        )


def _filters(golden: Golden) -> None:
    if "topp_logits" not in golden:
        return
    logp = jax.nn.log_softmax(jnp.asarray(golden.given("topp_logits")))
    for name in golden.arrays:
        value = name.rpartition("_")[2]
        if name.startswith("topp_keep_"):
            golden.check(name, lambda p=float(value): keep_top_p(logp, p), 0.0)
        elif name.startswith("topk_keep_"):
            golden.check(name, lambda k=int(value): keep_top_k(logp, k), 0.0)
