"""Operations are counted through loops, branches and recomputation; what loopholing costs."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from ldd_jax.config import experiment as experiments
from ldd_jax.config.recipes import make
from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Cond
from ldd_jax.core.vocabulary_tiles import SCORED
from ldd_jax.planning import aot, chips, cost
from ldd_jax.planning.flops import count
from ldd_jax.samplers import Dual
from ldd_jax.training import state as states
from tests.cli import tools

A, B = jnp.zeros((3, 4, 5)), jnp.zeros((3, 5, 7))
ONE = 2 * 3 * 4 * 5 * 7


def product(a, b):
    return jnp.einsum("bij,bjk->bik", a, b)


def test_products_scans_and_recomputation():
    assert count(product, A, B).total == ONE
    looped = lambda a, b: jax.lax.scan(lambda c, _: (c, product(a, b).sum()), 0.0, length=6)
    assert count(looped, A, B).total == 6 * ONE
    plain = jax.grad(lambda a, b: jnp.sin(product(a, b)).sum(), argnums=(0, 1))
    assert count(plain, A, B).total == 3 * ONE
    once = jax.checkpoint(lambda a, b: jnp.sin(product(a, b)).sum())
    redone = jax.value_and_grad(once, argnums=(0, 1))  # the value alone needs the first product
    assert count(redone, A, B).total == 4 * ONE


def test_what_depends_on_data_needs_an_expectation():
    def fn(n, a, b):
        with jax.named_scope("loop"):
            return jax.lax.fori_loop(0, n, lambda i, s: s + product(a, b).sum(), 0.0)

    with pytest.raises(ValueError, match="no stated expectation"):
        count(fn, 3, A, B)
    found = count(fn, 3, A, B, expected={"loop": 2.5})
    assert found.total == 2.5 * ONE and found.assumed == {"while in loop": 2.5}

    def branch(p, a, b):
        with jax.named_scope("gate"):
            return jax.lax.cond(p, lambda: product(a, b).sum(), lambda: 0.0)

    assert count(branch, True, A, B, expected={"gate": 0.25}).total == 0.25 * ONE


def built(method, **model):
    """GPT-2 small's widths at two layers and a short vocabulary."""
    config = make(
        {"method": method, "size": "tiny"},
        data={"path": "unread", "length": 64},
        model={"width": 64, "depth": 2, "heads": 2, **model},
        objective={"tile": 32},
        training={"batch_size": 8},
    )
    return experiments.build(config, SimpleNamespace(size=512))


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_a_step_costs_what_its_parts_say(remat):
    """k trunk passes and 3 heads plain; p more trunks and half the heads with row selection."""
    e = built("lddm_m", remat=remat)
    tokens = 8 * 64
    parts = cost.closed_form(e, tokens)
    k = {"none": 3, "full": 4}.get(remat)
    base = cost.step_count(cost.plain(e), 8)
    step = cost.step_count(e, 8)
    if k:  # the adaLN products are per example, hence a little above
        want = k * parts["trunk"] + 3 * parts["head"]
        assert want <= base.total <= 1.02 * want
    head = step.by_scope["scored_rows"]
    trips = step.assumed["while in scored_rows"]
    assert trips == pytest.approx(tokens / 2 / 32 + 0.5, rel=2e-3)
    assert head == pytest.approx(3 * trips * 32 / tokens * parts["head"], rel=1e-6)
    gate = step.by_scope["context_gate"]
    assert 0.9 * parts["trunk"] <= gate <= 1.02 * 0.9 * parts["trunk"]
    assert step.total < base.total * 1.25


def test_every_row_of_a_uniform_process_counts():
    step = cost.step_count(built("udlm"), 8)
    assert step.assumed == {"while in scored_rows": 16.0}


def test_chips_and_topologies_in_words():
    assert chips.chip("v5e:4x4").memory_gib == 16
    for name in ("v5e", "v5e:", "v5e:4xx", "h100:1x1"):
        with pytest.raises(UserError):
            chips.chip(name)


def test_no_array_of_the_whole_vocabulary():
    """[B, L, V] in float32 stands in the plain step's jaxpr, and not in the tiled one's."""

    def largest(e):
        update = e.update
        like = states.abstract(e.model, update.optimizer, e.mesh)
        key = jax.eval_shape(lambda: jax.random.key(0))
        text = str(jax.make_jaxpr(update)(like, cost.arrays(e, 8), key))
        return f"[8,64,{e.tokens.size}]" in text or f"[512,{e.tokens.size}]" in text

    e = built("lddm_m")
    assert not largest(e)
    assert largest(dataclasses.replace(e, objective=dataclasses.replace(e.objective, tile=0)))


