"""Next token: exact likelihood, causality, the cache, the sampler, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production
from ldd_jax.core.types import Batch, Cond, TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.objectives import NextToken, PseudoContext
from ldd_jax.objectives.next_token import shifted
from ldd_jax.processes import LeftToRight, Masked
from ldd_jax.samplers import Ancestral, Clamp, sample
from ldd_jax.samplers import NextToken as Step
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.net import Net
from tests.lab import first_params, jit, live_params

B, L, V, START = 3, 6, 5, 4
TOKENS = TokenSpace(size=V, mask=START)
MODEL = DiT(
    tokens=TOKENS, width=16, depth=2, heads=2, latent=False, causal=True, adaln=False, cond_width=8
)
DENOISER = MODEL.bind(live_params(MODEL))
PROCESS = LeftToRight(tokens=TOKENS)
X = jax.random.randint(jax.random.key(0), (B, L), 0, START)
forward = jit(lambda z, cond: DENOISER.head(DENOISER.trunk(z, cond).features))


def batch(z0, keep=None, weight=None, segment=None):
    weight = jnp.ones(z0.shape) if weight is None else weight
    return Batch(
        z0=z0,
        keep=jnp.zeros(z0.shape, bool) if keep is None else keep,
        weight=weight,
        cond=Cond(segment=segment),
        index=jnp.arange(z0.shape[0]),
        total=z0.shape[0],
        norm=jnp.sum(weight),
    )


def cross_entropy(z, x, cond=None):
    """-log softmax over the symbols, in float64 NumPy."""
    logits = np.asarray(forward(z, cond or Cond()), np.float64)[..., :START]
    norm = np.log(np.exp(logits).sum(-1))
    return norm - np.take_along_axis(logits, np.asarray(x)[..., None], -1)[..., 0]


@pytest.mark.slow
@pytest.mark.parametrize("tile", [0, 4])
def test_loss_is_the_cross_entropy(tile):
    keep = jnp.arange(L) < jnp.asarray([[0], [2], [3]])
    weight = jnp.where(keep, 0, jnp.asarray([[1.0], [2.0], [0.5]]))
    objective = NextToken(process=PROCESS, tile=tile)
    loss = objective(DENOISER, batch(X, keep, weight), jax.random.key(1))
    z = np.concatenate([np.full((B, 1), START), X[:, :-1]], 1)
    own = np.where(keep, 0, weight * cross_entropy(z, X))
    np.testing.assert_allclose(loss.total, own.sum() / weight.sum(), rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["loss_B"], own.sum(1), rtol=1e-5)
    assert loss.metrics["scored"] == 3 * L - 5


@pytest.mark.slow
def test_the_likelihood_sums_to_one():
    """Over all 4^3 sequences of three symbols."""
    every = jnp.asarray(list(itertools.product(range(START), repeat=3)))
    loss = NextToken(process=PROCESS)(DENOISER, batch(every), jax.random.key(0))
    assert np.exp(-np.asarray(loss.metrics["loss_B"], np.float64)).sum() == pytest.approx(1, 1e-6)


def test_every_document_of_a_packed_row_begins_anew():
    segment = jnp.asarray([[1, 1, 1, 2, 2, 2]] * B)
    z = shifted(X, segment, START)
    assert (z[:, [0, 3]] == START).all() and (z[:, 1:3] == X[:, :2]).all()
    both = cross_entropy(z, X, Cond(segment=segment))
    for part in (slice(0, 3), slice(3, 6)):
        alone = cross_entropy(shifted(X[:, part], None, START), X[:, part])
        np.testing.assert_allclose(both[:, part], alone, atol=2e-5)


@pytest.mark.parametrize("attention", ["plain", "fused", "auto"])
def test_no_token_reaches_an_earlier_position(attention):
    model = DiT(**{**MODEL.__dict__, "attention": attention})
    run = jit(lambda z: model.bind(DENOISER.params).trunk(z, Cond()).features)
    before = run(X)
    for j in range(L):
        after = run(X.at[:, j].set((X[:, j] + 1) % START))
        np.testing.assert_array_equal(after[:, :j], before[:, :j])
        assert (after[:, j:] != before[:, j:]).any(-1).all()


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [(1,) * L, (4, 2), (1, 5)], ids=str)
def test_the_cache_changes_nothing(pieces):
    whole = DENOISER.trunk(X, Cond()).features
    cache, at, found = DENOISER.cache(B, L + 2), 0, []  # longer than needed
    for n in pieces:
        trunk = DENOISER.trunk(X[:, at : at + n], Cond(), cache=cache)
        cache, at, found = trunk.cache, at + n, [*found, trunk.features]
    np.testing.assert_allclose(np.concatenate(found, 1), whole, atol=2e-5)


@pytest.mark.parametrize(
    "readout",
    [pytest.param(Readout(), marks=pytest.mark.slow), Readout(temperature=0.7, top_k=3)],
    ids=str,
)
def test_the_sampler_is_the_uncached_loop(readout):
    """Same keys, one whole forward pass for each token; prompts stay and are read."""
    draw = Production.of(jax.random.key(5), jnp.arange(B))
    net = Net(DENOISER, PROCESS, readout)
    prior = PROCESS.prior(draw.keys, L)
    run = jit(lambda n, fixed: sample(net, Step(), draw, prior, n, clamp=Clamp(X, fixed))[0])
    for prompts, calls in (((0, 2, L), L), ((3, 2, L), 1 + L - 2)):  # what all have is read at once
        fixed = jnp.arange(L) < jnp.asarray(prompts)[:, None]
        state = run(3, fixed)
        z = jnp.where(fixed, X, START)
        for i in range(L):
            logits = forward(shifted(z, None, START), Cond())[:, i]
            new = draw.at(step=0).at(step=i).rows(1).categorical(readout(PROCESS.read(logits)))
            z = z.at[:, i].set(jnp.where(fixed[:, i], z[:, i], new))
        np.testing.assert_array_equal(state.z, z)
        assert state.calls.tolist() == [calls] * B and (state.z < START).all()
        assert (state.z[1, :2] == X[1, :2]).all() and (state.z[2] == X[2]).all()


@pytest.mark.slow
def test_frequencies_are_those_of_the_law():
    """First token of 4,000 samples against its exact probability, within 4 standard errors."""
    n = 4000
    draw = Production.of(jax.random.key(6), jnp.arange(n))
    net = Net(DENOISER, PROCESS)
    state = jit(lambda: sample(net, Step(), draw, PROCESS.prior(draw.keys, 2), 1)[0])()
    p = np.exp(PROCESS.read(forward(jnp.full((1, 1), START), Cond())[0]))[0]
    share = np.bincount(np.asarray(state.z[:, 0]), minlength=V) / n
    assert (np.abs(share - p) <= 4 * np.sqrt(p * (1 - p) / n)).all() and share[START] == 0


def test_refusals():
    masked, draw = Masked(tokens=TOKENS), Production.of(jax.random.key(0), jnp.arange(B))
    two_way = DiT(tokens=TOKENS, width=16, depth=1, heads=2, cond_width=8)
    own = two_way.bind(first_params(two_way, jax.random.key(0)))
    prior = masked.prior(draw.keys, L)
    with pytest.raises(ValueError, match="method=ar"):
        sample(Net(own, masked), Step(), draw, prior, 1)
    with pytest.raises(ValueError, match="no reverse diffusion"):
        sample(Net(DENOISER, PROCESS), Ancestral(), draw, prior, 1)
    with pytest.raises(ValueError, match="model.causal is False"):
        own.trunk(X, Cond(), cache=DENOISER.cache(B, L))
    with pytest.raises(ValueError, match="no latent"):
        NextToken(context=PseudoContext())
    with pytest.raises(ValueError, match="one pass"):
        NextToken(process=PROCESS).as_bound(2)
    for wrong in (dict(time_conditioning=True), dict(num_classes=3)):
        with pytest.raises(ValueError, match="adaln"):
            DiT(**{**MODEL.__dict__, **wrong})
    padded = Clamp(X, X < 0, jnp.ones(X.shape, int))
    with pytest.raises(ValueError, match="one document"):
        sample(Net(DENOISER, PROCESS), Step(), draw, prior, 1, clamp=padded)


def test_a_network_may_begin_with_one_of_its_own_tokens():
    tokens = TokenSpace(size=5, mask=4)
    assert LeftToRight(tokens=tokens).start == 4
    begun = LeftToRight(tokens=tokens, begin=2)
    assert begun.start == 2
    logp = begun.read(jnp.zeros((1, 5)))
    assert logp[0, 4] == -jnp.inf and jnp.isfinite(logp[0, :4]).all()
    with pytest.raises(ValueError, match="begin is 5"):
        LeftToRight(tokens=tokens, begin=5)
