"""Joint flow: the joint law's own equation, exact laws on tokens alone, order, and parts held."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.registry import component
from ldd_jax.core.types import Cond, TokenSpace, Trunk
from ldd_jax.oracle.lab import final_laws
from ldd_jax.oracle.laws import Exact, Law, kl
from ldd_jax.oracle.signals import ExactShown, Shown
from ldd_jax.processes import Interpolant, Joint, Masked, Uniform
from ldd_jax.samplers import Ancestral, Clamp, Confidence, Euler, JointFlow, LinearGrid, sample
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.net import Net
from ldd_jax.schedules import Cosine, LogLinear
from tests.lab import jit
from tests.samplers import rules

LINEAR = LogLinear(eps=0.0)
SPACE = TokenSpace(size=4, mask=3)


def toy():
    """Three classes shown as points of a line: w = .5, .3, .2 about -2, .5, 2.5, s = .4."""
    w = jnp.asarray([0.5, 0.3, 0.2])
    return Shown(w, jnp.tile(w, (3, 1)), jnp.asarray([[-2.0], [0.5], [2.5]]), 0.4)


def joint(schedule=LINEAR):
    text = Masked(schedule=schedule, tokens=SPACE)
    return Joint(text=text, signal=Interpolant(channels=1), tokens=SPACE)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [LINEAR, Cosine(eps=0.0)], ids=["linear", "cosine"])
@pytest.mark.parametrize("eta", [0.0, 1.0, 20.0])
def test_the_joint_law_obeys_its_equation(eta, schedule, x64):
    """d q / d time = - d (v q) / dx + flow in - flow out, v and rates of production code.

    With the text at its schedule's time and the signal at t, q(x, c) = alpha w_c N(x; (1 - t) mu_c,
    var) and the mask has the rest.
    """
    law, process = toy(), joint(schedule)
    words, denoiser = process.words, ExactShown(law)
    x = jnp.linspace(-4.0, 4.0, 41)
    c = jnp.asarray([0, 1, 2, 3])
    size = (len(c), len(x))

    def density(t, x):
        """[4, X], the mask last."""
        alpha = schedule.alpha(t)
        mean = (1 - t) * law.code
        p = law.start[:, None] * jax.scipy.stats.norm.pdf(x, mean, jnp.sqrt(law.spread(t)))
        return jnp.concatenate([alpha * p, (1 - alpha) * p.sum(0, keepdims=True)])

    def predicted(t, x):
        """Velocity and x_theta of every state, through the process."""
        z = {"text": jnp.repeat(c, size[1])[:, None], "signal": jnp.tile(x, size[0])[:, None, None]}
        clock = process.clock(jnp.full(len(z["text"]), t), 1)
        trunk = denoiser.trunk(z, Cond(clock=process.conditioning(clock)))
        flat = jax.tree.map(lambda a: a[:, 0], z)
        pred = process.read(process.head(denoiser)(trunk.features[:, 0]), flat, clock)
        known = words.clean(process.of_tokens(pred), flat["text"], clock["text"])
        return pred["signal"].reshape(size), jnp.exp(known).reshape(*size, 4)

    def flux(t, x):
        return predicted(t, x)[0] * density(t, x)

    for t in (0.9, 0.5, 0.2):
        t = jnp.asarray(t)
        reveal, back = words.flow_rates(t, eta)
        q, (_, known) = density(t, x), predicted(t, x)
        going = -jax.jvp(lambda t: density(t, x), (t,), (jnp.ones(()),))[1]  # time runs to 0
        moved = jax.jvp(partial(flux, t), (x,), (jnp.ones(len(x)),))[1]
        opened = reveal * known[3, :, :3].T * q[3]
        right = -moved + jnp.concatenate(
            [opened - back * q[:3], back * q[:3].sum(0, keepdims=True)]
        )
        right = right.at[3].add(-opened.sum(0))
        assert np.abs(going - right).max() < 1e-8
        assert np.abs(going).max() > 0.1 and known[3, :, :3].min() < 0.9


FIGURES = {
    (0.0, False): (0.1238, 0.0441, 0.0161, 0.0060),
    (2.0, False): (0.1238, 0.0752, 0.0304, 0.0128),
    (0.0, True): (0.1450, 0.0535, 0.0190, 0.0066),
    (2.0, True): (0.3684, 0.0932, 0.0337, 0.0130),
}


@pytest.mark.parametrize(
    "eta, purity",
    [pytest.param(*k, marks=pytest.mark.slow) if k == (0.0, True) else k for k in FIGURES],
)
def test_tokens_alone_against_the_exact_law(eta, purity, x64):
    """Three letters in three places, Dirichlet(.5): neither repairs an exact network."""
    law = Law(3, 3, 3, 0.5)
    net = Net(Exact.of(law), Masked(tokens=law.tokens, schedule=LINEAR))
    step, grid = JointFlow(eta=eta, purity=purity), LinearGrid(end=0.0)
    laws = final_laws(net, step, law, grid, law.marginal(0.0))
    found = [kl(law.marginal(1.0), laws(n)) for n in (2, 4, 8, 16)]
    np.testing.assert_allclose(found, FIGURES[eta, purity], atol=6e-5)


def run(net, step, steps, rows, *, length=1, end=0.0, tail="none", held=None, **how):
    """Final states."""
    index, process = jnp.arange(rows), net.process
    process = process.holding(tuple(held)) if held else process
    z, clock = process.prior(example_keys(jax.random.key(2), index), length)
    z = z | held if held else z
    draw = Production.of(jax.random.key(1), index)
    net = dataclasses.replace(net, process=process)
    grid = LinearGrid(end=end)
    go = lambda n: sample(net, step, draw, (z, clock), n, grid=grid, tail=tail, **how)[0]
    return jax.tree.map(np.asarray, jit(go)(steps))


def test_without_eta_it_is_ancestral_on_tokens_and_on_both():
    toy_net = Net(rules.Toy.make(), rules.PROCESSES["masked"])
    one, other = (run(toy_net, step, 6, 64, length=5) for step in (JointFlow(), Ancestral()))
    np.testing.assert_array_equal(one.z, other.z)
    np.testing.assert_allclose(one.h, other.h)
    net = Net(ExactShown(toy()), joint())
    one, other = (run(net, step, 8, 64, length=2) for step in (JointFlow(), Ancestral()))
    np.testing.assert_array_equal(one.z["text"], other.z["text"])
    np.testing.assert_allclose(one.z["signal"], other.z["signal"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.0, 5.0])
def test_eulers_error_is_of_first_order(eta):
    """Worst mean of a class: about .149 and .037 at 10 and 40 steps (2e5 paths: .1494, .0377)."""
    law, rows = toy(), 20_000
    net = Net(ExactShown(law), joint())
    for steps, worst, tv in ((10, 0.15, 0.045), (40, 0.037, 0.01)):
        z = run(net, JointFlow(eta=eta), steps, rows).z
        c, x = z["text"][:, 0], z["signal"][:, 0, 0]
        assert (c < 3).all()
        share = np.bincount(c, minlength=3) / rows
        off = np.abs([x[c == k].mean() - float(law.code[k, 0]) for k in range(3)])
        assert abs(off.max() - worst) < 0.025, off
        assert np.abs(share - law.start).sum() / 2 < tv + 0.008


def test_what_is_held_stands_and_the_rest_follows_it():
    """Tokens given points far apart are their classes; points given tokens lie about their code."""
    law, rows = toy(), 4000
    net = Net(ExactShown(law), joint())
    x = jnp.asarray(law.code[jnp.arange(rows) % 3])[:, None]
    z = run(net, JointFlow(), 2, rows, held={"signal": x}).z
    np.testing.assert_array_equal(z["signal"], x)
    assert np.mean(z["text"][:, 0] == np.arange(rows) % 3) > 0.999
    text = jnp.arange(rows, dtype=jnp.int32)[:, None] % 3
    z = run(net, JointFlow(eta=3.0, purity=True), 40, rows, held={"text": text}).z
    np.testing.assert_array_equal(z["text"], text)
    for k in range(3):
        some = z["signal"][np.arange(rows) % 3 == k]
        assert abs(some.mean() - float(law.code[k, 0])) < 0.05 and abs(some.std() - 0.4) < 0.03


@pytest.mark.slow
def test_the_end_takes_nothing_back_and_leaves_no_mask():
    net = Net(ExactShown(toy()), joint())
    for purity in (False, True):
        step = JointFlow(eta=20.0, purity=purity)
        state = run(net, step, 4, 256, length=3, end=1e-5, tail="sample")
        assert (state.z["text"] < 3).all() and (state.calls == 5).all()
        assert (run(net, step, 4, 256, length=3, end=1e-5).z["text"] < 3).mean() > 0.99


def test_purity_opens_the_surest():
    """One of two places is certain: where one opens, it is that one."""
    class_law = Law(0, 2, 2, 1.0)
    class_law.p = np.asarray([0.5, 0.0, 0.5, 0.0])  # the second letter is always 0
    process = Masked(tokens=class_law.tokens, schedule=LINEAR)
    net, step = Net(Exact.of(class_law), process), JointFlow(purity=True)
    state = run(net, step, 1, 512, length=2, end=0.5)
    opened = state.z < 2
    one = opened.sum(1) == 1
    assert 150 < one.sum() < 350 and opened[one, 1].all() and (state.z[opened[:, 1], 1] == 0).all()


def test_positions_that_are_fixed_and_the_latent():
    net = Net(rules.Toy.make(), rules.PROCESSES["masked"])
    tokens = jnp.zeros((8, 5), jnp.int32)
    clamp = Clamp(tokens, jnp.arange(5)[None] < 2 + jnp.zeros((8, 1), int))
    step = JointFlow(eta=3.0, purity=True)
    state = run(net, step, 5, 8, length=5, clamp=clamp, latent=Latent(reset_on_remask=True))
    assert (state.z[:, :2] == 0).all() and (state.z != rules.MASK).all()
    assert (state.calls == 5).all() and state.h.min() < 5  # some were taken back


@dataclasses.dataclass(frozen=True, kw_only=True)
class Three(Joint):
    """A part more, by one field."""

    more: Any = component("process", Interpolant)


class Constant:
    """Letter 1 always; what is beside goes to 2 and to -3."""

    timed = False
    head = staticmethod(lambda x: jnp.where(jnp.arange(4) == 1, 0.0, -1e4) + 0 * x[..., :1])

    @property
    def heads(self):
        """E x - x_t over t, from the features (x_t, y_t, t)."""
        to = lambda x, k, end: (end - x[..., k : k + 1]) / x[..., 2:3]
        return {"signal": lambda x: to(x, 0, 2.0), "more": lambda x: to(x, 1, -3.0)}

    def trunk(self, z, cond, h=None, **_):
        """What the heads ask for."""
        t = jnp.broadcast_to(cond.clock["more"][:, None, None], z["more"].shape)
        return Trunk(jnp.concatenate([z["signal"], z["more"], t], -1), None)

    def latent(self, batch, length):
        """None."""


@pytest.mark.parametrize("step", [JointFlow(), Ancestral()])
def test_a_process_of_three_parts_is_one_field_more(step):
    process = Three(text=Masked(schedule=LINEAR, tokens=SPACE), tokens=SPACE)
    assert list(process.parts) == ["text", "signal", "more"]
    z = run(Net(Constant(), process), step, 3, 4, length=2).z
    assert (z["text"] == 1).all()
    np.testing.assert_allclose(z["signal"], 2.0, atol=1e-5)
    np.testing.assert_allclose(z["more"], -3.0, atol=1e-5)


@pytest.mark.parametrize(
    "step, process, words",
    [
        (JointFlow(), Uniform(tokens=TokenSpace(size=3)), "reveals masks; process uniform"),
        (Euler(), joint(), "moves tokens alone, and process joint is made of text and signal"),
        (Confidence(), joint(), "use joint_flow, ancestral"),
    ],
)
def test_what_does_not_go_together(step, process, words):
    with pytest.raises(ValueError, match=words):
        step.check(process, latent=False, timed=False)


def test_it_moves_tokens_and_what_is_beside_them():
    whole = joint(LogLinear(eps=1e-3))
    for process in (whole, whole.words):
        JointFlow().check(process, latent=True, timed=True)


def test_wrong_fields():
    with pytest.raises(ValueError, match="eta is -1"):
        JointFlow(eta=-1.0)
    with pytest.raises(ValueError, match="no part 'sound'"):
        joint().holding(("sound",))
    with pytest.raises(ValueError, match="set process.text to masked"):
        Joint(text=Uniform())
