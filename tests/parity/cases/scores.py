"""SEDD: log scores, score entropy, Tweedie tables, and a whole sampling run."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.draws import Replay
from ldd_jax.interop import recorded
from ldd_jax.processes import Masked, MaskedScore, UniformScore
from ldd_jax.samplers import Analytic, LinearGrid, SampleState, sample
from ldd_jax.samplers.net import Net
from ldd_jax.schedules import Geometric, LogLinear
from tests.parity.cases.networks import NETWORK, network
from tests.parity.golden import Golden, normalise
from tests.parity.runner import kind

GRID_END = [r"linspace\(1, (\d[\d.e-]*)"]
LOSS = 1e-4
TABLE = 2e-5


class Told:
    """A schedule that takes sigma for time, where a file gives sigma and no t."""

    def noise(self, sigma):
        """1 - exp(-sigma)."""
        return -jnp.expm1(-sigma)

    def sigma(self, sigma):
        """Itself."""
        return sigma


def flat(*arrays):
    """[B, L, ...] to [B * L, ...]."""
    return [jnp.asarray(a).reshape(-1, *a.shape[2:]) for a in arrays]


def wide(t, like):
    """One time a row of tokens."""
    return np.broadcast_to(np.asarray(t).reshape(-1, 1), like.shape)


@kind("sedd_absorb", "sedd_uniform")
def score_network(golden: Golden) -> None:
    """The network's read-out as log scores."""
    c = golden.config()
    x, sigma = golden.given("x"), golden.given("sigma")
    model, denoiser = network(golden, golden.weights())
    logits = recorded.passer(model, denoiser.params)(x, sigma)[0]
    if c.get("graph", golden.kind.removeprefix("sedd_")) == "uniform":
        process = UniformScore(schedule=Told(), tokens=golden.tokens(masked=False))
    else:
        scaled = bool(c.get("scale_by_sigma", True))
        process = MaskedScore(schedule=Told(), tokens=golden.graph(), scale_by_sigma=scaled)
    ours = lambda: process.log_score(*flat(logits, x, wide(sigma, x))).reshape(logits.shape)
    golden.check("log_score", ours, NETWORK)


def score_losses(golden: Golden, schedule: LogLinear) -> None:
    """Every `sedd_` array of the losses: log score, entropy, entropy times d sigma/dt, sums."""
    tokens = golden.tokens()
    t = golden.given("t")
    process = MaskedScore(schedule=schedule, tokens=tokens)
    logits, x0, z = (golden.arrays[n] for n in ("logits", "x0", "xt_mask"))
    ours = lambda: process.log_score(*flat(logits, z, wide(t, z))).reshape(logits.shape)
    golden.check("sedd_log_score", ours, 2e-5, relative=True)
    hidden = z == tokens.mask
    with jax.enable_x64(True):
        double = lambda a: np.asarray(a, np.float64)

        def loss(process, logits, x0, z):
            rows = flat(double(logits), x0, z, double(wide(t, z)))
            return np.asarray(process.bound(*rows)).reshape(z.shape)

        for name in ("sedd_loss_lddm", "sedd_loss_mdlm"):
            ours = lambda: loss(process, logits, x0, z)
            golden.check(name, ours, LOSS, where=hidden, each=True)
        for graph in ("absorb", "uniform"):
            if f"sedd_{graph}_logscore" not in golden:
                continue
            parts = (golden.given(f"sedd_{graph}_{n}") for n in ("logscore", "x0", "xt"))
            score, x0_g, z_g = parts
            for name, noise in (("loglinear", schedule), ("geometric", geometric(golden))):
                if graph == "uniform":
                    space = golden.tokens(masked=False)
                    scored = UniformScore(schedule=noise, tokens=space)
                else:
                    scored = MaskedScore(
                        schedule=noise, tokens=golden.graph(), scale_by_sigma=False
                    )
                found = loss(scored, score, x0_g, z_g)
                rate = np.asarray(noise.d_sigma(double(t)))[:, None]
                stem = f"sedd_{graph}_{name}"
                entropy = lambda f=found, r=rate: f / r
                good = np.ones(z_g.shape, bool)
                if graph == "uniform":
                    ratio = 1 + tokens.size / np.expm1(noise.sigma(double(t)))[:, None]
                    good = held(ratio, x0_g != z_g, found / rate)
                at = dict(where=good, each=True)
                golden.check(f"{stem}_entropy", entropy, LOSS, **at)
                golden.check(f"{stem}_loss", lambda f=found: f, LOSS, **at)
                whole = lambda f=found: f.sum(1)
                golden.check(f"{stem}_seq", whole, LOSS, where=good.all(1), each=True)


