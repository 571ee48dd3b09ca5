"""Tiles that are chosen: by rows and vocabulary, the same numbers as any other tile."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.config.sections import Sampling
from ldd_jax.core import vocabulary_tiles as tiles
from ldd_jax.objectives import Nelbo, NextToken
from tests.cli import tools


def test_all_at_once_while_their_logits_are_small():
    assert tiles.automatic(64 * 32, 107) == 0
    assert tiles.automatic(64 * 1024, 50_258) == 1280  # 245 MiB; all: 12.3 GiB
    assert tiles.automatic(1 << 20, 4097) == 16_256
    assert tiles.automatic(5, 1 << 30) == 1
    fit = tiles.ENOUGH // (4 * 107)  # as many as fit are one tile
    assert tiles.automatic(fit, 107) == 0 and tiles.automatic(fit + 1, 107) == fit - fit % 128
    for rows, vocabulary in ((1335, 50_258), (1336, 50_258), (10**6, 300)):
        tile = tiles.automatic(rows, vocabulary)
        assert 4 * vocabulary * (tile or rows) <= tiles.ENOUGH
        assert tile % 128 == 0 and (tile == 0 or 8 * vocabulary * tile > tiles.ENOUGH)


@pytest.mark.slow
def test_the_chosen_tile_walks_the_rows(monkeypatch):
    """With little room: no product of all rows is left, and the sums are those of one call."""
    monkeypatch.setattr(tiles, "ENOUGH", 4 * 16 * 8)
    x = jax.random.normal(jax.random.key(0), (64, 4))
    w = jax.random.normal(jax.random.key(1), (4, 16))
    weight = (jnp.arange(64) % 3 > 0).astype(jnp.float32)
    fn = lambda logits, y: jax.nn.logsumexp(logits, -1) - y
    head = jax.tree_util.Partial(lambda w, x: x @ w, w)
    loss = lambda tile: tiles.rows_loss(fn, head, x, jnp.zeros(64), weight, tile=tile)[0]
    np.testing.assert_allclose(loss(tiles.AUTO), loss(0), rtol=1e-6)
    shapes = lambda tile: str(jax.make_jaxpr(lambda: loss(tile))())
    assert "f32[64,16]" in shapes(0) and "f32[64,16]" not in shapes(tiles.AUTO)
    out = lambda tile: tiles.rows(fn, head, x, jnp.zeros(64), where=weight > 0, tile=tile)
    on = np.asarray(weight) > 0
    np.testing.assert_allclose(out(tiles.AUTO)[on], out(0)[on], rtol=1e-6)


def test_it_is_the_default_and_less_is_refused():
    assert Nelbo().tile == NextToken().tile == Sampling().tile == tiles.AUTO
    for made in (lambda: Nelbo(tile=-2), lambda: Sampling(tile=-2)):
        with pytest.raises(ValueError, match="tile is -2; it must be -1"):
            made()


@pytest.mark.slow
def test_the_plan_counts_its_trips():
    """A recipe that leaves the tile open, with GPT-2's vocabulary: half of the rows in tiles."""
    found = tools.good(
        "plan", "--config=configs/lm1b.py:method=mdlm,size=tiny", "--what=flops", "--json",
        "--vocabulary=50257", "--config.objective.tile=-1", "--config.training.batch_size=64",
    ).out  # fmt: skip
    trips = json.loads(found)["expectations"]["while in scored_rows"]
    rows = 64 * 128
    assert trips == pytest.approx(rows / 2 / 1280 + 0.5, rel=0.01)
