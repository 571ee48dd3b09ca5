"""How sure the network is comes from its own law; temperature and truncation act on the token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production
from ldd_jax.core.kl import entropy
from ldd_jax.samplers import (
    Confidence,
    EasyFirst,
    EntropyBounded,
    ReMDM,
    ScheduledConfidence,
    sample,
)
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.loop import start
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.orders import ORDERS, candidates
from tests.lab import jit
from tests.samplers.rules import MASK, PROCESSES, SIZE, Toy
from tests.samplers.test_easy_first import Placed

B, L = 4, 8
PROCESS = PROCESSES["masked"]
PRIOR = jnp.full((B, L), MASK, jnp.int32), jnp.ones(B)
DRAW = Production.of(jax.random.key(2), jnp.arange(B))
SHARP = [Readout(top_k=1), Readout(temperature=0.1), Readout(top_p=0.3)]


@pytest.mark.slow
@pytest.mark.parametrize("readout", [*SHARP, Readout(temperature=3.0)], ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_statistics_are_those_of_the_plain_law_and_tokens_of_the_sharp_one(order, readout):
    net = Net(Placed.make(), PROCESS, readout, tile=6)
    state, t = start(net, PRIOR, None), jnp.ones(B)
    trunk = net.trunk(state)
    found = candidates(net, trunk, state, DRAW, order)
    plain = candidates(net.plain, trunk, state, DRAW, order)
    for name in ("entropy", "top") + (() if order == "sampled" else ("cost",)):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    sharp = net.rows(lambda pred, z, t, args: pred, trunk, state.z, t, ())
    own = net.plain.rows(lambda pred, z, t, args: pred, trunk, state.z, t, ())
    at = lambda logp: np.take_along_axis(np.asarray(logp), np.asarray(found.token)[..., None], -1)
    assert (at(sharp) > -np.inf).all()  # none outside the truncated law
    if order == "sampled":
        np.testing.assert_allclose(found.cost, -at(own)[..., 0], rtol=1e-6)
    np.testing.assert_allclose(found.entropy.reshape(-1), entropy(own.reshape(-1, SIZE)), rtol=1e-5)


CALLS = {
    "entropy_bounded": EntropyBounded(gamma=0.1),
    "confidence": Confidence(threshold=0.9),
}


@pytest.mark.parametrize("rule", CALLS)
@pytest.mark.parametrize("readout", SHARP, ids=str)
def test_a_sharp_read_out_makes_no_position_certain(rule, readout):
    """The network is never sure here: a position a call, however the token is drawn."""
    net = Net(Toy.make(), PROCESS, readout)
    found = jit(lambda: sample(net, CALLS[rule], DRAW, PRIOR, 1)[0])()
    assert (found.z != MASK).all() and found.calls.tolist() == [L] * B


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", [EasyFirst(noise=0.0), ScheduledConfidence(order="confidence")], ids=str
)
def test_places_are_those_of_the_plain_law(step):
    """The first reveal from all masks: the same places, surest first, whatever the read-out."""
    places = []
    for readout in (Readout(), *SHARP):
        net = Net(Placed.make(), PROCESS, readout)
        state = start(net, PRIOR, None)
        state = state._replace(memory=step.init(net, state))
        found = step(net, state, jnp.full(B, 0.5), DRAW, None)
        places.append(np.asarray(found.z) != MASK)
    assert places[0].sum() == B * L // 2 or places[0].any()
    for other in places[1:]:
        np.testing.assert_array_equal(other, places[0])


@pytest.mark.slow
def test_remdm_remembers_the_networks_own_probability():
    net = Net(Placed.make(), PROCESS, Readout(top_k=1))
    step = ReMDM(strength="conf")
    state = start(net, PRIOR, None)
    state = state._replace(memory=step.init(net, state))
    found = step(net, state, jnp.full(B, 0.3), DRAW, None)
    written = np.asarray(found.z) != MASK
    assert written.any() and (np.asarray(found.memory)[written] < 0.999).all()
