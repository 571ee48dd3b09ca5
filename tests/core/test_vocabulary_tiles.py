"""The tiled sweep equals the plain call: losses, gradients, and memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core import logical
from ldd_jax.core.row_groups import Groups
from ldd_jax.core.types import TokenSpace
from ldd_jax.core.vocabulary_tiles import rows, rows_loss
from ldd_jax.denoisers.transformer import LinearHead
from ldd_jax.processes import Masked
from tests.lab import jit, subjaxprs

N, D, V = 24, 5, 13
PROCESS = Masked(tokens=TokenSpace(size=V, mask=4))


def problem(dtype, on):
    rng = np.random.default_rng(0)
    real = lambda *s: jnp.asarray(rng.normal(size=s), dtype)
    head = LinearHead(kernel=real(D, V), bias=real(V))
    x0 = jnp.asarray(rng.integers(5, V, N))
    weight = {
        "some": rng.uniform(size=N) * (rng.uniform(size=N) < 0.6),
        "none": np.zeros(N),
        "all": rng.uniform(0.1, 1, N),
    }[on]
    t = rng.uniform(0.1, 1, N)  # at 0 the bound is infinite: no spare place may be filled with it
    args = (x0, jnp.full(N, 4), jnp.asarray(t, dtype))
    return head, real(N, D), args, jnp.asarray(weight, dtype)


def solve(tile, groups, head, x, args, weight):
    fn = lambda logits, a: PROCESS.bound(logits, *a)

    def loss(head, x):
        total, each = rows_loss(fn, head, x, args, weight, tile=tile, groups=groups)
        return 3 * total, each  # a cotangent other than 1

    (total, each), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(head, x)
    return total, each, grads


@pytest.mark.slow
@pytest.mark.parametrize("on", ["some", "none", "all"])
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_tiles_and_groups_change_nothing(dtype, on):
    with jax.enable_x64(dtype == jnp.float64):
        given = problem(dtype, on)
        run = jax.jit(solve, static_argnums=(0, 1))
        plain = run(0, 1, *given)
        close = dict(rtol=1e-12, atol=1e-12) if dtype == jnp.float64 else dict(rtol=2e-5, atol=2e-6)
        for tile, groups in ((5, 1), (7, 2), (4, 4), (100, 1)):
            tiled = run(tile, groups, *given)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), plain, tiled)
        total, each, grads = plain
        assert np.all(np.isfinite(total)) and np.all(np.isfinite(grads[1]))
        assert np.array_equal(np.asarray(each) != 0, np.asarray(given[3]) != 0)
        assert (on == "none") == (float(total) == 0)


@pytest.mark.parametrize("tile, groups", [(4, 1), (3, 2), (8, 1)])
def test_spare_places_of_a_tile_count_nothing(tile, groups):
    """sum_n w_n a_n |x_n K|^2 by hand: no tile is full, and a row that fills one is a real one."""
    rng = np.random.default_rng(1)
    x, kernel, a = rng.normal(size=(8, 3)), rng.normal(size=(3, 2)), rng.uniform(1, 2, 8)
    w = np.array([0, 0.5, 0, 0, 2, 0, 0.25, 0])
    head = lambda kernel: jax.tree_util.Partial(lambda k, x: x @ k, kernel)
    fn = lambda logits, a: a * jnp.sum(logits**2, -1)

    def total(kernel, x):
        given = (jnp.asarray(a, jnp.float32), jnp.asarray(w, jnp.float32))
        return rows_loss(fn, head(kernel), x, *given, tile=tile, groups=groups)

    given = (jnp.asarray(kernel, jnp.float32), jnp.asarray(x, jnp.float32))
    close = dict(rtol=1e-5, atol=1e-6)
    each = np.where(w != 0, a * ((x @ kernel) ** 2).sum(1), 0)
    for found in (
        jit(total)(*given),
        jit(lambda *given: jax.value_and_grad(total, has_aux=True)(*given)[0])(*given),
    ):
        np.testing.assert_allclose(found[0], w @ each, **close)
        np.testing.assert_allclose(found[1], each, **close)
    d_kernel, d_x = jit(jax.grad(lambda *g: total(*g)[0], argnums=(0, 1)))(*given)
    scale = 2 * (w * a)[:, None]
    np.testing.assert_allclose(d_kernel, x.T @ (scale * (x @ kernel)), **close)
    np.testing.assert_allclose(d_x, scale * (x @ kernel @ kernel.T), **close)


class ThreePieces:
    """A layout that cuts positions in three and leaves arrays where they are."""

    def constrain(self, x, axes):
        assert len(axes) == x.ndim
        return x

    def pieces(self, axis):
        return 3 if axis == "length" else 1


def test_groups_of_sequences_and_pieces():
    """Group g, s holds piece s of the sequences of group g, and all rows come back."""
    rows = jnp.stack(jnp.meshgrid(jnp.arange(4), jnp.arange(6), indexing="ij"), -1).reshape(24, 2)
    with logical.placed(ThreePieces()):
        split = Groups.of(24, 2, 6)
        laid, plain = split.laid(rows), Groups.of(24, 2, 4)
        assert split.count == 6 and plain == Groups(2, 1, 4)
        assert Groups.of(24, 2, 0).count == 2
        np.testing.assert_array_equal(split.back(laid), rows)
        np.testing.assert_array_equal(plain.laid(rows), rows.reshape(2, 12, 2))
    for number, group in enumerate(laid):
        g, s = divmod(number, 3)
        want = [[b, i] for b in (2 * g, 2 * g + 1) for i in (2 * s, 2 * s + 1)]
        assert group.tolist() == want
    assert Groups.of(24, 2, 6) == Groups(2, 1, 6)


def test_groups_must_divide():
    with pytest.raises(ValueError, match="do not divide"):
        solve(4, 5, *problem(jnp.float32, "all"))


def shapes(fn, *args):
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    return {v.aval.shape for j in subjaxprs(jaxpr) for e in j.eqns for v in e.outvars}


def test_no_array_of_all_logits():
    given = problem(jnp.float32, "some")
    tiled = shapes(lambda *a: solve(5, 2, *a), *given)
    full = {(N, V), (2, N // 2, V), (N // 2, V)}
    assert not full & tiled and (2, 5, V) in tiled
    assert full & shapes(lambda *a: solve(0, 1, *a), *given)
    head, x, args, _ = given
    fn = lambda logits, a: jnp.argmax(logits, -1) + a[0]
    assert (N, V) not in shapes(lambda h, x, a: rows(fn, h, x, a, tile=5), head, x, args)


def test_rows_in_tiles():
    head, x, args, _ = problem(jnp.float32, "some")
    fn = lambda logits, a: {"best": jnp.argmax(logits, -1), "all": logits * a[2][:, None]}
    plain = rows(fn, head, x, args)
    # Sums of another order are off by rounding of their terms, which are about 1.
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=5e-7)
    for tile in (1, 5, 24, 30):
        jax.tree.map(close, plain, rows(fn, head, x, args, tile=tile))


@pytest.mark.parametrize("tile", [0, 2])
def test_a_row_without_weight_may_be_infinite(tile):
    """Its loss is 0, and so is what it adds."""
    given = (jnp.asarray([[1.0], [0.0], [2.0]]), jnp.zeros(3), jnp.asarray([1.0, 0.0, 0.5]))
    fn = lambda logits, a: 1 / logits[:, 0] + a
    head = jax.tree_util.Partial(lambda k, x: x * k, jnp.ones(()))
    total, each = jit(lambda: rows_loss(fn, head, *given, tile=tile))()
    np.testing.assert_allclose(total, 1.25, rtol=1e-6)
    np.testing.assert_allclose(each, [1, 0, 0.5], rtol=1e-6)
