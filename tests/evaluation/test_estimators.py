"""All estimators against -log p of an enumerated law, conditional and coupled ones too."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.denoisers import DiT
from ldd_jax.evaluation import estimators, likelihood
from ldd_jax.objectives import Nelbo, NextToken, PseudoContext
from ldd_jax.oracle.laws import Exact, Law, index
from ldd_jax.processes import LeftToRight, Masked, MaskedScore, Uniform
from ldd_jax.schedules import LogLinear
from tests.lab import jit, live_params

NAMES = sorted(estimators.ESTIMATORS)


@pytest.fixture(scope="module")
def law():
    return Law(4, 3, 3)


class Known:
    """The exact denoiser in a model's place."""

    def __init__(self, law):
        self.law = law

    def bind(self, params):
        return Exact.of(self.law)


def scorer(law, name, model=None, passes=1, process=Masked):
    own = process(schedule=LogLinear(eps=0.0), tokens=law.tokens)
    bound = Nelbo(process=own, context=PseudoContext()).as_bound(passes)
    return jit(likelihood.score_fn(model or Known(law), estimators.objective(bound, name)))


@pytest.mark.parametrize("count_law", [estimators.k_form, estimators.time_free])
@pytest.mark.parametrize("prompt", [0, 1])
def test_probabilities_and_weights_give_the_nll_of_every_sequence(law, count_law, prompt):
    """Z6: sum over all subsets, exactly."""
    total = law.length - prompt
    n = np.arange(law.length + 1.0)
    below, weight = count_law(
        jnp.asarray([[float(total)]]), jnp.asarray(np.minimum(n, total))[None]
    )
    p = np.diff(np.asarray(below, np.float64)[0])[:total]
    assert p.sum() == pytest.approx(1, abs=1e-6)
    exact = law.conditionals(0.5, True)
    prior = np.zeros(len(law.x))
    for i, x in enumerate(law.x):  # log p(prompt)
        prior[i] = np.log(law.p[(law.x[:, :prompt] == x[:prompt]).all(1)].sum())
    out = np.zeros(len(law.x))
    for count in range(1, total + 1):
        for places in itertools.combinations(range(prompt, law.length), count):
            z = law.x.copy()
            z[:, places] = law.vocabulary
            rows = exact[index(z, law.size)]
            nats = sum(-np.log(rows[np.arange(len(z)), l, law.x[:, l]]) for l in places)
            share = p[count - 1] / math.comb(total, count)
            out += share * float(weight[0, count]) * nats
    np.testing.assert_allclose(out, prior - np.log(law.p), rtol=1e-5)


@pytest.mark.parametrize("name", [*NAMES, "nelbo"])
@pytest.mark.parametrize("process", [Masked, MaskedScore])
def test_draws_estimate_the_nll(law, name, process):
    """Of whole sequences and of responses, each within 4.5 of its own standard errors."""
    if process is MaskedScore and name == "nelbo":
        return  # the table is that of probabilities; its score entropy is in test_score
    score = scorer(law, name, process=process)
    pairs = [(list(x[:k]), list(x[k:])) for k in (0, 1) for x in law.x]
    found = estimators.conditional(
        score, {}, pairs, key=jax.random.key(0), draws=400, batch=2000, length=law.length
    )
    for (prompt, response), nats, se in zip(pairs, found.nats, found.se):
        x = np.array(prompt + response)
        given = (law.x[:, : len(prompt)] == prompt).all(1)
        wanted = np.log(law.p[given].sum()) - np.log(law.p[(law.x == x).all(1)][0])
        assert abs(nats - wanted) < 4.5 * max(se, 1e-4), (prompt, response, nats, wanted, se)
    assert (found.tokens == [3] * 27 + [2] * 27).all()


