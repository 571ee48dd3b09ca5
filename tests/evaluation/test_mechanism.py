"""Measures on cases whose answer is known, and the observed step leaves the samples alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production
from ldd_jax.core.kl import entropy, kl
from ldd_jax.core.types import Cond
from ldd_jax.evaluation import mechanism
from ldd_jax.oracle.laws import Exact, Law
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import Ancestral, FirstHitting, LinearGrid, sample
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.net import Net
from tests.lab import jit
from tests.samplers.rules import MASK, PROCESSES, Toy

B, L, STEPS = 5, 6, 8


def parts(z, h):
    """Of lengths that tell token and pass apart; the latent counts passes."""
    token = jnp.stack([3.0 * z, 4.0 * z], -1)
    return token, jnp.concatenate([h, jnp.zeros_like(h), 2 * h], -1)


def run(kind, carry, every=2):
    """Final states with and without watching, the metrics, and the states step by step."""
    net = Net(Toy.make(carry=carry), PROCESSES[kind])
    prior = net.process.prior(jax.random.split(jax.random.key(0), B), L)
    draw = Production.of(jax.random.key(1), jnp.arange(B))
    step = mechanism.Observed(inner=Ancestral(), every=every, parts=parts)

    @jit
    def both():
        plain, path = sample(net, Ancestral(), draw, prior, STEPS, record=lambda s: (s.z, s.h))
        seen, metrics = sample(net, step, draw, prior, STEPS, record=lambda s: s.memory[2])
        return plain, path, seen, metrics

    return net, prior, *both()


@pytest.mark.parametrize("kind, carry", [("masked", True), ("uniform", False)])
def test_watching_changes_nothing(kind, carry):
    _, _, plain, path, seen, metrics = run(kind, carry)
    np.testing.assert_array_equal(plain.z, seen.z)
    np.testing.assert_array_equal(plain.calls, seen.calls)
    np.testing.assert_array_equal(path[0], metrics.tokens)


def test_measures_are_those_of_the_definition():
    """Entropy, temporal KL, shift and norms recomputed with a Python loop."""
    net, prior, _, (zs, hs), _, metrics = run("masked", True)
    process, toy, grid = net.process, net.denoiser, LinearGrid()
    z, h, past = prior[0], toy.latent(B, L), None
    flat = lambda a: a.reshape(-1, *a.shape[2:])

    def predict(z, h):
        logits = toy.head(flat(toy.trunk(z, Cond(), h).features))
        return process.read(logits, flat(z), None)

    for i in range(STEPS):
        assert float(grid(jnp.asarray(float(i)), STEPS)) > 0
        hidden = np.asarray(z) == MASK
        pred, pseudo = predict(z, h), predict(z, jnp.ones_like(h))  # the latent counts passes
        only = lambda a, on=hidden: np.where(on, np.asarray(a).reshape(B, L), np.nan)
        np.testing.assert_array_equal(metrics.open[i], hidden)
        np.testing.assert_allclose(metrics.entropy[i], only(entropy(pred)), rtol=1e-4)
        np.testing.assert_allclose(metrics.pseudo[i], only(entropy(pseudo)), rtol=1e-4)
        np.testing.assert_allclose(metrics.shift[i], only(kl(pred, pseudo)), rtol=1e-3, atol=1e-5)
        if i % 2 == 0 and past is not None:
            np.testing.assert_allclose(
                metrics.temporal[i], only(kl(past, pred)), rtol=1e-3, atol=1e-5
            )
        else:
            assert np.isnan(metrics.temporal[i]).all()
        past = pred if i % 2 == 0 else past
        np.testing.assert_allclose(metrics.norm[i], i + 1)
        assert np.isnan(metrics.turn[0]).all() and (i == 0 or (metrics.turn[i] == 1).all())
        length = 5.0 * np.asarray(z)
        ratio = np.where(length > 0, i * 5**0.5 / np.maximum(length, 1), np.nan)
        np.testing.assert_allclose(metrics.ratio[i], ratio, rtol=1e-6)
        z, h = zs[i], hs[i]


def test_curves_average_over_open_positions():
    _, _, _, _, _, metrics = run("masked", True)
    found = mechanism.curves(jax.device_get(metrics))
    value, on = np.asarray(metrics.entropy[2], np.float64), np.asarray(metrics.open[2])
    rows = [value[b][on[b]].mean() for b in range(B) if on[b].any()]
    assert found["entropy"][2] == pytest.approx(np.mean(rows))
    assert found["entropy_se"][2] == pytest.approx(np.std(rows, ddof=1) / np.sqrt(len(rows)))
    assert found["temporal"][0] is None and found["temporal"][2] is not None


@pytest.mark.slow
def test_busy_steps_of_the_closed_form():
    """Z11: simulated ancestral steps, with the noise removal."""
    process, steps, length, rows = Masked(tokens=PROCESSES["masked"].tokens), 16, 12, 4000
    net, grid = Net(Toy.make(carry=False), process), LinearGrid()
    prior = jnp.full((rows, length), MASK, jnp.int32), jnp.ones(rows)
    draw = Production.of(jax.random.key(2), jnp.arange(rows))
    keep = dict(grid=grid, record=lambda s: s.z)
    last, path = jit(lambda: sample(net, Ancestral(), draw, prior, steps, **keep))()
    found = mechanism.path_counts(np.concatenate([prior[0][None], path, last.z[None]]))
    expected = mechanism.busy_steps(process, grid, steps, length)
    assert abs(found["busy"] - expected) < 4 * found["busy_se"] and expected < 11
    assert found["oscillations"] == 0 and found["returns"] == 0


def test_oscillations_and_returns_by_hand():
    """One position: a b a c c; another never moves."""
    path = np.array([[[0, 7]], [[1, 7]], [[0, 7]], [[2, 7]], [[2, 7]]])
    found = mechanism.path_counts(path)
    assert found["busy"] == 3 and found["oscillations"] == 1.0 and found["returns"] == 0.5


def test_a_rule_without_a_grid_is_refused():
    with pytest.raises(ValueError, match="time grid"):
        mechanism.Observed(inner=FirstHitting()).check(
            PROCESSES["masked"], latent=False, timed=False
        )


def test_one_row_tells_no_error():
    counts = mechanism.path_counts(np.array([[[0, 0]], [[1, 0]], [[0, 2]]]))
    assert (counts["busy"], counts["oscillations"], counts["returns"]) == (2, 0.5, 0.5)
    assert [counts[f"{n}_se"] for n in ("busy", "oscillations", "returns")] == [None] * 3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("readout", [Readout(), Readout(temperature=0.5)])
def test_without_masks_it_is_the_posterior_of_the_token_that_is_measured(readout):
    """Not the leave-one-out prediction, nor what temperature makes of it: by enumeration."""
    law = Law(5, 3, 2, 0.8, masked=False)
    process, grid = Uniform(tokens=law.tokens), LinearGrid()
    net = Net(Exact.of(law), process, readout)
    index = jnp.arange(40)
    prior = process.prior(jax.random.split(jax.random.key(0), 40), 2)
    draw = Production.of(jax.random.key(1), index)
    step = mechanism.Observed(inner=Ancestral(), every=1)
    keep = dict(record=lambda s: s.memory[2])
    metrics = jit(lambda: sample(net, step, draw, prior, 6, **keep)[1])()
    z, past = np.asarray(prior[0]), None
    for i in range(6):
        alpha = float(process.schedule.alpha(grid(jnp.asarray(float(i)), 6)))
        p = law.conditionals(alpha, False)[np.asarray(z @ [3, 1])]
        expected = -np.sum(p * np.log(p), -1)
        np.testing.assert_allclose(metrics.entropy[i], expected, rtol=1e-4, atol=1e-5)
        if past is not None:
            gap = np.sum(past * np.log(past / p), -1)
            np.testing.assert_allclose(metrics.temporal[i], gap, rtol=1e-3, atol=1e-5)
        z, past = np.asarray(metrics.tokens[i]), p
