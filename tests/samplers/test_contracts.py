"""What every step rule owes, over one list of rules and both processes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.samplers import Clamp, Latent, PatchClock, sample
from ldd_jax.samplers.net import Net
from tests.lab import jit
from tests.samplers.rules import EVENTS, MASK, PROCESSES, RULES, SCORES, Toy, runs

B, L, STEPS = 4, 6, 5
INDEX = jnp.arange(B)
FIXED = jnp.zeros((B, L), bool).at[0, 1].set(True).at[2, :3].set(True)
TOKENS = jnp.full((B, L), 4, jnp.int32)
SEGMENT = jnp.ones((B, L), jnp.int32).at[1, 4:].set(0)

# Variants of a rule run in the whole set only.
VARIANT = pytest.mark.slow
BOTH = PROCESSES | SCORES | EVENTS
PAIRS = [
    pytest.param(
        rule,
        kind,
        id=f"{rule}-{kind}",
        marks=VARIANT if " " in rule or (kind in SCORES and rule != "analytic") else (),
    )
    for rule in RULES
    for kind in BOTH
    if runs(RULES[rule], BOTH[kind], latent=False, timed=False)
]


def runner(step, process, **settings):
    carried = step.latent != "refused"
    net = Net(Toy.make(carry=carried, timed=False), process, tile=8)

    @jit
    def run(index, steps, clamp):
        prior = process.prior(example_keys(jax.random.key(1), index), clamp.tokens.shape[1])
        draw = Production.of(jax.random.key(2), index)
        prior = jnp.where(clamp.segment > 0, prior[0], clamp.tokens), prior[1]
        return sample(net, step, draw, prior, steps, clamp=clamp, **settings)[0]

    return run


def expected_calls(step, found, steps, free, absorbing):
    """[B], or None where it depends on the draws."""
    name = step.registered[1]
    one_by_one = name == "confidence" and step.threshold == 1 and not step.factor
    if name == "first_hitting" or one_by_one:
        return free.sum(1)
    if name == "predictor_corrector" and step.below < 1:
        times = np.linspace(1, 1e-5, steps + 1)[1:]
        return np.full(B, steps + step.corrections * (times <= step.below).sum() + (not absorbing))
    if name == "events":
        assert (found <= step.most_calls).all() and (found >= 1).all()
        return None
    if step.clock == "own":
        most = step.most if isinstance(step, PatchClock) else 0  # its calls may reveal nothing
        assert (found <= np.maximum(free.sum(1), most)).all()
        assert (found >= 1).all()
        return None
    if absorbing and not step.finishes:  # the tail is paid for where a leap left a mask
        assert set(found - steps * step.calls) <= {0, 1}
        return None
    return np.full(B, steps * step.calls + (not absorbing))


@pytest.mark.parametrize("rule, kind", PAIRS)
def test_contract(rule, kind):
    step, process = RULES[rule], BOTH[kind]
    run = runner(step, process)
    clamp = Clamp(tokens=TOKENS, fixed=FIXED, segment=SEGMENT)
    out = run(INDEX, STEPS, clamp)
    free = np.asarray(~FIXED & (SEGMENT > 0))

    assert out.z.shape == (B, L) and out.z.dtype == jnp.int32
    assert (out.z >= 0).all() and (out.z < 5).all()
    if process.absorbing:
        assert (out.z != MASK).all()
    np.testing.assert_array_equal(np.where(free, 4, out.z), 4)
    calls = expected_calls(step, np.asarray(out.calls), STEPS, free, process.absorbing)
    if calls is not None:
        np.testing.assert_array_equal(out.calls, calls)
    if step.latent == "refused":
        assert out.h is None
    else:
        np.testing.assert_array_equal(out.h[..., 0], np.tile(np.asarray(out.calls)[:, None], L))

    # The same key gives the same sample, in other company and whatever stands in the padding.
    company = jnp.asarray([2, 0, 1, 3])
    moved = jax.tree.map(lambda a: a[company], clamp)
    filler = jnp.where(moved.segment > 0, moved.tokens, 1)
    again = run(company, STEPS, moved._replace(tokens=filler))
    real = np.asarray(moved.segment > 0)
    np.testing.assert_array_equal(np.where(real, again.z, 0), np.where(real, out.z[company], 0))
    np.testing.assert_array_equal(again.calls, out.calls[company])

    # Another number of steps is no other program.
    more = run(INDEX, 3 * STEPS, clamp)
    assert run._cache_size() == 1
    more_calls = expected_calls(step, np.asarray(more.calls), 3 * STEPS, free, process.absorbing)
    if more_calls is not None:
        np.testing.assert_array_equal(more.calls, more_calls)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["ancestral", "first_hitting", "entropy_bounded", "remdm conf"])
def test_batched_equals_single_and_short(rule):
    """One example alone, without its padding."""
    run = runner(RULES[rule], PROCESSES["masked"])
    clamp = Clamp(tokens=TOKENS, fixed=FIXED, segment=SEGMENT)
    whole = run(INDEX, STEPS, clamp)
    alone = run(INDEX[1:2], STEPS, jax.tree.map(lambda a: a[1:2, :4], clamp))
    np.testing.assert_array_equal(alone.z[0], whole.z[1, :4])
    assert alone.calls[0] == whole.calls[1]


REFUSED = [
    ("first_hitting", "uniform", {}, "needs masked diffusion"),
    ("entropy_bounded", "uniform", {}, "needs masked diffusion"),
    ("confidence", "uniform", {}, "needs masked diffusion"),
    ("scheduled_confidence", "uniform", {}, "needs masked diffusion"),
    ("easy_first", "uniform", {}, "needs masked diffusion"),
    ("remdm rescale", "uniform", {}, "needs masked diffusion"),
    ("skipping", "uniform", {}, "needs masked diffusion"),
    ("skipping", "masked", dict(carry=True), "cannot carry a latent"),
    ("predictor_corrector gibbs", "masked", dict(carry=True), "cannot carry a latent"),
    ("patch_clock", "uniform", {}, "needs masked diffusion"),
    ("renoise", "masked", {}, "needs uniform diffusion"),
    ("renoise published", "masked", {}, "needs uniform diffusion"),
    ("joint_flow", "uniform", {}, "reveals masks; process uniform has none"),
    ("events", "masked", {}, "masked has none"),
    ("events", "uniform", {}, "uniform has none"),
    ("geodesic", "masked", {}, "moves points, but the states of process masked are tokens"),
    ("geodesic", "uniform", {}, "moves points, but the states of process uniform are tokens"),
    *((rule, "scud", {}, "process scud counts events") for rule in RULES if rule != "events"),
]


@pytest.mark.parametrize("rule, kind, network, why", REFUSED)
def test_refusals(rule, kind, network, why):
    net = Net(Toy.make(**{"carry": False, **network}), (PROCESSES | EVENTS)[kind])
    draw = Production.of(jax.random.key(2), INDEX)
    with pytest.raises(ValueError, match=why) as caught:
        sample(net, RULES[rule], draw, (TOKENS, jnp.ones(len(TOKENS))), 2)
    assert "\n" not in str(caught.value)


def test_every_refusal_is_in_the_list():
    for rule, step in RULES.items():
        for kind, process in (PROCESSES | EVENTS).items():
            if not runs(step, process, latent=False, timed=False):
                assert any(r[0].split()[0] == rule.split()[0] and r[1] == kind for r in REFUSED)


@pytest.mark.slow
def test_a_refused_latent_may_be_switched_off():
    """Off means h = 0 before every step: the same tokens as of a network without one."""
    prior = jnp.full((B, L), MASK, jnp.int32), jnp.ones(B)
    off, draw = Latent(reset_every=1), Production.of(jax.random.key(2), INDEX)

    def run(carry):
        net = Net(Toy.make(carry=carry), PROCESSES["masked"])
        return jit(lambda: sample(net, RULES["skipping"], draw, prior, 12, latent=off)[0])()

    np.testing.assert_array_equal(run(True).z, run(False).z)
    np.testing.assert_array_equal(run(True).calls, run(False).calls)


def test_latent_of_a_remasked_position_is_taken_back():
    process = PROCESSES["masked"]
    net = Net(Toy.make(), process)
    prior = jnp.full((64, L), MASK, jnp.int32), jnp.ones(64)
    draw = Production.of(jax.random.key(2), jnp.arange(64))
    path = {}
    for reset in (False, True):
        latent = Latent(reset_on_remask=reset)
        keep = dict(latent=latent, record=lambda s: (s.z, s.h))
        run = jit(lambda keep=keep: sample(net, RULES["remdm cap"], draw, prior, 8, **keep)[1])
        path[reset] = run()
    for reset, (z, h) in path.items():
        before = np.concatenate([np.asarray(prior[0])[None], z])[:-1]
        back = (before != MASK) & (np.asarray(z) == MASK)
        assert back.sum() > 10
        assert (np.asarray(h)[back] == 0).all() == reset


@pytest.mark.slow
def test_own_clock_records_and_goes_on():
    """A trace of given length, then on until all rows are done: the same samples."""
    net = Net(Toy.make(), PROCESSES["masked"])
    prior, step = (jnp.full((B, L), MASK, jnp.int32), jnp.ones(B)), RULES["first_hitting"]
    draw = Production.of(jax.random.key(2), INDEX)
    plain, none = jit(lambda: sample(net, step, draw, prior, 1))()
    for length in (2, 9):
        keep = dict(record=lambda s: s.z)
        state, path = jit(lambda n=length, keep=keep: sample(net, step, draw, prior, n, **keep))()
        np.testing.assert_array_equal(state.z, plain.z)
        np.testing.assert_array_equal(state.calls, L)
        left = np.maximum(L - 1 - np.arange(length), 0)
        np.testing.assert_array_equal((path == MASK).sum(-1)[:, 0], left)
    assert none is None
