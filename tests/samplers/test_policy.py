"""What becomes of the latent at every network call of a step, whatever the rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ldd_jax.core.draws import Production
from ldd_jax.core.types import Trunk
from ldd_jax.evaluation.mechanism import Observed
from ldd_jax.samplers import (
    GibbsCorrector,
    Latent,
    PredictorCorrector,
    RateCorrector,
    ReMDM,
    ThetaRK2,
    sample,
)
from ldd_jax.samplers.net import Net
from tests.lab import jit
from tests.samplers.rules import MASK, PROCESSES, RULES, Toy, runs

B, L, STEPS = 4, 6, 4
DRAW = Production.of(jax.random.key(2), jnp.arange(B))
PRIOR = jnp.full((B, L), MASK, jnp.int32), jnp.ones(B)
GIBBS = PredictorCorrector(corrector=GibbsCorrector(), corrections=2)


@struct.dataclass
class Spy(Toy):
    """h[..., 0] is what the call was given, plus 1; h[..., 1] the largest |h| any call has met."""

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        """As the toy's."""
        found = super().trunk(z, cond, h[..., :1])
        met = jnp.maximum(h[..., 1], jnp.abs(h[..., 0]))
        return found._replace(latent=jnp.stack([h[..., 0] + 1, met], -1))

    def latent(self, batch, length):
        """Zeros."""
        return jnp.zeros((batch, length, 2))


def spied(step, **latent):
    net = Net(Spy.make(), PROCESSES["masked"])
    policy = Latent(**latent)
    keep = dict(latent=policy, tail="none", record=lambda s: s.h)
    return np.asarray(jit(lambda: sample(net, step, DRAW, PRIOR, STEPS, **keep)[1])())


@pytest.mark.parametrize(
    "rule",
    ["ancestral", "theta_rk2", "theta_trapezoidal", "predictor_corrector two", "gibbs"],
)
def test_off_is_off_at_every_call(rule):
    """Each call is given h = 0, the second of a step, too, so that each hands out 1."""
    path = spied(GIBBS if rule == "gibbs" else RULES[rule], reset_every=1)
    assert (path[..., 0] == 1).all() and (path[..., 1] == 0).all()


def test_a_reset_is_of_all_calls_of_its_step_and_no_other():
    two = spied(RULES["theta_trapezoidal"], reset_every=2)
    # Steps 0 and 2 give h = 0 twice; their latent, 1, enters steps 1 and 3, which make two calls.
    assert two[:, 0, 0, 0].tolist() == [1, 3, 1, 3]


def test_frozen_is_the_latent_of_the_first_step_at_all_later_calls():
    two = spied(RULES["theta_trapezoidal"], frozen=True)
    assert (two[..., 0] == 2).all() and (two[..., 1] == 1).all()


def test_a_look_at_the_mechanism_shows_what_the_rule_meets():
    """With h off the latent after a call is that of h = 0; the metrics' own passes are not off."""
    net = Net(Toy.make(), PROCESSES["masked"])
    step = Observed(inner=RULES["theta_trapezoidal"], every=2)
    keep = dict(latent=Latent(reset_every=1), record=lambda s: s.memory[2], tail="none")
    metrics = jit(lambda: sample(net, step, DRAW, PRIOR, STEPS, **keep)[1])()
    assert (np.asarray(metrics.norm) == 1).all() and np.isnan(metrics.turn).all()
    assert np.nanmax(np.asarray(metrics.shift)) > 1e-4


@struct.dataclass
class Witness(Toy):
    """h[..., 0] = 1 where the call saw a token; h[..., 1] = 1 once a masked position had such."""

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        """As the toy's."""
        found = super().trunk(z, cond, h[..., :1])
        seen = (z != MASK).astype(h.dtype)
        told = jnp.any((h[..., 0] > 0) & (z == MASK), axis=1, keepdims=True) * jnp.ones(z.shape)
        return Trunk(found.features, jnp.stack([seen, jnp.maximum(h[..., 1], told)], -1))

    def latent(self, batch, length):
        """Zeros."""
        return jnp.zeros((batch, length, 2))


TAKES_BACK = {
    "remdm": ReMDM(eta=0.5, strength="cap"),
    "rate": PredictorCorrector(corrector=RateCorrector(size=4.0, share=1.0)),
    "rate twice": PredictorCorrector(corrector=RateCorrector(size=4.0, share=1.0), corrections=2),
    "remdm, then rate": PredictorCorrector(predictor=ReMDM(eta=0.5), corrector=RateCorrector()),
    "theta_rk2": ThetaRK2(theta=0.7),
}


@pytest.mark.parametrize("rule", TAKES_BACK)
def test_no_masked_position_has_a_latent_that_saw_a_token(rule):
    """Revealed and masked again within one step, too; without the policy it happens."""
    index = jnp.arange(64)
    net = Net(Witness.make(), PROCESSES["masked"])
    prior = jnp.full((64, L), MASK, jnp.int32), jnp.ones(64)
    for reset in (True, False):
        keep = dict(latent=Latent(reset_on_remask=reset), tail="none", record=lambda s: (s.z, s.h))
        draw = Production.of(jax.random.key(5), index)
        run = jit(
            lambda keep=keep, draw=draw: sample(net, TAKES_BACK[rule], draw, prior, 6, **keep)
        )
        z, h = jax.tree.map(np.asarray, run()[1])
        leaks = ((h[..., 0] > 0) & (z == MASK)).sum() + (h[-1, ..., 1] > 0).sum()
        assert (leaks == 0) == reset


@pytest.mark.slow
def test_every_rule_that_runs_is_under_the_policy():
    """Off gives every rule on a grid the samples of h = 0 throughout."""
    for rule, step in RULES.items():
        if " " in rule or step.clock == "own":
            continue
        if not runs(step, PROCESSES["masked"], latent=True, timed=False):
            continue
        path = spied(step, reset_every=1)
        assert (path[..., 1] == 0).all(), rule
