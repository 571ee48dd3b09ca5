"""Points on a sphere (RDLM) against masked diffusion, on a hidden Markov chain whose law is known.

    python launch/rdlm.py --output=FOLDER [--methods=mdlm,rdlm,lddm_rdlm] [--seeds=0,1,2] \
        [--updates=3000] [--samples=2048]

Every network (DiT 48 x 2) learns from fresh draws of the chain (8 symbols, rows of 16), for as many
updates. Its bound is that on draws of another seed, with as many times and corruptions of each; of
methods with a latent it is that of two passes. Samples of 16 to 256 steps are
held against the chain: total variation of the law of neighbours, excess of -log p(x) a token
(negative: too typical), entropy of the law of neighbours. One JSON file a method and seed, which is
not made again; means over seeds and standard errors of those means.

    METHOD_uniform: begins in the middle of the sphere; METHOD_elbo: trained by the bound.
    METHOD_digits: ids in base 2, three positions of the network each.
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
from ldd_jax.core.registry import section
from ldd_jax.core.types import as_batch
from ldd_jax.objectives import UniformTimes
from ldd_jax.oracle.chain import Bench, Chain
from ldd_jax.samplers import Ancestral, Geodesic, sample
from ldd_jax.samplers.base import Net
from ldd_jax.training import sharding
from ldd_jax.training import state as states

BATCH, LENGTH, VOCABULARY = 64, 16, 8
LAW = Chain.random(0, 6, VOCABULARY)
PAIRS = Bench(length=LENGTH, vocabulary=VOCABULARY)
DRAW = jax.jit(lambda key, number: LAW.draw(key, number, LENGTH), static_argnums=1)
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "uniform": {"process": dict(prior_point="uniform")},
    "digits": {"process": dict(base=2)},
    "elbo": {"objective": dict(times=section(UniformTimes))},
}


def build(name: str, updates: int) -> Any:
    """The experiment, on rows of the chain."""
    parts = name.split("_")
    variant = parts[-1] if parts[-1] in VARIANTS else ""
    config = make(
        arguments("", method=name.removesuffix(f"_{variant}") if variant else name, size="tiny"),
        data=dict(length=LENGTH),
        model=dict(width=48, depth=2, heads=4, cond_width=32, unroll=2),
        optim=dict(lr=3e-3, warmup_steps=100, decay="cosine", b2=0.99),
        training=dict(num_steps=updates, batch_size=BATCH, ema_decay=0.995),
        **VARIANTS[variant],
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


def bound(e: Any, params: Any, number: int = 512, draws: int = 8) -> tuple[float, float, float]:
    """Nats a token, its standard error, and the chain's own for these rows."""
    objective = e.objective.as_bound(2 if e.model.latent else 1)
    given = arrays(e, jax.random.key(7), number)
    run = jax.jit(lambda p, key: objective(e.model.bind(p), as_batch(given), key).metrics["loss_B"])
    nats = np.mean([run(params, jax.random.key(i)) for i in range(draws)], 0) / LENGTH
    exact = -np.asarray(LAW.log_likelihood(given["z0"])) / LENGTH
    return float(nats.mean()), float(nats.std() / number**0.5), float(exact.mean())


def measured(
    e: Any, params: Any, step: Any, count: int, tail: str, number: int
) -> dict[str, float]:
    """Samples of a rule against the chain."""

    def run(params: Any, index: Any) -> Any:
        prior = e.process.prior(example_keys(jax.random.key(1), index), LENGTH)
        draw = Production.of(jax.random.key(2), index)
        net = Net(e.model.bind(params), e.process)
        state = sample(net, step, draw, prior, count, tail=tail)[0]
        return e.process.decode(state.z), state.calls

    made = jax.jit(run)
    some = [made(params, jnp.arange(i, i + 1024)) for i in range(0, number, 1024)]
    x = np.concatenate([np.asarray(tokens) for tokens, _ in some])
    truth, found = np.asarray(PAIRS.exact_pairs(LAW)), PAIRS.pairs(x)
    nll = lambda rows: float(-jnp.mean(LAW.log_likelihood(rows)) / LENGTH)
    entropy = lambda p: float(-np.sum(p[p > 0] * np.log(p[p > 0])))
    return {
        "calls": float(np.mean(some[0][1])),
        "tv": float(np.abs(found - truth).sum() / 2),
        "excess": nll(jnp.asarray(x)) - nll(DRAW(jax.random.key(3), 65_536)),
        "entropy": entropy(found) - entropy(truth),
    }


def rules(e: Any) -> dict[str, tuple[Any, int, str]]:
    """Rule, steps and tail by name."""
    if not e.process.points:
        return {f"ancestral, {n}": (Ancestral(), n, "sample") for n in (16, 64)}
    return {
        "ancestral, 16": (Ancestral(), 16, "sample"),
        "ancestral, 64": (Ancestral(), 64, "sample"),
        "geodesic, 64": (Geodesic(), 64, "none"),
        "geodesic, 64, drawn end": (Geodesic(), 64, "sample"),
        "geodesic, 256": (Geodesic(), 256, "none"),
    }


def record(method: str, seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train and measure."""
    began = time.time()
    e = build(method, chosen.updates)
    params = trained(e, seed, chosen.updates)
    spent = time.time() - began
    return {
        "method": method,
        "seed": seed,
        "updates": chosen.updates,
        "train_s": round(spent, 1),
        "bound": bound(e, params),
        "rules": {
            name: measured(e, params, *rule, chosen.samples) for name, rule in rules(e).items()
        },
        "all_s": round(time.time() - began, 1),
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
        above = shown([r["bound"][0] - r["bound"][2] for r in runs], "+.4f")
        lines.append(
            f"| {method} | bound {shown([r['bound'][0] for r in runs], '.4f')} nats a token, "
            f"{above} to -log p | | | | |"
        )
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
    parser.add_argument("--methods", default="mdlm,rdlm,lddm_rdlm")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--samples", type=int, default=2048)
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
    print(f"\n{table(records)}")


if __name__ == "__main__":
    main()
