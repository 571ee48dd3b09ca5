"""The loop: scan, fori and Python agree; latent settings, clamping, read-out, compilations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ldd_jax.core.draws import Production
from ldd_jax.core.types import TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import (
    Ancestral,
    Clamp,
    CosineGrid,
    GeometricGrid,
    Latent,
    LinearGrid,
    sample,
)
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.net import Net
from tests.lab import jit, live_params
from tests.samplers.rules import MASK, PROCESSES, RULES, Toy

B, L, STEPS = 3, 6, 5
TOKENS = TokenSpace(size=9, mask=3)
MODEL = DiT(tokens=TOKENS, width=16, depth=1, heads=2, cond_width=8)
DENOISER = MODEL.bind(live_params(MODEL))
MASKED, UNIFORM = Masked(tokens=TOKENS), Uniform(tokens=TOKENS)
KEY = jax.random.key(7)
STEP = Ancestral()


def prior(process, index):
    return process.prior(Production.of(jax.random.key(8), index).keys, L)


def draw_of(index):
    return Production.of(KEY, index)


INDEX = jnp.arange(B)
traced = jit(
    lambda process, n, latent, index: sample(
        Net(DENOISER, process), STEP, draw_of(index), prior(process, index), n, latent=latent
    )[0],
    static_argnums=(0, 2),
)


@pytest.mark.parametrize(
    "latent",
    [
        Latent(reset_every=2),
        pytest.param(Latent(), marks=pytest.mark.slow),
        pytest.param(Latent(frozen=True), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_scan_fori_and_python_agree(latent):
    process = MASKED
    loop = traced(process, STEPS, latent, INDEX)
    scan, trace = jit(
        lambda: sample(
            Net(DENOISER, process),
            STEP,
            draw_of(INDEX),
            prior(process, INDEX),
            STEPS,
            latent=latent,
            record=lambda s: (s.z, s.h),
        )
    )()
    assert trace[0].shape == (STEPS, B, L) and trace[1].shape == (STEPS, B, L, 16)

    net, grid = Net(DENOISER, process), LinearGrid()
    z, h = prior(process, INDEX)[0], DENOISER.latent(B, L)
    one = jit(lambda state, t, s, draw: STEP(net, state._replace(clock=t), s, draw, None))
    state = loop._replace(z=z, h=h, calls=jnp.zeros(B, jnp.int32))
    for i in range(STEPS):
        t, s = (jnp.full(B, grid(jnp.float32(j), STEPS)) for j in (i, i + 1))
        if latent.reset_every and i % latent.reset_every == 0:
            state = state._replace(h=jnp.zeros_like(h))
        new = one(state, t, s, draw_of(INDEX).at(step=i))
        if latent.frozen and i:
            new = new._replace(h=state.h)
        state = new
        np.testing.assert_array_equal(trace[0][i], state.z)
        np.testing.assert_allclose(trace[1][i], state.h, rtol=1e-5, atol=1e-5)
    for other in (loop, scan):
        np.testing.assert_array_equal(other.z, state.z)
        np.testing.assert_allclose(other.h, state.h, rtol=1e-5, atol=1e-5)
    assert loop.calls.tolist() == [STEPS] * B
    assert (loop.z != TOKENS.mask).all()


@pytest.mark.parametrize("rule", ["ancestral", "remdm rescale"])
def test_the_tail_is_of_rows_that_have_a_mask(rule):
    """A grid that ends early: rows that are done keep latent and calls; alone, no call is made.

    Counted at run time: a callback in the network.
    """
    step, made = RULES[rule], []

    @struct.dataclass
    class Counted(Toy):
        def trunk(self, z, cond, h=None, *, key=None, cache=None):
            """As the toy's."""
            jax.debug.callback(lambda: made.append(1))
            return super().trunk(z, cond, h)

    net, rows = Net(Counted.make(), PROCESSES["masked"]), 16
    grid = LinearGrid(end=0.1)

    def run(index, tail):
        z = jnp.full((len(index), L), MASK, jnp.int32), jnp.ones(len(index))
        return sample(net, step, draw_of(index), z, STEPS, grid=grid, tail=tail)[0]

    run = jit(run, static_argnums=1)
    before, *ends = (run(jnp.arange(rows), tail) for tail in ("none", "sample", "greedy"))
    left = np.asarray(before.z == MASK).any(1)
    assert 0 < left.sum() < rows
    for end in ends:
        np.testing.assert_array_equal(end.calls, STEPS + left)
        np.testing.assert_array_equal(end.z[~left], before.z[~left])
        np.testing.assert_array_equal(end.h[~left], before.h[~left])
        assert (end.z != MASK).all()
    jax.effects_barrier()
    assert len(made) == STEPS + 2 * (STEPS + 1)
    made.clear()
    done = np.flatnonzero(~left)
    run(jnp.asarray(done), "sample")
    jax.effects_barrier()
    assert len(made) == STEPS