def held(ratio: np.ndarray, moved: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    """Tokens whose recorded float32 value has its digits, of a uniform process.

    It is formed from 1 / r = 1 - V / (e^sigma - 1 + V), which cancels; at a token that has moved,
    r (log r - 1) is summed.
    """
    lost = 1e-7 * ratio**2 * np.log(ratio) * moved
    return lost < LOSS * np.maximum(1, entropy)


def geometric(golden: Golden) -> Geometric:
    """SEDD's geometric noise as the text says, else its defaults for the file."""
    text = golden.meta.get("about", "") + golden.meaning("sedd_absorb_geometric_entropy")
    found = re.search(r"geometric\D*?(\d[\d.e-]*)\D+?(\d[\d.e-]*)", text)
    low, high = map(float, found.groups()) if found else (1e-4, 20.0)
    return Geometric(sigma_min=low, sigma_max=high)


def score_tables(golden: Golden, schedule: LogLinear) -> None:
    """Tweedie, Euler and denoiser tables; the intermediate factors are not formed here."""
    tokens = golden.tokens()
    t = np.asarray(golden.given("t"), np.float64).reshape(-1)
    s = t - float(golden.given("dt"))
    logits, z = (golden.given(n) for n in ("logits", "x_mask"))
    hidden = z == tokens.mask

    def table(process, rows, z, method, *times):
        args = flat(np.asarray(rows, np.float64), z)
        pred = process.read(*args, jnp.asarray(wide(t, z)).reshape(-1))
        times = [None if a is None else jnp.asarray(wide(a, z)).reshape(-1) for a in times]
        law = getattr(process, method)(pred, args[1], *times)
        return np.exp(np.asarray(law)).reshape(*z.shape, -1)

    process = MaskedScore(schedule=schedule, tokens=tokens)
    mdlm = Masked(schedule=schedule, tokens=tokens)
    at = dict(prepare=clipped, where=hidden)
    for name, own in (("sedd", process), ("mdlmscore", mdlm)):
        ours = lambda own=own: table(own, logits, z, "log_analytic", t, s)
        golden.check(f"{name}_analytic", ours, TABLE, **at)
        ours = lambda own=own: table(own, logits, z, "log_posterior", t, None)
        golden.check(f"{name}_denoise", ours, TABLE, **at)

    def scores():
        args = flat(np.asarray(logits, np.float64), z)
        n = jnp.asarray(wide(t, z)).reshape(-1)
        odds = (schedule.alpha(n) / schedule.noise(n))[:, None]
        mask = jnp.arange(logits.shape[-1]) == tokens.mask
        ratio = jnp.where(mask, 1, odds * jnp.exp(mdlm.read(*args, n)))
        return np.asarray(ratio).reshape(logits.shape)

    golden.check("mdlm_score", scores, TABLE, where=hidden, each=True)
    for graph in ("absorb", "uniform"):
        if f"graph_{graph}_score" in golden:
            _graph(golden, graph, schedule, t, s, table)
    golden.gap(
        "graph_.*(staggered|transp_transition|transp_rate)",
        "a factor that is not formed by itself here; the product is compared",
        inputs="graph_[a-z]+_(x|score|dsigma)",
    )


def _graph(golden: Golden, graph: str, schedule, t, s, table) -> None:
    x, score = golden.given(f"graph_{graph}_x"), golden.given(f"graph_{graph}_score")
    if graph == "uniform":
        process = UniformScore(schedule=schedule, tokens=golden.tokens(masked=False))
        rows = np.ones(x.shape, bool)
    else:
        tokens = golden.graph()
        process = MaskedScore(schedule=schedule, tokens=tokens, scale_by_sigma=False)
        rows = x == tokens.mask
    logs = np.log(np.asarray(score, np.float64))
    analytic = lambda: table(process, logs, x, "log_analytic", t, s)
    at = dict(prepare=clipped, where=rows)
    golden.check(f"graph_{graph}_analytic", analytic, TABLE, **at)
    denoise = lambda: table(process, logs, x, "log_posterior", t, None)
    width = golden.arrays.get(f"graph_{graph}_denoise", score).shape[-1]
    golden.check(f"graph_{graph}_denoise", lambda: denoise()[..., :width], TABLE, **at)
    args = flat(logs, x)
    n = jnp.asarray(wide(t, x)).reshape(-1)
    rate = np.asarray(process.rate(process.read(*args, n), args[1], n)).reshape(logs.shape)
    sigma = np.asarray(schedule.d_sigma(jnp.asarray(t)))[:, None, None]
    here = np.arange(logs.shape[-1]) == x[..., None]
    whole = np.where(here, -rate.sum(-1, keepdims=True), rate)
    reverse = lambda: whole / sigma
    golden.check(f"graph_{graph}_reverse_rate", reverse, TABLE, where=rows, each=True)
    step = (t - s)[:, None, None]
    euler = lambda: here + step * whole
    golden.check(f"graph_{graph}_euler", euler, TABLE, where=rows, each=True)


def clipped(table: np.ndarray) -> np.ndarray:
    """The law that an arg max of p / gumbel draws from a table with negative entries."""
    return normalise(np.maximum(table, 0))


@kind("sampler_sedd")
def replay(golden: Golden) -> None:
    """Every token of a run, and the three recorded tables."""
    with jax.enable_x64(True):
        _replay(golden)


def _replay(golden: Golden) -> None:
    process = MaskedScore(tokens=golden.tokens())
    timed = bool(golden.meta["time_conditioning"])
    _, denoiser = network(golden, golden.weights(), time_conditioning=timed)
    net = Net(denoiser, process)
    u, tokens = golden.given("u"), golden.given("tokens")
    steps = u.shape[0] - 1
    grid = LinearGrid(end=golden.number(GRID_END, [], golden.meta.get("about", ""), 1e-5))
    prior = jnp.asarray(tokens[0])
    begin = prior, jnp.ones(prior.shape[0])
    run = lambda draw: sample(net, Analytic(), draw, begin, steps, grid=grid, record=lambda s: s.z)
    last, z = jax.jit(run)(Replay(table=jnp.asarray(u)))
    golden.check("tokens", lambda: jnp.concatenate([prior[None], z, last.z[None]]), 0.0)

    def table(i: int):
        """Law of step i from the recorded state."""
        t, s = (grid(jnp.asarray(float(j)), steps) for j in (i, i + 1))
        spread = jnp.broadcast_to(t, prior.shape[:1])
        state = SampleState(
            z=jnp.asarray(tokens[i]),
            clock=spread,
            free=jnp.ones(prior.shape, bool),
            h=None if denoiser.latent(1, 1) is None else net.latent(*prior.shape),
            calls=jnp.zeros(prior.shape[0], jnp.int32),
        )

        def law(pred, z, t, args):
            if i == steps:
                return process.log_posterior(pred, z, t, None)
            return process.log_analytic(pred, z, t, jnp.full_like(t, s))

        return np.exp(net.rows(law, net.trunk(state), state.z, spread, ()))

    named = re.search(r"step (\d+)", golden.meaning("table_mid"))
    middle = int(named.group(1)) if named else steps // 2
    for name, i in (("table_first", 0), ("table_mid", middle), ("table_last", steps)):
        rows = (tokens[i] == process.tokens.mask) | (i == steps)
        golden.check(name, lambda i=i: table(i), 1e-5, prepare=clipped, where=rows)