def test_coupled_ratios_are_right_and_less_noisy(law):
    rng = np.random.default_rng(0)
    x, y = law.x[rng.integers(0, 27, 20)], law.x[rng.integers(0, 27, 20)]
    y[:, :2] = x[:, :2]  # alike but for one token
    pairs, others = ([([], list(map(int, r))) for r in rows] for rows in (x, y))
    score = scorer(law, "time_free")
    settings = dict(draws=200, batch=1000, length=3)
    found = estimators.log_ratio(score, {}, pairs, others, key=jax.random.key(1), **settings)
    log_p = lambda rows: np.log(law.p[index(rows, law.vocabulary)])
    wanted = log_p(y) - log_p(x)
    assert (np.abs(found.nats - wanted) < 4.5 * np.maximum(found.se, 1e-4)).all()
    apart = [
        estimators.conditional(score, {}, side, key=jax.random.key(k), **settings).se
        for k, side in enumerate((pairs, others))
    ]
    moved = (x != y).any(1)
    assert np.median((found.se / np.hypot(*apart))[moved]) < 0.8
    assert (found.nats[~moved] == 0).all()
    with pytest.raises(UserError, match="equal lengths"):
        estimators.log_ratio(score, {}, pairs[:1], [([], [1])], key=jax.random.key(1), **settings)


@pytest.mark.slow
def test_estimators_agree_on_a_network_with_a_latent(law):
    """Two passes: no exact conditionals, the same number all the same."""
    model = DiT(tokens=law.tokens, width=16, depth=1, heads=2, cond_width=8)
    params = live_params(model, scale=0.5)
    pairs = [([], list(map(int, x))) for x in law.x]
    settings = dict(key=jax.random.key(2), draws=256, batch=27 * 64, length=3)
    found = {
        name: estimators.conditional(scorer(law, name, model, 2), params, pairs, **settings)
        for name in (*NAMES, "nelbo")
    }
    base = found["k_form"]
    for name, other in found.items():
        gap = (other.nats - base.nats).sum()
        error = math.sqrt(np.sum(other.se**2 + base.se**2))
        assert abs(gap) < 4 * error, (name, gap, error)
    one = estimators.conditional(scorer(law, "k_form", model, 1), params, pairs, **settings)
    assert abs((one.nats - base.nats).sum()) > 4 * math.sqrt(np.sum(one.se**2 + base.se**2))


@pytest.mark.slow
def test_padding_changes_nothing(law):
    model = DiT(tokens=law.tokens, width=16, depth=1, heads=2, cond_width=8, latent=False)
    params = live_params(model, scale=0.5)
    score = scorer(law, "k_form", model)
    pairs = [([1], [0, 2])] * 4
    run = lambda length: estimators.conditional(
        score, params, pairs, key=jax.random.key(0), draws=10, batch=40, length=length
    )
    np.testing.assert_allclose(run(3).nats, run(7).nats, rtol=1e-5)


def test_left_to_right_is_exact(law):
    tokens = law.tokens
    model = DiT(
        tokens=tokens, width=16, depth=1, heads=2, causal=True, adaln=False, latent=False,
        time_conditioning=False,
    )  # fmt: skip
    params = live_params(model, scale=0.5)
    score = jit(likelihood.score_fn(model, NextToken(process=LeftToRight(tokens=tokens))))
    run = lambda pairs: estimators.conditional(
        score, params, pairs, key=jax.random.key(0), batch=8, length=5
    )
    whole, prompt = run([([], [0, 1, 2])]).nats[0], run([([], [0])]).nats[0]
    assert run([([0], [1, 2])]).nats[0] == pytest.approx(whole - prompt, rel=1e-5)


def test_refusals(law):
    uniform = Nelbo(process=Uniform(tokens=Law(0, 3, 2, masked=False).tokens)).as_bound(1)
    with pytest.raises(UserError, match="counts masks"):
        estimators.objective(uniform, "k_form")
    with pytest.raises(UserError, match="did you mean 'time_free'"):
        estimators.objective(uniform, "timefree")
    with pytest.raises(UserError, match="4 tokens; room for 3"):
        estimators.arrays_of([([1], [1, 2, 0])], 1, 3)