@pytest.mark.slow
def test_one_compilation_for_all_numbers_of_steps():
    before = traced._cache_size()
    few, many = (traced(UNIFORM, n, Latent(), INDEX) for n in (4, 16))
    assert traced._cache_size() == before + 1
    assert few.calls.tolist() == [5] * B and many.calls.tolist() == [17] * B


def test_the_latent_matters_and_reset_every_one_switches_it_off():
    run = lambda latent: traced(MASKED, STEPS, latent, INDEX)
    assert np.abs(run(Latent()).h - run(Latent(reset_every=1)).h).max() > 1e-3
    plain = DiT(tokens=TOKENS, width=16, depth=1, heads=2, cond_width=8, latent=False)
    params = {**DENOISER.params, "trunk": dict(DENOISER.params["trunk"])}
    bias = params["trunk"].pop("latent_norm")["norm"]["bias"]
    params["trunk"]["embed"] = {"table": params["trunk"]["embed"]["table"] + bias}
    net = Net(plain.bind(params), MASKED)
    base = jit(lambda: sample(net, STEP, draw_of(INDEX), prior(MASKED, INDEX), STEPS)[0])()
    np.testing.assert_array_equal(base.z, run(Latent(reset_every=1)).z)


@pytest.mark.slow
def test_batched_equals_single():
    whole = traced(MASKED, STEPS, Latent(), INDEX)
    single = traced(MASKED, STEPS, Latent(), INDEX[1:2])
    np.testing.assert_array_equal(whole.z[1:2], single.z)
    np.testing.assert_allclose(whole.h[1:2], single.h, rtol=1e-5, atol=1e-5)
    shuffled = traced(MASKED, STEPS, Latent(), INDEX[::-1])
    np.testing.assert_array_equal(whole.z[::-1], shuffled.z)


@pytest.mark.parametrize(
    "process, tail",
    [(MASKED, "sample"), (MASKED, "greedy"), (UNIFORM, "sample")],
    ids=lambda v: str(v)[:7],
)
def test_clamp(process, tail):
    tokens = jnp.full((B, L), 5, jnp.int32)
    fixed = jnp.zeros((B, L), bool).at[:, :2].set(True)
    net = Net(DENOISER, process, tile=4)
    state, path = jit(
        lambda: sample(
            net,
            STEP,
            draw_of(INDEX),
            prior(process, INDEX),
            STEPS,
            tail=tail,
            clamp=Clamp(tokens=tokens, fixed=fixed),
            record=lambda s: s.z,
        )
    )()
    assert (path[:, :, :2] == 5).all() and (state.z[:, :2] == 5).all()
    if process is MASKED:
        assert (state.z != TOKENS.mask).all()
    assert state.calls.tolist() == [STEPS + (process is UNIFORM)] * B
    with pytest.raises(ValueError, match="tail"):
        sample(net, STEP, draw_of(INDEX), prior(process, INDEX), 1, tail="never")


