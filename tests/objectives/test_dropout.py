"""Dropout: every call of the network on every row has a key of its own, and none without it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Batch, Cond
from ldd_jax.objectives import Nelbo, PseudoContext, Rollout, Unrolled
from tests.objectives.test_buffered import MASKED, SHAPE, B, L
from tests.objectives.test_stopped_context import Line, W

HEARD: list[np.ndarray | None] = []


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Listener(Line):
    """Notes the keys of every call, [B, 2], or None."""

    def trunk(self, z, cond, h=None, *, key=None):
        if key is None:
            HEARD.append(None)
        else:
            jax.debug.callback(
                lambda bits: HEARD.append(np.asarray(bits)), jax.random.key_data(key)
            )
        return super().trunk(z, cond, h)


def keys_of(context, dropout):
    HEARD.clear()
    ones = jnp.ones((B, L))
    z0 = jnp.zeros((B, L), jnp.int32)
    batch = Batch(z0, ones < 0, ones, Cond(), jnp.arange(B), B, jnp.sum(ones), jnp.int32(0))
    objective = Nelbo(process=MASKED, context=context, dropout=dropout)
    aux = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), objective.aux(B, L))
    key = jax.random.key(3)
    _, batch = objective.drawn(Listener(W), batch, aux, key)
    jax.block_until_ready(objective(Listener(W), batch, key).total)
    jax.effects_barrier()
    return list(HEARD)


@pytest.mark.parametrize(
    "context, calls",
    [
        (PseudoContext(p=1.0, passes=3), 4),
        (Unrolled(passes=3, gradient=1, steps=4), 4),
        (Unrolled(passes=1, scored="all", steps=4), 2),
        (Rollout(steps=4, passes=1, carried=SHAPE), 2),
    ],
    ids=["pseudo", "unrolled", "all of unrolled", "rollout"],
)
def test_every_call_has_keys_of_its_own(context, calls):
    """As many different ones as there are rows and calls."""
    keys = keys_of(context, dropout=True)
    assert len(keys) == calls
    assert len({tuple(k) for k in np.concatenate(keys)}) == calls * B
    assert set(map(type, keys_of(context, dropout=False))) == {type(None)}