def test_the_stated_expectation_is_what_batches_show():
    e = built("lddm_m")
    stated = cost.expectations(e, 256)[SCORED]
    found = cost.measured(e, 256, 1)
    assert found["trips"] == pytest.approx(stated, abs=1)
    assert found["fullest_shard"] == pytest.approx(0.5, abs=0.01)
    # Bit-reversed times: no shard is much fuller than the mean (0.94 in contiguous order).
    assert cost.measured(e, 1024, 16)["fullest_shard"] < 0.53
    assert cost.measured(built("lddm_u"), 8, 1)["trips"] == 8 * 64 / 32


@pytest.mark.slow
def test_the_table_of_parameters():
    """clu's table of names, shapes, types and sizes; its sum is the model's."""
    found = tools.good("plan", tools.recipe("lddm_m,size=tiny"), "--what=parameters").out
    assert "trunk/embed/table" in found and "float32" in found
    total = int(found.rstrip().splitlines()[-1].split("Total: ")[1].split(" ")[0].replace(",", ""))
    record = tools.good("plan", tools.recipe("lddm_m,size=tiny"), "--what=flops", "--json").out
    assert json.loads(record)["parameters"] == total > 300_000


@pytest.mark.parametrize(
    "method, forward, trained, states, made",
    [
        ("lddm_unrolled", 4, 1, 1, 0),
        ("lddm_rollout", 0, 1, 1, 0),
        ("relay", 0, 2, 2, 0),
        ("soft_masking", 0.8, 1, 1, 0.8),
        ("rcd", 1, 1, 1, 2),
        ("self_conditioning", 1, 1, 1, 2),
        ("looped", 0, 2, 1, 0),
    ],
)
def test_what_relatives_cost(method, forward, trained, states, made):
    """Trunks run forward only and with gradient, scored heads, and heads of what is carried."""
    e = built(method)
    tokens = 8 * 64
    parts = cost.closed_form(e, tokens)
    trunk, head = parts["trunk"] / e.config.model.loops, parts["head"]
    step = cost.step_count(e, 8)
    scored = step.by_scope["scored_rows"]
    rows = tokens * states / 2 + 16
    assert scored == pytest.approx(3 * rows / tokens * head, rel=3e-3)
    want = (forward + 3 * trained) * trunk + made * head
    rest = step.total - scored
    assert want * 0.995 <= rest <= 1.04 * want
    counted = cost.model_operations(e, tokens)
    gate = 0.5 if method == "self_conditioning" else 1.0
    own = (forward * gate + 3 * trained) * trunk + 1.5 * states * head + made * gate * head
    assert counted == pytest.approx(own, rel=3e-3)
    plain = cost.plain(e)
    own = sum(cost.closed_form(plain, tokens).values())
    assert cost.step_count(plain, 8).total == pytest.approx(3 * own, rel=0.02)


@pytest.mark.slow
def test_passes_that_make_a_cache_anew_are_counted():
    """Four blocks of 16: from every 8th step to every 4th it is half a pass of the row more."""
    e = built("mdlm")
    z = jnp.zeros((8, 64), jnp.int32)
    cond, params = Cond(clock=jnp.zeros(8)), e.abstract().params
    whole = count(lambda p: e.model.bind(p).trunk(z, cond).features, params).total

    def with_blocks(refresh):
        sampling = dataclasses.replace(e.sampling, blocks=Dual(size=16, refresh=refresh))
        return dataclasses.replace(e, sampling=sampling)

    often, rarely, once = (cost.sampler_step_count(with_blocks(n), 8, 8).total for n in (4, 8, 0))
    assert often - rarely == pytest.approx(4 * (1 / 4 - 1 / 8) * whole)
    assert rarely == once < 4 * cost.sampler_step_count(e, 8, 8).total  # of four blocks
    keys_and_values = 2 * 2 * 8 * 64 * 64 * 4
    assert aot.cache(with_blocks(4), 8, 64) == keys_and_values + 2 * 4  # and a place by layer
    assert aot.cache(e, 8, 64) == 0
