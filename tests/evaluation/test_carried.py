"""The carried sampler's own likelihood against the exact law of `sample`, by enumeration."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.registry import find, names
from ldd_jax.core.types import Cond
from ldd_jax.denoisers import DiT
from ldd_jax.evaluation.carried import Dictated, along_text
from ldd_jax.objectives.times import GridTimes
from ldd_jax.oracle.histories import histories
from ldd_jax.oracle.laws import Law, index
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import (
    Analytic,
    Ancestral,
    Confidence,
    EntropyBounded,
    Euler,
    FirstHitting,
    LinearGrid,
    Psi,
    ScheduledConfidence,
    TableGrid,
    TauLeaping,
)
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.trajectory import along
from ldd_jax.schedules import LogLinear
from tests.lab import jit, live_params

pytestmark = pytest.mark.usefixtures("x64")

MASKED, SMALL, UNIFORM = Law(1, 3, 3), Law(1, 2, 2), Law(1, 2, 2, masked=False)
T = 4


@struct.dataclass
class Placed:
    """A network whose features differ by place: among nothing but masks a DiT's are all alike."""

    inner: Any
    place: jax.Array

    head = property(lambda self: self.inner.head)
    timed = property(lambda self: self.inner.timed)

    def trunk(self, *inputs, **more):
        trunk = self.inner.trunk(*inputs, **more)
        return trunk._replace(features=trunk.features + self.place)

    def latent(self, batch, length):
        return self.inner.latent(batch, length)


# A DiT's clock enters in float32, which two programs may round apart.
ROUNDED = dict(rtol=1e-5, atol=1e-7)


def network(law, **fields):
    """A production DiT that takes the latent to heart."""
    sizes = dict(width=8, depth=1, heads=2, cond_width=4, latent=True, dtype="float64")
    model = DiT(tokens=law.tokens, **(sizes | fields))
    params = jax.tree.map(lambda a: a.astype(jnp.float64), live_params(model, scale=0.4))
    if model.latent:
        params["trunk"]["latent_norm"]["norm"]["scale"] += 2.0
    masked = law.tokens.mask is not None
    params["head"]["kernel"] *= 2.0 if masked else 0.2
    kind = Masked if masked else Uniform
    place = jnp.asarray(np.random.default_rng(0).normal(0, 0.5, (law.length, 8)))
    denoiser = Placed(model.bind(params), place)
    schedule = LogLinear(eps=1e-3 if masked else 0.2)  # a prior term that counts
    return Net(denoiser, kind(tokens=law.tokens, schedule=schedule))


@struct.dataclass
class Reveals:
    """A draw that dictates the call `at` [B, L] that reveals a position."""

    call: jax.Array
    step: jax.Array

    def at(self, *, step=None, site=None):
        del site
        return self if step is None else self.replace(step=jnp.asarray(step, jnp.int32))

    def rows(self, length):
        del length
        return Reveals(self.call.reshape(-1), jnp.full(self.call.size, self.step))

    def event(self, p):
        del p
        return self.call == self.step

    def outcome(self, logp, p, stay):
        del p
        return jnp.argmax(logp, -1).astype(stay.dtype)


def chances(process, grid, steps):
    """P(K = k) of the calls of `sample`: steps on the grid, and the removal."""
    level = lambda t: float(process.schedule.noise(jnp.float64(t)))
    u = [level(grid(jnp.float64(i), steps)) / level(1) for i in range(steps + 1)]
    u = np.append(u, 0.0)
    return u[:-1] - u[1:]


def paid(net, step, x, draw, steps=T, **how):
    """`along_text` of rows, compiled."""
    x = jnp.asarray(x)

    @jit
    def run():
        keys = example_keys(jax.random.key(7), jnp.arange(len(x)))
        given = jnp.asarray(how.get("fixed", np.zeros(x.shape, bool)))
        start = net.process.corrupt_to_prior(keys, x, jnp.ones(len(x)), given)
        return along_text(net, step, draw, start, x, steps, **how)

    return jax.tree.map(np.asarray, run())


def every_reveal(process, grid, steps, length=3):
    """All times of reveal [C, L], and their chances [C]."""
    chance = chances(process, grid, steps)
    call = np.array(list(itertools.product(range(steps + 1), repeat=length)))
    return call, chance[call].prod(1)


