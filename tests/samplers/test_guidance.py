"""Classifier-free guidance: short cuts equal the general path, laws are normalised, two latents."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.denoisers import DiT
from ldd_jax.denoisers.base import Around
from ldd_jax.samplers import Ancestral, Clamp, Fill, Latent, ThetaTrapezoidal, sample, sample_blocks
from ldd_jax.samplers.guidance import combine, guide, guide_prompt, pair, plain
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState
from tests.lab import jit, live_params
from tests.samplers.rules import MASK, PROCESSES, TOKENS, Toy

B, L, NULL = 4, 5, 3
INDEX, LABEL = jnp.arange(B), jnp.asarray([0, 1, 2, 1])


@struct.dataclass
class Labelled(Toy):
    """The toy with a class added to its features; the null class adds nothing."""

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        found = super().trunk(z, cond._replace(label=None), h)
        shift = jnp.sin(2.0 * cond.label + 1) * (cond.label != NULL)
        return found._replace(features=found.features + shift[:, None, None])


def run(net, step, steps=4, **settings):
    prior = net.process.prior(example_keys(jax.random.key(1), INDEX), L)
    draw = Production.of(jax.random.key(2), INDEX)
    return jit(lambda: sample(net, step, draw, prior, steps, **settings)[0])()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["masked", "uniform"])
def test_short_cuts_equal_the_general_path(kind):
    net = Net(Labelled.make(), PROCESSES[kind], tile=6)
    z = {}
    for gamma in (0.0, 1.0):
        short = run(guide(net, LABEL, null=NULL, gamma=gamma), Ancestral())
        full = run(pair(net, LABEL, null=NULL, gamma=gamma), Ancestral())
        np.testing.assert_array_equal(short.z, full.z)
        np.testing.assert_array_equal(full.calls, 2 * short.calls)
        which = 0 if gamma else 1
        np.testing.assert_allclose(full.h[which], short.h)
        z[gamma] = short.z
    strong = run(guide(net, LABEL, null=NULL, gamma=3.0), ThetaTrapezoidal())
    spared = kind == "masked"  # rows without a mask
    assert (z[0.0] != z[1.0]).any()
    assert all(2 * (9 - spared) <= c <= 2 * 9 for c in strong.calls)
    if kind == "masked":
        assert (strong.z != MASK).all()
    assert all((strong.calls == 2 * h[..., 0].T).all() for h in strong.h)


MODEL = DiT(tokens=TOKENS["uniform"], width=16, depth=1, heads=2, cond_width=8, num_classes=NULL,
            time_conditioning=True)  # fmt: skip


@pytest.mark.parametrize("towards", ["class", "prompt"])
def test_both_passes_are_one_batch_and_what_two_calls_give(towards):
    """Rows that differ in everything: state, time by position, documents, both latents, class."""
    kind = "uniform" if towards == "class" else "masked"
    tokens = TOKENS[kind]
    model = dataclasses.replace(MODEL, tokens=tokens, num_classes=NULL if towards == "class" else 0)
    denoiser, made = model.bind(live_params(model)), []

    @struct.dataclass
    class Counted(Around):
        def trunk(self, z, cond, h=None, *, key=None, cache=None):
            made.append(z.shape[0])
            return self.inner.trunk(z, cond, h)

    net = Net(Counted(denoiser), PROCESSES[kind])
    if towards == "class":
        net = guide(net, LABEL, null=NULL, gamma=2.0)
    else:
        net = guide_prompt(net, gamma=2.0)
    rng = np.random.default_rng(0)
    free = jnp.asarray(rng.random((B, L)) < 0.5)
    h = tuple(jnp.asarray(rng.normal(size=(B, L, 16)), jnp.float32) for _ in range(2))
    clock = jnp.asarray(rng.uniform(0.2, 0.9, (B, L)), jnp.float32)
    z = jnp.asarray(rng.integers(0, 4, (B, L)))
    state = SampleState(z, clock, h, free, jnp.zeros(B, jnp.int32))
    segment = jnp.asarray([[1, 1, 2, 2, 0]] * B).at[0].set(1)
    trunk = jit(lambda: net.trunk(state, segment))()
    assert made == [2 * B]
    for i, (label, seen) in enumerate(net._conditions(state)):
        one = dataclasses.replace(plain(net), label=label)
        alone = jit(lambda one=one, seen=seen, i=i: one.trunk(
            state._replace(z=seen, h=h[i]), segment
        ))()  # fmt: skip
        np.testing.assert_allclose(trunk.features[:, :, i], alone.features, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(trunk.latent[i], alone.latent, rtol=1e-4, atol=1e-5)
    assert np.abs(trunk.features[:, :, 0] - trunk.features[:, :, 1]).max() > 0.1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["masked", "uniform"])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 0.5, 4.0])
def test_guided_posteriors_are_normalised_and_right(kind, gamma):
    process = PROCESSES[kind]
    net = pair(Net(Labelled.make(), process), LABEL, null=NULL, gamma=gamma)
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(0, 2, (7, 2, 5)))
    z = jnp.asarray([MASK] * 4 + [0, 1, 4])
    t, s = jnp.full(7, 0.7), jnp.full(7, 0.4)
    guided = net.process
    law = guided.log_posterior(guided.read(logits, z, t), z, t, s)
    np.testing.assert_allclose(np.exp(law).sum(-1), 1, atol=1e-12)
    single = [process.log_posterior(process.read(logits[:, i], z, t), z, t, s) for i in (0, 1)]
    if gamma in (0.0, 1.0):
        np.testing.assert_allclose(np.exp(law), np.exp(single[int(1 - gamma)]), atol=1e-12)
    if kind == "uniform":  # posteriors are combined
        raw = np.exp(gamma * single[0] + (1 - gamma) * single[1])
        np.testing.assert_allclose(np.exp(law), raw / raw.sum(-1, keepdims=True), atol=1e-12)
    else:  # the chance of staying masked is the forward one, whatever gamma
        stay = process.schedule.noise(s) / process.schedule.noise(t)
        np.testing.assert_allclose(np.exp(law[:4, MASK]), stay[:4], atol=1e-12)
        np.testing.assert_array_equal(np.argmax(law[4:], -1), z[4:])
    one = guided.log_conditional(guided.read(logits, z, t), z, t)
    np.testing.assert_allclose(np.exp(one).sum(-1), 1, atol=1e-12)


def test_impossible_stays_impossible():
    a, b = jnp.asarray([-jnp.inf, 0.0, -1.0]), jnp.asarray([-jnp.inf, -2.0, -jnp.inf])
    assert combine(a, b, 3.0).tolist() == [-np.inf, 4.0, -np.inf]
    assert dataclasses.is_dataclass(Net)


@pytest.mark.slow
def test_both_latents_are_off_at_every_call():
    net = guide(Net(Labelled.make(), PROCESSES["masked"]), LABEL, null=NULL, gamma=2.0)
    found = run(net, ThetaTrapezoidal(), latent=Latent(reset_every=1), tail="none")
    assert all((h == 1).all() for h in found.h)


@pytest.mark.slow
@pytest.mark.parametrize("readout", [Readout(top_p=0.7), Readout(top_k=2, temperature=0.5)])
@pytest.mark.parametrize("tail", ["sample", "greedy"])
def test_truncation_of_a_pair_is_of_each_of_the_two(readout, tail):
    """Laws of the step from two truncated predictions are combined; every one is a law."""
    process = PROCESSES["uniform"]
    net = guide(Net(Labelled.make(), process, readout, 6), LABEL, null=NULL, gamma=2.0)
    found = run(net, Ancestral(), tail=tail)
    assert ((found.z >= 0) & (found.z < 5)).all() and not found.lawless.any()

    logits = jnp.asarray(np.random.default_rng(0).normal(0, 2, (7, 2, 5)), jnp.float32)
    z, t, s = jnp.arange(7) % 5, jnp.full(7, 0.7), jnp.full(7, 0.4)
    law = net.process.log_posterior(net.predict(logits, z, t, ()), z, t, s)
    single = [
        process.log_posterior(readout(process.read(logits[:, i], z, t)), z, t, s) for i in (0, 1)
    ]
    raw = np.exp(np.asarray(2 * single[0] - single[1], np.float64))
    np.testing.assert_allclose(np.exp(law), raw / raw.sum(-1, keepdims=True), atol=1e-5)


def test_where_truncation_leaves_nothing_in_common_the_condition_decides():
    log = lambda *p: jnp.log(jnp.asarray([p]))
    law = combine(log(1.0, 0.0, 0.0), log(0.0, 1.0, 0.0), 2.0)
    np.testing.assert_array_equal(jnp.exp(law), [[1.0, 0.0, 0.0]])


@pytest.mark.slow
def test_the_greedy_tail_takes_the_mode_of_the_combined_law():
    net = guide(Net(Labelled.make(), PROCESSES["uniform"]), LABEL, null=NULL, gamma=2.0)
    before = run(net, Ancestral(), tail="none")
    t = before.clock
    trunk = net.trunk(before)
    law = net.rows(
        lambda pred, z, t, args: net.process.log_posterior(pred, z, t, None),
        trunk,
        before.z,
        t,
        (),
    )
    np.testing.assert_array_equal(run(net, Ancestral(), tail="greedy").z, jnp.argmax(law, -1))


@struct.dataclass
class Told(Toy):
    """h marks the positions that a call saw a token at."""

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        """As the toy's."""
        found = super().trunk(z, cond, h)
        return found._replace(latent=(z != MASK).astype(h.dtype)[..., None])


@pytest.mark.slow
def test_only_the_prompt_is_hidden_and_not_what_an_earlier_block_made():
    process = PROCESSES["masked"]
    net = guide_prompt(Net(Told.make(), process), gamma=2.0)
    fixed = jnp.zeros((B, 9), bool).at[:, :2].set(True)
    clamp = Clamp(jnp.full((B, 9), 4), fixed)
    draw = Production.of(jax.random.key(2), INDEX)
    prior = jnp.full((B, 9), MASK, jnp.int32), jnp.ones(B)
    blocks = dict(blocks=Fill(size=3), window=6, clamp=clamp)
    state, _ = jit(lambda: sample_blocks(net, Ancestral(), draw, prior, 4, **blocks))()
    assert (state.z != MASK).all()
    shown, hidden = (np.asarray(h)[..., 0] for h in state.h)
    # The last window is 3 .. 9: its first three were made by the block before.
    assert (shown[:, :3] == 1).all() and (hidden[:, :3] == 1).all()

    whole, _ = jit(lambda: sample(net, Ancestral(), draw, prior, 4, clamp=clamp))()
    assert (np.asarray(whole.h[0])[:, :2] == 1).all() and (np.asarray(whole.h[1])[:, :2] == 0).all()
