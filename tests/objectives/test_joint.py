"""The joint loss: what is corrupted when, what minimises it, and the bound that it leaves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import TokenSpace, as_batch
from ldd_jax.data.signal_chain import chain, codes
from ldd_jax.objectives import EventTimes, GivenSignal, JointNelbo, NoContext
from ldd_jax.oracle.signals import ExactShown, Shown
from ldd_jax.processes import Interpolant, Joint, Masked
from tests.lab import jit

TOKENS = TokenSpace(size=5, mask=4)
PROCESS = Joint(text=Masked(tokens=TOKENS), signal=Interpolant(channels=4), tokens=TOKENS)
LAW = Shown(jnp.full(4, 0.25), jnp.asarray(chain(4, 0.3, 0)), jnp.asarray(codes(4)), 1.0)
ROWS, LENGTH = 2048, 8


def loss(**fields):
    return JointNelbo(process=PROCESS, num_classes=0, dropout=False, **fields)


def batch():
    c, x = LAW.draw(jax.random.key(0), ROWS, LENGTH)
    ones = jnp.ones((ROWS, LENGTH))
    index = jnp.arange(ROWS)
    return as_batch(dict(z0=c, signal=x, keep=ones < 0, weight=ones, index=index))


def corrupted(objective, given):
    z0 = {"text": given.z0, "signal": given.cond.signal}
    u = (jnp.arange(ROWS) + 0.5) / ROWS
    keys = jax.random.split(jax.random.key(1), ROWS)
    corrupt = lambda: objective.corrupted(given._replace(z0=z0), u, keys)[:2]
    return jax.tree.map(np.asarray, jit(corrupt)())


def test_each_has_its_own_time_and_some_are_given():
    given = batch()
    z, clock = corrupted(loss(share_forward=0.2, share_inverse=0.3), given)
    text, signal = clock["text"] > 1e-6, clock["signal"] > 0
    assert abs((~text).mean() - 0.2) < 0.04 and abs((~signal).mean() - 0.3) < 0.04
    assert not (~text & ~signal).any()
    assert (z["text"][~text] < 4).all()
    np.testing.assert_array_equal(z["signal"][~signal], np.asarray(given.cond.signal)[~signal])
    both = text & signal
    assert abs(np.corrcoef(clock["text"][both], clock["signal"][both])[0, 1]) < 0.1
    assert abs(clock["signal"][~text].mean() - 0.5) < 0.07  # whichever part is given
    t = clock["signal"][signal][:, None, None]
    noise = (z["signal"][signal] - (1 - t) * np.asarray(given.cond.signal)[signal]) / t
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    late = clock["text"] > 0.9
    assert (z["text"][late] == 4).mean() > 0.9
    _, clock = corrupted(loss(separate_t=False, share_forward=0.0, share_inverse=0.0), given)
    np.testing.assert_array_equal(clock["text"], clock["signal"])


@dataclasses.dataclass(frozen=True)
class Off:
    """The exact network with a little more on one of its heads."""

    exact: ExactShown
    tilt: float = 0.0
    push: float = 0.0

    timed = False

    def __getattr__(self, name):
        return getattr(self.exact, name)

    @property
    def head(self):
        return lambda x: self.exact.head(x).at[..., 0].add(self.tilt)

    @property
    def heads(self):
        return {"signal": lambda x: self.exact.heads["signal"](x) + self.push}


def test_the_exact_network_is_the_least_of_it():
    """Paired draws: more on either head is dearer, in either direction, by what it must be."""
    given, objective = batch(), loss(tile=0)
    each = jit(
        lambda tilt, push: objective(
            Off(ExactShown(LAW), tilt, push), given, jax.random.key(3)
        ).metrics["loss_B"]
    )
    base = np.asarray(each(0.0, 0.0))
    assert np.isfinite(base).all()
    for tilt, push in ((1.0, 0.0), (-1.0, 0.0), (0.0, 0.3), (0.0, -0.3)):
        more = np.asarray(each(tilt, push)) - base
        assert more.mean() > 3 * more.std() / np.sqrt(ROWS) > 0
        if push:  # mean of (t / max(t, .1))^2 push^2 over t uniform, 0 where the signal is given
            wanted = 0.9 * (0.9 + 0.1 / 3) * push**2 * LENGTH
            assert abs(more.mean() - wanted) < 4 * more.std() / np.sqrt(ROWS)


def test_gradients_are_finite_where_a_part_is_given():
    """The weight of the bound at the time of a given text is infinite."""
    given = batch()
    objective = loss(tile=0, share_forward=0.5, share_inverse=0.5)
    total = lambda push: objective(Off(ExactShown(LAW), push, push), given, jax.random.key(3)).total
    assert np.isfinite(jit(jax.grad(total))(0.1))


def test_the_bound_is_of_tokens_given_the_signal():
    """For the exact network its mean is -log p(tokens | signal)."""
    given, bound = batch(), loss(tile=0).as_bound(1)
    assert isinstance(bound, GivenSignal) and bound.chain.endswith("given their signal")
    assert bound.bounds and not loss().bounds
    run = jit(lambda key: bound(ExactShown(LAW), given, key).metrics["loss_B"])
    nats = np.mean([run(jax.random.key(i)) for i in range(16)], axis=0)
    apart = nats + np.asarray(LAW.log_given(given.z0, given.cond.signal))
    assert abs(apart.mean()) < 4 * apart.std() / np.sqrt(ROWS)
    assert np.std(apart) < 2 and nats.mean() > 0.5


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"share_forward": 0.7, "share_inverse": 0.4}, "shares of the whole"),
        ({"condition_dropout": 0.1}, "condition_dropout does not apply"),
        ({"times": EventTimes()}, "times"),
        ({"process": Masked(tokens=TOKENS)}, "is for process joint"),
    ],
)
def test_wrong_fields(fields, words):
    with pytest.raises(ValueError, match=words):
        JointNelbo(**{"process": PROCESS, "context": NoContext(), **fields})


def test_data_without_a_signal():
    with pytest.raises(ValueError, match="needs data with a signal"):
        given = batch()
        loss()(None, given._replace(cond=given.cond._replace(signal=None)), jax.random.key(0))
