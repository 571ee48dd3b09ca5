"""What a program reads in a narrower type is brought to it once, with the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.casts import cast_once, kind

BF16 = jnp.bfloat16
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3)), jnp.float32)


def layers(w):
    """Slices of a scan, within a checkpoint."""
    one = jax.checkpoint(lambda c, a: (c @ a.astype(BF16), None))
    return jax.lax.scan(one, jnp.ones((3, 3), BF16), w)[0]


def looped(w):
    return jax.lax.fori_loop(0, 4, lambda i, c: layers(w) + c, jnp.zeros((3, 3), BF16))


def chosen(w):
    other = lambda w: w[0].T.astype(BF16)
    return jax.lax.switch(jnp.argmax(w[0, 0].astype(BF16)), [layers, other, layers], w)


def waiting(w):
    busy = lambda c: jnp.sum(w[1].astype(BF16)) + c[0, 0] < 9
    return jax.lax.while_loop(busy, lambda c: c + 1 + jnp.abs(layers(w)), jnp.zeros((3, 3), BF16))


READS = {
    "layers": layers,
    "jit": jax.jit(layers),
    "loop": looped,
    "condition": chosen,
    "while": waiting,
    "moved": lambda w: w[jnp.array([1, 0])].reshape(6, 3)[1:].T[None].astype(BF16),
    "derivative": lambda w: jax.nn.relu(w.astype(BF16)),
}


@pytest.mark.parametrize("name", READS)
def test_it_is_cast_once_and_the_numbers_are_the_same(name):
    fn = READS[name]
    jaxpr = jax.make_jaxpr(fn)(X).jaxpr
    assert kind(jaxpr, jaxpr.invars[0]) == BF16
    seen = []
    spied = lambda w: (seen.append(w.dtype), fn(w))[1]
    found = jax.jit(cast_once(spied))(X)
    np.testing.assert_array_equal(found, jax.jit(fn)(X))
    assert seen[-1] == BF16


KEPT = {
    "read wide": lambda w: w.astype(BF16) + w,
    "unused": lambda w: jnp.zeros(3),
    "handed back": lambda w: (w, w.astype(BF16)),
    "two types": lambda w: (w.astype(BF16), w.astype(jnp.float16)),
    "integers": lambda w: w.astype(jnp.int8),
    "wider": lambda w: w.astype(jnp.float32) * 2.0,
    "an index": lambda w: X[0][w.astype(jnp.int32)[0, 0]],
    "carried": lambda w: jax.lax.fori_loop(0, 2, lambda i, c: c.astype(BF16).astype(c.dtype), w),
    "scan carry": lambda w: jax.lax.scan(lambda c, _: (c[::-1], c.astype(BF16)), w, None, 2)[1],
    "one branch": lambda w: jax.lax.cond(
        jnp.any(X > 9), lambda w: w.astype(BF16) > 1, lambda w: w > 1, w
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_read_otherwise_stays(name):
    jaxpr = jax.make_jaxpr(KEPT[name])(X).jaxpr
    assert kind(jaxpr, jaxpr.invars[0]) is None
