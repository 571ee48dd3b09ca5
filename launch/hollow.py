"""Hollow networks and informed corrections on a hidden Markov chain whose law is known.

    python launch/hollow.py --output=FOLDER [--methods=mdlm,hollow,hollow_sic,hollow_lddm] \
        [--seeds=0,1,2] [--updates=1500] [--samples=8192]

Every network (width 32, 2 blocks; hollow ones have two streams of that width) is trained on fresh
draws of the chain (8 symbols, rows of 32); its bound is that on draws of another seed. Samples of 8
and 16 steps, and of 8 steps with one correction of 4 positions after each (16 calls), are held
against the chain's own law: total variation of the law of neighbours, excess of -log p(x) a token
(negative: too typical), entropy of the law of neighbours. TV of samples is never 0: that of as many
exact rows is printed too, as the floor. One JSON line a method and seed, which is not made again;
means over seeds and standard errors of those means.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cells import mean_and_error

from ldd_jax.config import experiment as experiments
from ldd_jax.config.recipes import arguments, make
from ldd_jax.core import writing
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.core.types import as_batch
from ldd_jax.oracle.chain import Bench, Chain
from ldd_jax.samplers import Ancestral, InformedCorrector, LinearGrid, PredictorCorrector, sample
from ldd_jax.samplers.base import Net
from ldd_jax.training import sharding
from ldd_jax.training import state as states

BATCH, LENGTH, VOCABULARY = 64, 32, 8
ROWS = 4096  # of samples at a time
LAW = Chain.random(0, 6, VOCABULARY)
PAIRS = Bench(length=LENGTH, vocabulary=VOCABULARY)
CHOICES = {
    "random": dict(choose="random"),
    "entropy": dict(choose="entropy"),
    "informed, temperature 10": dict(temperature=10.0),
    "informed, temperature 1": dict(temperature=1.0),
    "informed, temperature 0.1": dict(temperature=0.1),
}


def build(method: str, updates: int) -> Any:
    """The experiment, on rows of the chain."""
    network = {"unroll": 2} if method == "mdlm" else {"mix_every": 1}
    config = make(
        arguments("", method=method, size="tiny"),
        data=dict(length=LENGTH),
        model=dict(width=32, depth=2, heads=4, cond_width=32, **network),
        optim=dict(lr=3e-3, warmup_steps=100, decay="cosine", b2=0.99),
        training=dict(num_steps=updates, batch_size=BATCH, ema_decay=0.995),
    )
    return experiments.build(config, SimpleNamespace(size=VOCABULARY))


def arrays(e: Any, key: Any, number: int) -> dict[str, Any]:
    """Fresh rows."""
    rows = np.asarray(DRAW(key, number))
    host = {
        "z0": rows,
        "keep": np.zeros(rows.shape, bool),
        "weight": np.ones(rows.shape, np.float32),
        "index": np.arange(number, dtype=np.int32),
    }
    return sharding.put(e.mesh, host)


DRAW = jax.jit(lambda key, number: LAW.draw(key, number, LENGTH), static_argnums=1)


def trained(e: Any, seed: int, updates: int) -> Any:
    """Averaged parameters."""
    like = states.abstract(e.model, e.update.optimizer, e.mesh)
    step = jax.jit(e.update, donate_argnums=0, out_shardings=(states.shardings(like), None))
    state = states.initial(e.model, e.update.optimizer, e.mesh, jax.random.key(seed))
    rows = jax.random.key(1000 + seed)
    for i in range(updates):
        given = arrays(e, jax.random.fold_in(rows, i), BATCH)
        state, _ = step(state, given, jax.random.key(2000 + seed))
    return state.ema


def bound(e: Any, params: Any, number: int = 4096) -> tuple[float, float]:
    """Nats a token with its standard error, on rows never trained on."""
    passes = 2 if e.model.latent else 1
    objective = e.objective.as_bound(passes)
    given = as_batch(arrays(e, jax.random.key(7), number))
    run = jax.jit(lambda p: objective(e.model.bind(p), given, jax.random.key(8)).metrics["loss_B"])
    nats = np.asarray(run(params)) / LENGTH
    return float(nats.mean()), float(nats.std() / number**0.5)


def measured(e: Any, params: Any, step: Any, count: int, number: int) -> dict[str, float]:
    """Samples of a rule against the chain, drawn `ROWS` at a time."""

    @jax.jit
    def run(params, index):
        prior = e.process.prior(example_keys(jax.random.key(1), index), LENGTH)
        draw = Production.of(jax.random.key(2), index)
        net = Net(e.model.bind(params), e.process)
        state = sample(net, step, draw, prior, count, grid=LinearGrid())[0]
        return state.z, state.calls

    pieces = [run(params, first + jnp.arange(ROWS)) for first in range(0, number, ROWS)]
    x, calls = (np.concatenate([np.asarray(p[i]) for p in pieces]) for i in (0, 1))
    truth = np.asarray(PAIRS.exact_pairs(LAW))
    found = PAIRS.pairs(x)
    exact = DRAW(jax.random.key(3), 65_536)
    nll = lambda rows: float(-jnp.mean(LAW.log_likelihood(rows)) / LENGTH)
    entropy = lambda p: float(-np.sum(p[p > 0] * np.log(p[p > 0])))
    return {
        "calls": float(np.mean(calls)),
        "tv": float(np.abs(found - truth).sum() / 2),
        "excess": nll(jnp.asarray(x)) - nll(exact),
        "entropy": entropy(found) - entropy(truth),
    }


def record(method: str, seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train and measure."""
    began = time.time()
    e = build(method, chosen.updates)
    params = trained(e, seed, chosen.updates)
    spent = time.time() - began
    rules: dict[str, tuple[Any, int]] = {"8 steps": (Ancestral(), 8), "16 steps": (Ancestral(), 16)}
    if method != "mdlm":
        for name, fields in CHOICES.items():
            corrector = InformedCorrector(positions=4, **fields)
            rules[f"8 steps, {name}"] = PredictorCorrector(corrector=corrector), 8
    return {
        "method": method,
        "seed": seed,
        "train_s": spent,
        "bound": bound(e, params),
        "rules": {
            name: measured(e, params, step, count, chosen.samples)
            for name, (step, count) in rules.items()
        },
    }


