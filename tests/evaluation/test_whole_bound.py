"""A printed bound has all its terms, at both ends of time, and is called one by the objective."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import example_keys
from ldd_jax.core.types import TokenSpace
from ldd_jax.evaluation import estimators, likelihood
from ldd_jax.inference import evaluate
from ldd_jax.objectives import GridTimes, Mgdm, Nelbo, NextToken
from ldd_jax.oracle.laws import Law
from ldd_jax.processes import LeftToRight, Masked, MaskedMean, MaskedScore, Uniform
from ldd_jax.schedules import CosineMD4, Geometric, LinearSigma, LogLinear
from tests.evaluation.test_estimators import Known
from tests.evaluation.test_likelihood import corpus
from tests.lab import first_params, jit
from tests.training.common import experiment

# At ends that are far from 0 and 1, so that a missing term is many errors large.
LOOSE = {
    "log_linear": LogLinear(eps=0.2),
    "linear_sigma": LinearSigma(sigma_max=1.0),
    "geometric": Geometric(sigma_min=0.03, sigma_max=2.0),
    "cosine_md4": CosineMD4(eps=0.03),
}


def mean(law, process, times=None, draws=500):
    """The law's expected bound and its standard error, boundary included."""
    fields = {"times": times} if times else {}
    objective = Nelbo(process=process, **fields).as_bound(1)
    score = jit(likelihood.score_fn(Known(law), objective))
    pairs = [([], list(map(int, x))) for x in law.x]
    boundary = float(process.boundary())
    found = estimators.conditional(
        score, {}, pairs, key=jax.random.key(3), draws=draws, batch=2000,
        length=law.length, boundary=boundary,
    )  # fmt: skip
    return law.p @ found.nats, np.sqrt(np.sum((law.p * found.se) ** 2))


@pytest.mark.parametrize("schedule", LOOSE)
@pytest.mark.parametrize("times", [None, GridTimes(steps=400)], ids=["continuous", "grid"])
def test_masked_bounds_are_the_entropy_for_the_exact_denoiser(schedule, times):
    """From nothing but masks to nothing but symbols: no part of the chain is left out."""
    law = Law(4, 3, 3)
    found, error = mean(law, Masked(schedule=LOOSE[schedule], tokens=law.tokens), times)
    wanted = -law.p @ np.log(law.p)
    assert abs(found - wanted) < 4.5 * error + 3e-3, (found, wanted, error)
    assert error < 0.02 * wanted


def test_uniform_bounds_have_their_reconstruction_term():
    """What the noise removal may get wrong: a sixth of the entropy here."""
    law = Law(7, 3, 2, masked=False)
    schedule = Geometric(sigma_min=0.1, sigma_max=2.0)
    process = Uniform(schedule=schedule, tokens=law.tokens)
    found, error = mean(law, process, draws=10_000)
    end = law.forward(float(process.schedule.alpha(1.0))) @ law.p
    slack = np.sum(end * np.log(end * len(law.z)))  # of the prior, part of any such bound
    least = -law.p @ np.log(law.p) + slack
    first = law.forward(float(process.schedule.alpha(0.0)))  # q(z_0 | x), [z, x]
    joint = first * law.p
    exact = -np.sum(joint * np.log(joint / joint.sum(1, keepdims=True)))  # H(x | z_0)
    assert exact > 8 * error
    # Equal but for the independence of the last step's tokens, a part of the term.
    assert least - 4.5 * error < found < least + 4.5 * error + 0.3 * exact


@pytest.mark.parametrize("process", [Masked, MaskedScore, MaskedMean])
def test_evaluation_corrupts_from_the_samplers_own_start(process):
    own = process(schedule=LogLinear(eps=0.3), tokens=TokenSpace(size=5, mask=2))
    keys = example_keys(jax.random.key(0), jnp.arange(500))
    z0, keep = jnp.zeros((500, 8), jnp.int32), jnp.zeros((500, 8), bool)
    share = lambda corrupt, t: float((corrupt(keys, z0, jnp.full(500, t), keep)[0] == 2).mean())
    assert share(own.corrupt_to_prior, 1.0) == 1 and share(own.corrupt, 1.0) < 0.75
    assert share(own.corrupt_to_prior, 0.5) == pytest.approx(0.5, abs=0.03)


class Half(Nelbo):
    """Another sum, by somebody who says nothing of it."""

    def integrand(self, logits_NV, z0_N, z_N, clock_N):
        """Half of the bound."""
        return super().integrand(logits_NV, z0_N, z_N, clock_N) / 2


class Shifted(Half):
    """The same sum by another class: still none."""


class Twice(Nelbo):
    """Another sum that is a bound, and says so."""

    bounds = True

    def integrand(self, logits_NV, z0_N, z_N, clock_N):
        """Twice the bound is one."""
        return 2 * super().integrand(logits_NV, z0_N, z_N, clock_N)


def test_an_objective_says_itself_whether_it_is_a_bound():
    masked = Masked(tokens=TokenSpace(size=5, mask=4))
    said = lambda kind: kind(process=masked).as_bound(1).bounds
    assert said(Nelbo) and said(Twice) and not said(Half) and not said(Shifted)
    assert said(Mgdm) and not Mgdm.bounds  # evaluated as the bound of its network
    words = NextToken(process=LeftToRight(tokens=TokenSpace(size=5, mask=4))).as_bound(1)
    assert words.bounds and words.exact
    assert not estimators.objective(Half(process=masked).as_bound(1), "k_form").bounds


def test_what_is_no_bound_is_not_printed_as_one():
    built = experiment("mdlm")
    params = first_params(built.model, built.key(0))
    own = {f.name: getattr(built.objective, f.name) for f in dataclasses.fields(Nelbo)}
    changed = dataclasses.replace(built, objective=Half(**own))
    found = evaluate.evaluate_split(changed, corpus(20), params, draws=1)
    for given, bound in ((found, False), (dataclasses.replace(found, bound=True), True)):
        assert ("upper bound" in given.meaning) == bound == given.record()["bound"]
        assert ("NELBO" in str(given)) == ("<=" in str(given)) == bound
        assert bool(given.record()["bounds"]) == bound


def test_a_bound_of_finite_steps_names_them():
    built = experiment("mdlm")
    objective = dataclasses.replace(built.objective, times=GridTimes(steps=50))
    changed = dataclasses.replace(built, objective=objective)
    found = evaluate.evaluate_split(
        changed, corpus(20), first_params(built.model, built.key(0)), draws=1
    )
    assert found.meaning.endswith("with h = 0 on 50 equal steps")
