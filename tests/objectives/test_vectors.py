"""Losses of texts as vectors: the bound is tight for the ideal network, and who is trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Cond, TokenSpace, as_batch
from ldd_jax.denoisers import Compressor
from ldd_jax.objectives import (
    Autoencoder,
    ImportanceTimes,
    LatentNelbo,
    PseudoContext,
)
from ldd_jax.processes import Gaussian, Masked
from tests.lab import jit, live_params
from tests.objectives.two_texts import LAW, PROCESS, TwoTexts

ROWS = 8192
TOKENS = TokenSpace(size=6, mask=5)
SMALL = dict(width=16, heads=2, depth=1, encoder=1, decoder=1, cond_width=8, vectors=3, size=4)
NETWORK = Compressor(**SMALL, latent=True, tokens=TOKENS)
OWN = Gaussian(vectors=3, size=4, tokens=TOKENS)


def batch(z0, weight=1.0):
    ones = jnp.ones(z0.shape)
    index = jnp.arange(len(z0))
    return as_batch(dict(z0=z0, keep=ones < 0, weight=ones * weight, index=index))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("text", [0, 1])
def test_the_bound_of_the_ideal_network_is_the_likelihood(text):
    """-log p(x), though text and points tell each other only in part: p(x | z_0) errs often."""
    bound = LatentNelbo(process=PROCESS, num_classes=0, dropout=False).as_bound(1)
    given = batch(jnp.full((ROWS, 1), text))
    found = jit(lambda key: bound(TwoTexts(), given, key).metrics)(jax.random.key(text))
    each = np.asarray(sum(found["terms"].values()))
    np.testing.assert_allclose(each, found["loss_B"], rtol=1e-12)
    error = each.std() / ROWS**0.5
    assert error < 0.03 and abs(each.mean() + np.log(LAW[text])) < 4 * error
    assert np.mean(found["terms"]["reconstruction"]) > 0.02
    assert bound.bounds and "left to right" in bound.chain


@pytest.mark.usefixtures("x64")
def test_without_a_term_or_with_another_weight_it_is_none():
    """The number above is not met by chance: each term is larger than its error."""
    bound = LatentNelbo(process=PROCESS, num_classes=0, dropout=False).as_bound(1)
    given = batch(jnp.zeros((ROWS, 1), int))
    terms = jit(lambda key: bound(TwoTexts(), given, key).metrics["terms"])(jax.random.key(3))
    mean = {name: float(np.mean(term)) for name, term in terms.items()}
    assert mean["diffusion"] > 0.3 and mean["reconstruction"] > 0.1
    training = dataclasses.replace(bound, whole=False)
    flat = float(jit(lambda key: training(TwoTexts(), given, key).total)(jax.random.key(3)))
    assert abs(flat - mean["diffusion"]) > 0.1


def gradients(objective, key=0):
    params = live_params(NETWORK)
    given = batch(jax.random.randint(jax.random.key(5), (8, 7), 0, 5))
    loss = lambda p: objective(NETWORK.bind(p), given, jax.random.key(key)).total
    norms = jax.tree.map(lambda g: float(jnp.abs(g).max()), jit(jax.grad(loss))(params))
    return {name: max(jax.tree.leaves(part)) for name, part in norms.items()}


@pytest.mark.slow
def test_each_loss_trains_its_own_part():
    own = dict(process=OWN, num_classes=0, dropout=False)
    diffusion = gradients(LatentNelbo(**own, context=PseudoContext(p=1.0)))
    assert diffusion["prior"] > 0 and diffusion["encoder"] == diffusion["decoder"] == 0
    code = gradients(Autoencoder(**own))
    assert code["prior"] == 0 and code["encoder"] > 0 and code["decoder"] > 0


@pytest.mark.slow
def test_rows_that_fill_up_a_batch_cost_nothing_and_passes_matter():
    params = live_params(NETWORK)
    text = jax.random.randint(jax.random.key(5), (4, 7), 0, 5)
    objective = LatentNelbo(process=OWN, num_classes=0, dropout=False)
    weight = jnp.asarray([1.0, 1.0, 0.0, 1.0])[:, None]
    run = lambda k: jit(
        lambda p: objective.as_bound(k)(NETWORK.bind(p), batch(text, weight), jax.random.key(1))
    )(params)
    one, two = run(1), run(2)
    for loss in (one, two):
        assert loss.metrics["loss_B"][2] == 0 and (loss.metrics["loss_B"][:2] > 0).all()
        total = jnp.sum(loss.metrics["loss_B"]) / jnp.sum(jnp.ones((4, 7)) * weight)
        np.testing.assert_allclose(loss.total, total, rtol=1e-5)
    for name in ("reconstruction", "prior"):
        np.testing.assert_array_equal(one.metrics["terms"][name], two.metrics["terms"][name])
    assert (one.metrics["terms"]["diffusion"] != two.metrics["terms"]["diffusion"])[:2].all()


def test_an_autoencoders_bound_is_that_of_the_whole():
    """The same number as by the loss of the diffusion: its model is a prior N(0, 1)."""
    params = live_params(NETWORK)
    given = batch(jax.random.randint(jax.random.key(5), (4, 7), 0, 5))
    own = dict(process=OWN, num_classes=0, dropout=False)
    run = lambda o: jit(lambda p: o.as_bound(1)(NETWORK.bind(p), given, jax.random.key(1)).total)(
        params
    )
    assert run(Autoencoder(**own)) == run(LatentNelbo(**own))


def test_what_is_refused():
    for fields, why in (
        (dict(process=Masked(tokens=TOKENS)), "is for process gaussian"),
        (dict(process=OWN, times=ImportanceTimes()), "are uniform"),
    ):
        with pytest.raises(ValueError, match=why):
            LatentNelbo(num_classes=0, dropout=False, **fields)
    padded = batch(jnp.zeros((2, 7), jnp.int32))._replace(
        cond=Cond(segment=jnp.ones((2, 7), jnp.int32))
    )
    with pytest.raises(UserError, match="whole and by itself"):
        LatentNelbo(process=OWN, num_classes=0, dropout=False)(
            NETWORK.bind(live_params(NETWORK)), padded, jax.random.key(0)
        )
