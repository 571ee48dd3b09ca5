"""A device against the CPU and against an exact law: part `agreement` of launch/gpu.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gpu_parts import arrays, experiment
from scipy import stats

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import as_batch
from ldd_jax.inference import generate
from ldd_jax.oracle.laws import Exact, Law, index
from ldd_jax.processes import Masked
from ldd_jax.samplers import FirstHitting, sample
from ldd_jax.samplers.net import Net

Record = dict[str, Any]


def fingerprint(small: bool) -> Record:
    """Losses by row and sampled tokens of one float32 network."""
    out: Record = {}
    for method in ("mdlm", "lddm_m", "udlm"):
        fields = dict(model__dtype="float32", sampling__batch_size=16, data__length=128)
        e = experiment(method, 16, True, **fields)
        leaves, tree = jax.tree.flatten(e.model.init(e.key(0)))
        keys = jax.random.split(jax.random.key(1), len(leaves))
        live = [p + 0.1 * jax.random.normal(k, p.shape) for k, p in zip(keys, leaves)]
        params = jax.tree.unflatten(tree, live)
        for precision in ("default", "highest"):
            with jax.default_matmul_precision(precision):
                gradients = jax.jit(lambda p, a, e=e: e.update.gradients(p, as_batch(a), e.key(1)))
                loss, found = gradients(params, arrays(e, 16))
                nothing = np.zeros(128, bool)
                sampler = generate.Sampler.make(e, e.sampling, 128)
                z = sampler.batch(params, 0, 0, nothing, nothing, 16)[0].z
            norm = sum(float((g.astype("float32") ** 2).sum()) for g in jax.tree.leaves(found))
            out[f"{method} {precision}"] = {
                "loss": np.asarray(loss.metrics["loss_B"], np.float64).tolist(),
                "gradient_norm": norm**0.5,
                "tokens": np.asarray(z).tolist(),
            }
    return out


def agreement(small: bool) -> Record:
    """This device against the CPU, and against an exact law."""
    flags = [
        sys.executable,
        str(Path(__file__).with_name("gpu.py")),
        "--part=fingerprint",
        "--output=.",
        "--small",
    ]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(flags, env=env, capture_output=True, text=True, check=True)
    there, here = json.loads(done.stdout.splitlines()[-1]), fingerprint(small)
    out: Record = {}
    for name, a in here.items():
        b = there[name]
        apart = np.abs(np.subtract(a["loss"], b["loss"])) / np.abs(b["loss"])
        out[name] = {
            "loss_relative": float(apart.max()),
            "gradient_relative": abs(a["gradient_norm"] / b["gradient_norm"] - 1),
            "tokens_equal": float(np.mean(np.equal(a["tokens"], b["tokens"]))),
        }
    return out | {"first_hitting against its law": law(20_000 if small else 400_000)}


def law(number: int) -> Record:
    """Chi-square of first-hitting samples, whose law is p_0, on 27 sequences."""
    toy = Law(3, 3, 3, 5.0)
    process = Masked(tokens=toy.tokens)
    rows = jnp.arange(number)
    prior = process.prior(example_keys(jax.random.key(1), rows), 3)
    draw = Production.of(jax.random.key(2), rows)
    run = lambda: sample(Net(Exact.of(toy), process), FirstHitting(), draw, prior, 1)[0].z
    count = np.bincount(np.asarray(index(jax.jit(run)(), 3)), minlength=27)
    return {"samples": number, "p": float(stats.chisquare(count, number * toy.p).pvalue)}