def table(records: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| method | rule | calls | TV of neighbours | excess, nats a token | their entropy, less "
        "the chain's |",
        "|---|---|---|---|---|---|",
    ]
    shown = lambda values, form: "{} +- {}".format(
        *(format(v, form) for v in mean_and_error(values))
    )
    of = lambda runs, rule, key: [r["rules"][rule][key] for r in runs]
    for method in dict.fromkeys(r["method"] for r in records):
        runs = [r for r in records if r["method"] == method]
        bounds = shown([r["bound"][0] for r in runs], ".4f")
        lines.append(f"| {method} | bound: {bounds} nats a token | | | | |")
        for rule in runs[0]["rules"]:
            lines.append(
                f"| {method} | {rule} | {np.mean(of(runs, rule, 'calls')):.0f} | "
                f"{shown(of(runs, rule, 'tv'), '.4f')} | "
                f"{shown(of(runs, rule, 'excess'), '+.4f')} | "
                f"{shown(of(runs, rule, 'entropy'), '+.4f')} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Fill and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", default="mdlm,hollow,hollow_sic,hollow_lddm")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--samples", type=int, default=8192, help=f"multiple of {ROWS}")
    chosen = parser.parse_args()
    keep_freed_memory()
    chosen.output.mkdir(parents=True, exist_ok=True)
    records = []
    for seed in map(int, chosen.seeds.split(",")):
        for method in chosen.methods.split(","):
            path = chosen.output / f"{method}-{seed}.json"
            if not path.exists():
                writing.write(path, json.dumps(record(method, seed, chosen)) + "\n")
            records.append(json.loads(path.read_text()))
            print(f"{method} seed {seed}: bound {records[-1]['bound'][0]:.4f}, "
                  f"{records[-1]['train_s']:.0f} s", flush=True)  # fmt: skip
    exact = -np.asarray(LAW.log_likelihood(DRAW(jax.random.key(3), 65_536))) / LENGTH
    floor = PAIRS.pairs(np.asarray(DRAW(jax.random.key(4), chosen.samples)))
    floor = np.abs(floor - np.asarray(PAIRS.exact_pairs(LAW))).sum() / 2
    print(f"\nentropy of the chain {exact.mean():.4f} nats a token; TV of {chosen.samples} exact "
          f"rows {floor:.4f}\n\n{table(records)}")  # fmt: skip


if __name__ == "__main__":
    main()