def by_enumeration(net, latent=Latent(), grid=LinearGrid(), steps=T):  # noqa: B008
    """l(x, K) of every text and all times of reveal [27, C], and the chances [C]."""
    call, chance = every_reveal(net.process, grid, steps)
    x = np.repeat(MASKED.x, len(call), 0)
    draw = Reveals(jnp.asarray(np.tile(call, (len(MASKED.x), 1))), jnp.int32(0))
    found = paid(net, Ancestral(), x, draw, steps, latent=latent, grid=grid)
    last = (call == steps).any(1)  # the removal is paid for where it reveals something
    np.testing.assert_array_equal(found.calls, np.tile(steps + last, len(MASKED.x)))
    assert (found.tokens == 3).all()
    return found.nats.reshape(len(MASKED.x), -1), chance


def tighter(l, chance, m):
    """E of -log mean_m exp(-l), exactly."""
    p, w = np.exp(-l), chance
    for _ in range(m - 1):
        p, w = np.add.outer(p, np.exp(-l)).ravel(), np.outer(w, chance).ravel()
    return -w @ np.log(p / m)


SETTINGS = {
    "carried": (Latent(), Readout()),
    "resets and read-out": (Latent(reset_every=2), Readout(temperature=0.7, top_p=0.8)),
    "frozen": (Latent(frozen=True), Readout(temperatures=(1.5, 1.0, 0.7))),
}


# The fast set has one of each kind.
FURTHER = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["carried", *(pytest.param(n, marks=FURTHER) for n in list(SETTINGS)[1:])]
)
def test_statement_1(name):
    """E_K exp(-l) is the law of `sample`; its mean bounds, and importance weighting tightens."""
    latent, readout = SETTINGS[name]
    net = network(MASKED)
    net = Net(net.denoiser, net.process, readout)
    l, chance = by_enumeration(dataclasses.replace(net, tile=5), latent)
    p = np.exp(-l) @ chance
    law = histories(net, Ancestral(), MASKED, T, latent=latent).law(MASKED)
    np.testing.assert_allclose(p, law[index(MASKED.x, MASKED.size)], atol=1e-12)
    assert abs(p.sum() - 1) < 1e-10
    if readout.top_p < 1:  # some texts have probability 0 on some ways
        return
    gap = l @ chance + np.log(p)
    assert gap.min() > -1e-10 and gap.max() > 1e-3
    for x in (0, 13):
        bounds = [tighter(l[x], chance, m) for m in (1, 2)]
        assert bounds[0] > bounds[1] > -np.log(p[x]) - 1e-12
    if name != "carried":
        return
    off, _ = by_enumeration(net, Latent(reset_every=1))
    assert np.abs(np.exp(-off) @ chance - p).max() > 1e-4  # whose likelihood it is, matters


@pytest.mark.slow
def test_resets_at_every_step_are_the_bound_of_a_chain():
    """With h = 0 at every call U is the bound with `times` grid, text by text."""
    net = network(MASKED)
    process = Masked(tokens=MASKED.tokens, schedule=LogLinear(eps=0.0))
    net = Net(net.denoiser, process)
    grid = TableGrid(times=(1.0, 0.75, 0.5, 0.25))
    l, chance = by_enumeration(net, Latent(reset_every=1), grid, T - 1)
    np.testing.assert_allclose(l @ chance, chain_bound(net, MASKED), **ROUNDED)
    carried, _ = by_enumeration(net, Latent(), grid, T - 1)
    assert np.abs(carried @ chance - l @ chance).max() > 1e-4


def chain_bound(net, law):
    """The bound of a chain of T equal steps with h = 0, from its own integrand, [texts]."""
    times, z, length = GridTimes(steps=T), jnp.asarray(law.z), law.length

    @jit
    def integrand(t):
        clock = jnp.full(len(z), t)
        trunk = net.denoiser.trunk(z, Cond(clock=net.process.conditioning(clock)))
        logits = net.denoiser.head(trunk.features.reshape(-1, trunk.features.shape[-1]))
        logits = logits.astype(jnp.float64)
        rows = lambda x: times.integrand(
            net.process, logits, jnp.tile(x, len(z)), z.reshape(-1), jnp.full(z.size, t)
        )
        return jax.vmap(rows)(jnp.asarray(law.x)).reshape(len(law.x), len(z), length).sum(2)

    total = np.zeros(len(law.x))
    for k in range(1, T + 1):
        weight = law.forward(float(net.process.schedule.alpha(jnp.float64(k / T)))).T
        rows = np.asarray(integrand(k / T))
        total += np.where(weight > 0, weight * np.where(weight > 0, rows, 0), 0).sum(1) / T
    return total