@pytest.mark.slow
def test_padding_changes_no_sample():
    """Rows 0..3 alone equal the same rows followed by segment-0 padding of any content."""

    def run(prior, segment, tokens):
        clamp = Clamp(tokens=tokens, fixed=jnp.zeros(prior.shape, bool), segment=segment)
        net = Net(DENOISER, MASKED)
        begin = prior, jnp.ones(B)
        return sample(net, STEP, draw_of(INDEX), begin, STEPS, clamp=clamp)[0]

    run = jit(run)
    start, segment = prior(MASKED, INDEX)[0], jnp.asarray([[1, 1, 1, 1, 0, 0]] * B)
    short = run(start[:, :4], segment[:, :4], start[:, :4])
    for filler in (0, 7):
        padded = run(start.at[:, 4:].set(filler), segment, start)
        np.testing.assert_array_equal(padded.z[:, :4], short.z)
        assert (padded.z[:, 4:] == filler).all()


def test_read_out_acts_on_the_clean_prediction_only():
    """The posterior keeps its mask mass whatever the temperature, top-k or top-p."""
    n, t, s = 40, 0.8, 0.5
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 2, (n, 9)), jnp.float32)
    z = jnp.full(n, TOKENS.mask)
    spread = lambda a: jnp.full(n, a, jnp.float32)
    stay = float(MASKED.schedule.noise(s) / MASKED.schedule.noise(t))
    pred = MASKED.read(logits, z, spread(t))
    for readout in (Readout(), Readout(temperature=0.1), Readout(top_k=1), Readout(top_p=0.3)):
        law = np.exp(MASKED.log_posterior(readout(pred), z, spread(t), spread(s)))
        np.testing.assert_allclose(law[:, TOKENS.mask], stay, rtol=1e-5)
        np.testing.assert_allclose(law.sum(-1), 1, rtol=1e-5)
        if readout.top_k:
            assert ((law > 0).sum(-1) == 2).all()
    cold = np.asarray(Readout(temperature=0.5)(pred))
    p = np.exp(np.asarray(pred, np.float64)) ** 2
    np.testing.assert_allclose(np.exp(cold), p / p.sum(-1, keepdims=True), rtol=1e-4, atol=1e-7)
    nucleus = np.exp(Readout(top_p=0.3)(pred))
    order = np.sort(np.exp(pred), -1)[:, ::-1]
    kept = (np.cumsum(order, -1) - order < 0.3).sum(-1)
    np.testing.assert_array_equal((nucleus > 0).sum(-1), kept)
    # Unmasked rows are one-hot and stay so.
    token = MASKED.read(logits, jnp.full(n, 5), spread(t))
    np.testing.assert_array_equal(np.argmax(Readout(top_p=0.3)(token), -1), 5)
    with pytest.raises(ValueError, match="temperature"):
        Readout(temperature=-1.0)


@pytest.mark.parametrize("grid", [LinearGrid(), CosineGrid(), GeometricGrid()], ids=str)
def test_grids_fall_from_one_to_their_end(grid):
    t = np.asarray([grid(jnp.float32(i), 7) for i in range(8)])
    assert t[0] == 1 and np.all(np.diff(t) < 0)
    np.testing.assert_allclose(t[-1], grid.end, rtol=0.02)


@pytest.mark.slow
def test_the_recorded_loop_has_derivatives():
    """A static scan: the slope of the carried latent along a direction of the parameters."""
    params = live_params(MODEL)

    def latent(params, record=lambda state: None):
        net = Net(MODEL.bind(params), MASKED)
        state, _ = sample(net, STEP, draw_of(INDEX), prior(MASKED, INDEX), STEPS, record=record)
        return state.h

    way = jax.tree.map(lambda a: jnp.cos(jnp.arange(float(a.size))).reshape(a.shape), params)
    moved = lambda x: jax.tree.map(lambda a, b: a + x * b, params, way)
    size = lambda x: jnp.sum(latent(moved(x)) ** 2)
    slope = jit(jax.grad(size))(0.0)
    above, below, loop = jit(lambda: (size(1e-3), size(-1e-3), latent(params, None)))()
    assert abs(slope) > 1
    np.testing.assert_allclose(slope, (above - below) / 2e-3, rtol=5e-3)
    np.testing.assert_array_equal(loop, jit(latent)(params))
