"""The loss of informed correctors: both terms against enumeration, and who may use it."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.draws import example_keys
from ldd_jax.core.types import Batch, Cond, TokenSpace
from ldd_jax.denoisers import DiT, Hollow
from ldd_jax.objectives import GridTimes, Nelbo, PseudoContext, Sic
from ldd_jax.oracle.laws import Exact, Law
from ldd_jax.processes import Masked, Uniform
from ldd_jax.schedules import LogLinear
from tests.lab import first_params, jit

V, L, T, STEPS = 3, 3, 0.6, 4
LAW = Law(3, V, L, 0.5)
LAW.p = (LAW.p + 1e-3) / (1 + 1e-3 * len(LAW.p))
PROCESS = Masked(tokens=LAW.tokens, schedule=LogLinear(eps=0.0))


def objective(**fields):
    runtime = dict(process=PROCESS, groups=1, dropout=False, num_classes=0, whole=False)
    return Sic(steps=STEPS, **runtime | fields)


def batch_of(z0):
    count, length = z0.shape
    return Batch(
        z0=z0,
        keep=jnp.zeros(z0.shape, bool),
        weight=jnp.ones(z0.shape),
        index=jnp.arange(count),
        total=count,
        norm=float(count * length),
        cond=Cond(),
    )


def second_term():
    """E sum_{revealed i} -log p(x^i | x_s without i) at time T, by enumeration."""
    loo = LAW.conditionals(0.5, True)  # of masked diffusion: the same at every level
    at = lambda z: int(np.ravel_multi_index(z, (V + 1,) * L))
    t, s = T, T - 1 / STEPS
    chances = {"seen": 1 - t, "opened": t - s, "masked": s}
    total = 0.0
    for kinds in itertools.product(chances, repeat=L):
        chance = np.prod([chances[k] for k in kinds])
        opened = [i for i in range(L) if kinds[i] == "opened"]
        for x, p in zip(LAW.x, LAW.p):
            z = [x[i] if kinds[i] == "seen" else V for i in range(L)]
            for tokens in itertools.product(range(V), repeat=len(opened)):
                q, new = 1.0, list(z)
                for i, v in zip(opened, tokens):
                    q *= loo[at(z), i, v]
                    new[i] = v
                nats = -sum(np.log(loo[at(new), i, x[i]]) for i in opened)
                total += chance * p * q * nats
    return STEPS * total / L


def drawn(count, seed=0):
    """Texts of the law, masked at time T."""
    rng = np.random.default_rng(seed)
    z0 = jnp.asarray(LAW.x[rng.choice(len(LAW.p), count, p=LAW.p)])
    z, clock = PROCESS.corrupt(
        example_keys(jax.random.key(seed), jnp.arange(count)),
        z0,
        jnp.full(count, T),
        jnp.zeros(z0.shape, bool),
    )
    return z0, z, clock


@pytest.mark.usefixtures("x64")
def test_the_second_term_is_what_a_step_reveals():
    """60,000 rows of the production loss against the sum over all texts, masks and draws."""
    count = 60_000
    z0, z, clock = drawn(count)

    @jit
    def losses(z0, z, clock):
        args = (batch_of(z0), z, clock, jnp.ones(count), jax.random.key(5), None)
        both = objective().score(Exact.of(LAW), *args).metrics["loss_B"]
        first = Nelbo.score(objective(), Exact.of(LAW), *args).metrics["loss_B"]
        return (both - first) / L

    second = np.asarray(losses(z0, z, clock))
    error = second.std() / count**0.5
    assert error < 0.01
    assert abs(second.mean() - second_term()) < 4 * error


MODEL = Hollow(tokens=LAW.tokens, width=8, depth=1, heads=2, cond_width=4, latent=True)


@pytest.fixture(scope="module")
def params():
    leaves, tree = jax.tree.flatten(first_params(MODEL))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    live = [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys)]
    return jax.tree.unflatten(tree, live)


@pytest.mark.slow
@pytest.mark.parametrize("context", [None, PseudoContext(p=1.0)])
def test_gradients_reach_both_passes_and_no_draw(params, context):
    """The slope of the second term is that of its pass alone, with x_s and the latent given."""
    loss = objective(**{} if context is None else dict(context=context))
    z0, z, clock = drawn(64)
    batch, key = batch_of(z0), jax.random.key(3)
    whole = jit(
        jax.grad(
            lambda p: loss.score(MODEL.bind(p), batch, z, clock, jnp.ones(64), key, None).total
        )
    )(params)
    held = MODEL.bind(params)

    class Kept(Sic):
        def score(self, *args):
            self.seen.clear()
            super().score(*args)
            return self.seen["x"], self.seen["h"]

        def revealed(self, denoiser, trunk, *rest):
            self.seen["x"], self.seen["h"] = super().revealed(denoiser, trunk, *rest), trunk.latent
            return self.seen["x"]

        seen = {}

    fields = {f.name: getattr(loss, f.name) for f in dataclasses.fields(Sic)}
    x, h = jit(lambda: Kept(**fields).score(held, batch, z, clock, jnp.ones(64), key, None))()
    s = clock - 1 / STEPS
    new = (z == V) & (x != V)
    assert 0 < int(new.sum()) < int((z == V).sum())

    def apart(p):
        net = MODEL.bind(p)
        first = Nelbo.score(loss, net, batch, z, clock, jnp.ones(64), key, None).total
        features = net.trunk(x, Cond(clock=s), h).features
        logits = net.head(features.reshape(-1, features.shape[-1]))
        law = jax.nn.log_softmax(logits.at[:, V].set(-jnp.inf))
        nats = -jnp.take_along_axis(law, z0.reshape(-1, 1), 1).reshape(z0.shape)
        return first + STEPS * jnp.sum(jnp.where(new, nats, 0)) / batch.norm

    expected = jit(jax.grad(apart))(params)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


@pytest.mark.slow
def test_tiles_change_nothing(params):
    z0, z, clock = drawn(16)
    score = lambda **fields: (
        lambda p: objective(**fields).score(
            MODEL.bind(p), batch_of(z0), z, clock, jnp.ones(16), jax.random.key(2), None
        )
    )
    total = lambda **fields: float(jit(score(**fields))(params).total)
    assert total(tile=8) == pytest.approx(total(), rel=1e-6)
    assert total(tile=8, groups=4) == pytest.approx(total(), rel=1e-6)


def test_its_evaluation_is_the_bound_of_masked_diffusion():
    bound = objective().as_bound(1)
    assert type(bound) is Nelbo and bound.bounds and not Sic.bounds


def test_who_may_not_use_it():
    uniform = Uniform(tokens=TokenSpace(size=V))
    with pytest.raises(ValueError, match="revealed tokens of masked diffusion"):
        objective(process=uniform)
    with pytest.raises(ValueError, match="times are uniform or importance"):
        objective(times=GridTimes(steps=8))
    with pytest.raises(ValueError, match="steps is 0"):
        dataclasses.replace(objective(), steps=0)
    z0, z, clock = drawn(4)
    dit = DiT(tokens=LAW.tokens, width=8, depth=1, heads=2, cond_width=4)
    net = dit.bind(first_params(dit))
    with pytest.raises(UserError, match="does not look at its own place"):
        objective().score(net, batch_of(z0), z, clock, jnp.ones(4), jax.random.key(0), None)