@pytest.mark.slow
def test_every_token_once_varies_least():
    """The realised form against the KL form, both exact; and `trajectory.along` says the same."""
    net, grid = network(MASKED), LinearGrid()
    l, chance = by_enumeration(net)
    call, _ = every_reveal(net.process, grid, T)
    ends = np.append(np.cumsum(chances(net.process, grid, T)[::-1])[::-1], 0.0)
    v = (ends[call] + ends[call + 1]) / 2
    x = np.tile(MASKED.x[5], (len(v), 1))
    t = jnp.asarray([[float(grid(jnp.float64(i), T))] * len(v) for i in range(T + 1)])
    found = jit(lambda: along(net, jnp.asarray(x), jnp.asarray(v), t, every=True))()
    np.testing.assert_allclose(found.nats, l[5], **ROUNDED)
    rate = (ends[:-1] - ends[1:]) / ends[:-1]
    kl_form = np.sum(rate[:, None] * np.asarray(found.masked * found.loss), axis=0)
    np.testing.assert_allclose(kl_form @ chance, l[5] @ chance, **ROUNDED)  # the same mean
    spread = lambda a: np.sqrt(chance @ (a - a @ chance) ** 2)
    assert spread(kl_form) > 5 * spread(l[5])


EXACT = {
    "confidence": Confidence(),
    "two at a time": Confidence(count=2, order="margin", threshold=0.9),
    "entropy_bounded": EntropyBounded(gamma=0.3),
    "scheduled_confidence": ScheduledConfidence(order="entropy"),
}


@pytest.mark.parametrize(
    "name", ["confidence", *(pytest.param(n, marks=FURTHER) for n in list(EXACT)[1:])]
)
def test_statement_2(name):
    """Where nothing but the text decides, one run gives the likelihood."""
    net, step = network(MASKED), EXACT[name]
    assert step.way(net.process).exact
    one, two = (
        paid(net, step, MASKED.x, Production.of(jax.random.key(k), jnp.arange(27))) for k in (0, 1)
    )
    np.testing.assert_array_equal(one.nats, two.nats)
    p = np.exp(-one.nats)
    assert abs(p.sum() - 1) < 1e-10
    if name in ("confidence", "scheduled_confidence"):
        steps = T if step.clock == "grid" else 3
        law = histories(net, step, MASKED, steps).law(MASKED)
        np.testing.assert_allclose(p, law[index(MASKED.x, MASKED.size)], **ROUNDED)


@pytest.mark.slow
@pytest.mark.parametrize("step", [Confidence(noise=1.0), FirstHitting()], ids=["noise", "hitting"])
def test_orders_of_chance(step):
    """Chance that does not look at the network is a path's own: the mean of exp(-l) is the law."""
    net, many = network(SMALL, time_conditioning=False), 2000
    assert not step.way(net.process).exact
    draw = Production.of(jax.random.key(3), jnp.arange(4 * many))
    found = paid(net, step, np.repeat(SMALL.x, many, 0), draw)
    p = np.exp(-found.nats).reshape(4, many)
    law = histories(net, step, SMALL, 2).law(SMALL)[index(SMALL.x, SMALL.size)]
    assert abs(law.sum() - 1) < 1e-10
    error = p.std(1) / np.sqrt(many)
    assert (np.abs(p.mean(1) - law) < 5 * error).all() and (error < 0.02 * law).all()


@pytest.mark.slow
def test_statement_3():
    """Uniform diffusion: E_q p / q is the law of `sample`, over all paths of q to a text."""
    net, some = network(UNIFORM), UNIFORM.x[[0, 3]]
    law = histories(net, Ancestral(), UNIFORM, 3).law(UNIFORM)
    assert abs(law.sum() - 1) < 1e-10
    bound, p = own_bound(net, UNIFORM, Ancestral(), some, 3)
    np.testing.assert_allclose(p, law[[0, 3]], atol=1e-12)
    assert (bound + np.log(p)).min() > 1e-4
    grid = TableGrid(times=(1.0, 0.75, 0.5, 0.25))
    off = dict(latent=Latent(reset_every=1), grid=grid)
    bound, _ = own_bound(net, UNIFORM, Ancestral(), some, T - 1, **off)
    prior = UNIFORM.length * float(net.process.boundary(jnp.float64))
    assert prior > 0.01
    np.testing.assert_allclose(bound, chain_bound(net, UNIFORM)[[0, 3]] + prior, **ROUNDED)


