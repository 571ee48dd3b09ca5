"""A network that gives NaN: every run ends, no token is outside the states, and it is said."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.config.sections import check_sampler
from ldd_jax.core.checks import UserError
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import (
    Ancestral,
    Confidence,
    EntropyBounded,
    Fill,
    FirstHitting,
    Latent,
    Never,
    TauLeaping,
    sample,
    sample_blocks,
)
from ldd_jax.samplers.loop import fetched
from ldd_jax.samplers.net import Net
from ldd_jax.schedules import LogLinear
from tests.lab import jit
from tests.samplers.rules import PROCESSES, SIZE, TOKENS, Toy

B, L = 2, 4
INDEX = jnp.arange(B)
BROKEN = dataclasses.replace(Toy.make(), weight=jnp.full((4, SIZE), jnp.nan))
DRAW = Production.of(jax.random.key(2), INDEX)


def prior(kind):
    return PROCESSES[kind].prior(example_keys(jax.random.key(1), INDEX), L)


@pytest.mark.slow
@pytest.mark.parametrize(
    "step, kind",
    [
        (Ancestral(), "masked"),
        (Ancestral(), "uniform"),
        (TauLeaping(), "uniform"),
        (FirstHitting(), "masked"),
        (Confidence(), "masked"),
        (EntropyBounded(), "masked"),
    ],
    ids=str,
)
@pytest.mark.parametrize("tail", ["sample", "greedy"])
def test_rows_without_a_law_are_named_and_every_run_ends(step, kind, tail):
    if step.clock == "own" and tail == "greedy":
        tail = "none"
    net = Net(BROKEN, PROCESSES[kind])
    state = jit(lambda: sample(net, step, DRAW, prior(kind), 2, tail=tail)[0])()
    assert state.lawless.all() and ((state.z >= 0) & (state.z < SIZE)).all()
    with pytest.raises(UserError, match="2 of 2 samples could not be drawn") as caught:
        fetched(state)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_outside_a_compiled_program_it_is_raised_at_once():
    net = Net(BROKEN, PROCESSES["masked"])
    with pytest.raises(FloatingPointError, match="drawn"):
        sample(net, Ancestral(), DRAW, prior("masked"), 1)
    with pytest.raises(FloatingPointError, match="drawn"):
        blocks = dict(blocks=Fill(size=2), window=L)
        sample_blocks(net, Ancestral(), DRAW, prior("masked"), 1, **blocks)


def test_a_sound_network_has_no_such_row():
    net = Net(Toy.make(), PROCESSES["masked"])
    state = jit(lambda: sample(net, Ancestral(), DRAW, prior("masked"), 2)[0])()
    tokens, calls = fetched(state)
    assert not state.lawless.any() and (calls == 2).all()
    np.testing.assert_array_equal(tokens, state.z)


@dataclasses.dataclass
class Settings:
    """What `check_sampler` asks for."""

    step: object = Ancestral()
    latent: object = Latent()
    blocks: object = Fill(size=2)
    stop: object = Never()
    tail: str = "sample"
    compact: int = 0


@dataclasses.dataclass
class Network:
    """The same of a network."""

    latent: bool = False
    time_conditioning: bool = False


@pytest.mark.slow
@pytest.mark.parametrize(
    "process, timed, why",
    [
        (Masked, True, "told the time"),
        (Uniform, True, "told the time"),
        (Uniform, False, "without a mask"),
        (Masked, False, ""),
    ],
)
def test_a_schedule_without_signal_at_the_end_is_refused_where_it_is_needed(process, timed, why):
    kind = "masked" if process is Masked else "uniform"
    process = process(schedule=LogLinear(eps=0.0), tokens=TOKENS[kind])
    net = Net(Toy.make(carry=False, timed=timed), process)
    run = lambda: sample(net, Ancestral(), DRAW, prior(kind), 1)[0].z
    if not why:
        check_sampler(Settings(), process, Network(time_conditioning=timed))
        assert run().shape == (B, L)
        return
    with pytest.raises(UserError, match=why) as caught:
        check_sampler(Settings(), process, Network(time_conditioning=timed))
    assert "\n" not in str(caught.value) and "eps" in str(caught.value)
    with pytest.raises(ValueError, match=why):
        run()
    with pytest.raises(ValueError, match=why):
        jax.eval_shape(run)
