"""GPT-2 as judge: logits, nats, which tokens count, long documents, sample entropy."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.evaluation import gpt2
from ldd_jax.evaluation.quality import unigram_entropy
from tests.parity.cases.networks import NETWORK
from tests.parity.golden import Golden
from tests.parity.runner import kind

FITTED = 2  # rows of logits from which lost weights are recovered


def recovered(params: Any, shape: gpt2.Shape, ids: np.ndarray, logits: np.ndarray) -> Any:
    """The parameters with the attention biases that a set does not hold, by least squares.

    A name that ends in `attn.bias` is that of GPT-2's mask buffer, and `c_attn.bias` was left out
    with it. Two vectors a layer (the keys' biases do not matter) against thousands of recorded
    logits: only the right network leaves no residual, on these rows and on all others.
    """
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), params)
        trunk = wide["trunk"]
        blocks, start = trunk["blocks"], trunk["blocks"]["qkv"]["bias"]
        double = gpt2.Shape(dataclasses.replace(shape.network, dtype="float64"))

        def put(bias):
            qkv = blocks["qkv"] | {"bias": bias.reshape(start.shape)}
            return wide | {"trunk": trunk | {"blocks": blocks | {"qkv": qkv}}}

        residual = lambda b: (gpt2.logits(put(b), double, jnp.asarray(ids)) - logits).reshape(-1)
        bias = start.reshape(-1)
        # Attention has a rule for the backward pass alone, so slopes are differences in float64.
        steps = 1e-5 * jnp.eye(len(bias))
        slope = lambda b: jax.lax.map(lambda e: (residual(b + e) - residual(b - e)) / 2e-5, steps).T
        both = jax.jit(lambda b: (residual(b), slope(b)))
        for _ in range(12):
            value, jacobian = map(np.asarray, both(bias))
            bias = bias - np.linalg.lstsq(jacobian, value, rcond=1e-9)[0]
        return jax.tree.map(lambda a: np.asarray(a, np.float32), put(bias))


@kind("gpt2_judge")
def judge(golden: Golden) -> None:
    """The production judge on the recorded ids."""
    shape = gpt2.Shape.of(golden.config(), golden.stem)
    tensors, ids = golden.weights(), golden.given("ids")
    biases = {f"transformer.h.{i}.attn.c_attn.bias" for i in range(shape.network.depth)} - set(
        tensors
    )
    zeros = {name: np.zeros(3 * shape.network.width, np.float32) for name in biases}
    params = gpt2.parameters(tensors | zeros, shape)
    if biases:
        params = recovered(params, shape, ids[:FITTED], golden.arrays["logits"][:FITTED])
    found = gpt2.GPT2Judge(params, shape, None, "golden", "golden")
    run = lambda: gpt2.logits(params, shape, jnp.asarray(ids))
    golden.check("logits", run, NETWORK)
    if "attention_mask" in golden:
        real = golden.given("attention_mask").astype(bool)
        golden.check("logits_masked", run, NETWORK, where=real)  # causal: padding is to the right
    nll = lambda: gpt2.token_nats(params, shape, jnp.asarray(ids))
    golden.check("nll", nll, NETWORK)
    golden.check("valid", lambda: gpt2.counted(ids, shape.eos), 0.0)
    ppl = lambda: np.exp(np.divide(*(a.sum() for a in found.nats(ids))))
    golden.check("gen_ppl", ppl, NETWORK)
    if "long_ids" in golden:
        nats, tokens = found.nats(golden.given("long_ids"))
        golden.check("long_nll_sum", lambda: nats.sum(), NETWORK)
        golden.check("long_count", lambda: tokens.sum(), 0.0)
    golden.check("unigram_entropy", lambda: unigram_entropy(ids), 1e-6)