def own_bound(net, law, step, texts, steps, **how):
    """U and E_q exp(-l) of texts, over all paths of q."""
    bound, p = [], []
    alpha = float(net.process.schedule.alpha(jnp.ones(())))
    alpha = alpha if law.tokens.mask is None else 0.0  # masks are started from nothing else
    for x in texts:
        rule, last = (
            Dictated(inner=inner, text=jnp.asarray(x)[None], known=inner.way(net.process))
            for inner in (step, Ancestral())
        )
        begin = law.likelihood(alpha)[law.z, x].prod(1)
        found = histories(net, rule, law, steps, removal=last, start=(law.z, begin), **how)
        assert (found.state.z == x).all()
        q, l = np.exp(found.log_p), found.state.memory[1]
        assert abs(q.sum() - 1) < 1e-10
        bound.append(q @ l)
        p.append(q @ np.exp(-l))
    return np.array(bound), np.array(p)


RULES = {
    "analytic": (SMALL, Analytic()),
    "tau_leaping": (SMALL, TauLeaping(leap="rejection")),
    "psi": (UNIFORM, Psi(kappa=0.5)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_laws_of_other_rules(name):
    law, step = RULES[name]
    net, text = network(law), law.x[[1]]
    exact = histories(net, step, law, 2).law(law)
    _, p = own_bound(net, law, step, text, 2)
    np.testing.assert_allclose(p, exact[index(text, law.size)], atol=1e-12)


@pytest.mark.slow
def test_rules_that_are_ancestral():
    """The same draws, the same price."""
    net = network(SMALL, latent=False, time_conditioning=False)
    draw = Production.of(jax.random.key(5), jnp.arange(4))
    one = paid(net, Ancestral(), SMALL.x, draw)
    for step in (Ancestral(), Euler()):
        np.testing.assert_allclose(paid(net, step, SMALL.x, draw).nats, one.nats, rtol=1e-9)


@pytest.mark.slow
def test_uniform_paths_of_production():
    """Their mean is the law, started where the forward process ends."""
    net, many = network(UNIFORM), 4000
    law = histories(net, Ancestral(), UNIFORM, 3).law(UNIFORM)
    draw = Production.of(jax.random.key(3), jnp.arange(4 * many))
    found = paid(net, Ancestral(), np.repeat(UNIFORM.x, many, 0), draw, 3)
    p = np.exp(-found.nats).reshape(4, many)
    error = p.std(1) / np.sqrt(many)
    assert (np.abs(p.mean(1) - law) < 5 * error).all() and (error < 0.05 * law).all()


@pytest.mark.slow
def test_given_tokens_are_free_of_charge():
    """Of the rest, given them, the probabilities sum to one; padding costs nothing either."""
    net = network(MASKED)
    x = np.array([[1, a, b] for a in range(3) for b in range(3)])
    fixed = np.tile([True, False, False], (9, 1))
    draw = Production.of(jax.random.key(0), jnp.arange(9))
    found = paid(net, Confidence(), x, draw, fixed=fixed)
    assert abs(np.exp(-found.nats).sum() - 1) < 1e-10 and (found.tokens == 2).all()
    every = paid(net, Ancestral(), x, draw, fixed=np.ones_like(fixed))
    assert (every.nats == 0).all() and (every.calls == 0).all() and (every.tokens == 0).all()


COVERED = [
    "analytic", "ancestral", "confidence", "entropy_bounded", "euler",
    "first_hitting", "patch_clock", "psi", "scheduled_confidence", "tau_leaping",
]  # fmt: skip


@pytest.mark.parametrize("name", names("step"))
def test_rules_have_a_way_or_say_why_not(name):
    step, process = find("step", name)(), network(MASKED).process
    step = ScheduledConfidence(order="margin") if name == "scheduled_confidence" else step
    step = Psi(kappa=1.0) if name == "psi" else step
    if name in COVERED:
        step.way(process)
        return
    with pytest.raises(ValueError, match=rf"^sampler {name}: its own likelihood is not"):
        step.way(process)


def test_orders_by_thrown_away_tokens_are_refused():
    for step in (Confidence(order="sampled"), ScheduledConfidence(), Psi()):
        with pytest.raises(ValueError, match="likelihood is not known"):
            step.way(network(MASKED).process)
    with pytest.raises(ValueError, match="masked diffusion"):
        find("step", "euler")().way(network(UNIFORM).process)
