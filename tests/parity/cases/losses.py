"""Per-token losses on given logits."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.vocabulary_tiles import rows_loss
from ldd_jax.objectives.times import GridTimes, ImportanceTimes
from ldd_jax.processes import LeftToRight, Masked, MaskedMean, Uniform
from ldd_jax.schedules import LogLinear
from tests.parity.cases.scores import score_losses
from tests.parity.golden import Golden, finite_logs
from tests.parity.runner import kind

EPS = [r"eps\s*=?\s*(\d[\d.e-]*\d|\d)"]
LOSS32, LOSS64 = 1e-4, 1e-9


def flat(*arrays):
    """[B, L, ...] to [B * L, ...]."""
    return [jnp.asarray(a).reshape(-1, *a.shape[2:]) for a in arrays]


def bound(process, logits, x0, z, t):
    """The production bound of every token, [B, L]."""
    t = np.broadcast_to(t.reshape(-1, 1), z.shape)
    return np.asarray(process.bound(*flat(logits, x0, z, t))).reshape(z.shape)


@kind("losses")
def losses(golden: Golden) -> None:
    """MDLM and UDLM in float32 and float64, score entropy, finite T, next token."""
    schedule = LogLinear(eps=golden.number(EPS, ["eps"], golden.meta.get("about", ""), 1e-3))
    masked = Masked(schedule=schedule, tokens=golden.tokens())
    uniform = Uniform(schedule=schedule, tokens=golden.tokens(masked=False))
    logits, x0, t = (golden.given(n) for n in ("logits", "x0", "t"))
    z = golden.given("xt_mask")
    double = lambda a: np.asarray(a, np.float64)
    golden.check("alpha", lambda: schedule.alpha(t), 1e-6)

    def log_clean():
        n = np.broadcast_to(t[:, None], z.shape)
        return masked.read(*flat(logits, z, n)).reshape(logits.shape)

    golden.check("mdlm_logp", log_clean, 2e-5, prepare=finite_logs, relative=False)
    mdlm = lambda: bound(masked, logits, x0, z, t)
    golden.check("mdlm_loss", mdlm, LOSS32, each=True)
    golden.check("mdlm_loss_mdlmrepo", mdlm, LOSS32, each=True)
    with jax.enable_x64(True):
        exact = lambda: bound(masked, double(logits), x0, z, double(t))
        golden.check("mdlm_loss_f64", exact, LOSS64, each=True)

        def importance():
            # The reference's weight leaves out log noise(1), which ImportanceTimes has.
            start = schedule.inverse(-jnp.expm1(-jnp.asarray(schedule.eps)))
            u = jnp.full(1, 0.3)
            at, factor = ImportanceTimes(eps=float(start))(u, schedule)
            weight = (factor * schedule.weight(at) - jnp.log(schedule.noise(1.0)))[0]
            return exact() * double(t)[:, None] * weight

        golden.check("mdlm_loss_cov", importance, LOSS32, each=True)
        if "valid" in golden:
            valid = double(golden.given("valid"))

            def reduced():
                n = np.broadcast_to(double(t)[:, None], z.shape)
                features, x, zz, tt, weight = flat(double(logits), x0, z, n, valid / valid.sum())
                head = lambda a: a
                fn = lambda a, args: masked.bound(a, *args)
                return rows_loss(fn, head, features, (x, zz, tt), weight)[0]

            golden.check("mdlm_loss_reduced", reduced, LOSS32, each=True)
        if "xt_u" in golden:
            x0_u, z_u = golden.given("x0_u"), golden.given("xt_u")
            udlm64 = lambda: bound(uniform, double(logits), x0_u, z_u, double(t))
            golden.check("udlm_loss_f64", udlm64, LOSS64, each=True)
    if "xt_u" in golden:
        # The float32 array is off by 0.3 at t = 1e-3; the float64 one is the truth.
        truth = golden.arrays.get("udlm_loss_f64")
        rows = None if truth is not None else t > 0.01
        udlm = lambda: bound(uniform, logits, x0_u, z_u, t)
        golden.check("udlm_loss", udlm, LOSS32, reference=truth, where=rows, each=True)
    if "t_ddg" in golden:
        t_ddg = golden.given("t_ddg")
        plain = Uniform(schedule=LogLinear(eps=0.0), tokens=uniform.tokens)
        ddg = lambda: bound(plain, logits, x0_u, z_u, t_ddg)
        golden.check("udlm_ddg_diffusion", ddg, LOSS32, where=t_ddg > 0.01, each=True)
    golden.gap("udlm_ddg_recon", "no reconstruction term in this UDLM bound (alpha_0 = 1)")
    _finite(golden)
    score_losses(golden, schedule)
    ar = LeftToRight(tokens=golden.tokens())
    nll = lambda: np.asarray(ar.bound(*flat(logits, x0))).reshape(x0.shape)
    golden.check("ar_nll", nll, LOSS32, each=True)


def _finite(golden: Golden) -> None:
    """T KL on the recorded grids, alpha = 1 - t as in the reference.

    The arrays of the LDDM repository, and of Duo, have alpha_s = t - dt: they are compared with
    the right form of the other repository, to which their reconstruction term is added.
    """
    logits, x0, z = (golden.arrays[n] for n in ("logits", "x0", "xt_mask"))
    plain = LogLinear(eps=0.0)
    full = MaskedMean(schedule=plain, tokens=golden.tokens())
    subs = Masked(schedule=plain, tokens=golden.tokens())
    steps = [n.removeprefix("t_T") for n in golden.arrays if re.fullmatch(r"t_T\d+", n)]

    def loss(process, n, dtype):
        t = np.minimum(golden.given(f"t_T{n}").astype(np.float64), 1 - 1e-4)  # their clamp
        t = np.broadcast_to(t[:, None], z.shape).astype(dtype)
        rows = flat(logits.astype(dtype), x0, z, t)
        each = GridTimes(steps=int(n)).integrand(process, *rows).reshape(z.shape)
        return np.where(z == golden.tokens().mask, each, 0)

    def rebuilt(dtype):
        rows = golden.given("logits_recon").astype(dtype)
        logp = np.asarray(jax.nn.log_softmax(jnp.asarray(rows)))
        return -np.take_along_axis(logp, x0[..., None], -1)[..., 0]

    with jax.enable_x64(True):
        for n in steps:
            for tail, dtype, tolerance in (("", np.float32, LOSS32), ("_f64", np.float64, LOSS64)):
                # All in float64: a KL of 1e-3 times T keeps few digits of float32.
                name = f"d3pm_loss_mdlm_T{n}{tail}"
                ours = lambda p=full, n=n: loss(p, n, np.float64)
                golden.check(name, ours, tolerance, each=True)
                subs_ours = lambda n=n: loss(subs, n, np.float64)
                golden.check(f"d3pm_subs_loss_mdlm_T{n}{tail}", subs_ours, tolerance, each=True)
                if name in golden and f"d3pm_loss_lddm_T{n}{tail}" in golden:
                    right = golden.arrays[name] + rebuilt(dtype)
                    whole = lambda n=n: loss(full, n, np.float64) + rebuilt(np.float64)
                    at = dict(reference=right, each=True)
                    golden.check(f"d3pm_loss_lddm_T{n}{tail}", whole, tolerance, **at)
    golden.gap(r"d3pm_\w+", "no counterpart in this file")
