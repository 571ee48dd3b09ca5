"""Random walks under SCUD's kernels, uniform and masked diffusion: which bound comes nearest?

    python launch/walks.py --output=runs/walks [--methods=graph,uniform,masked,udlm,mdlm] \
        [--seeds=0,1,2] [--updates=1500] [--sequences=512] [--draws=64]

A walk over 16 places, 32 steps of -1, 0, +1 (those that stay inside, all alike): its entropy is
known. Every method trains the same network (DiT 48 x 2) on the same walks for as many updates, and
its bound, with the prior term, is taken on the same held-out walks. One JSON line a run in
OUTPUT.jsonl; a run that is there is not made again. METHOD_latent: with loopholing, bound of two
passes. Then the table: differences to the first method, paired by walk, with their standard errors.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from cells import mean_and_error

from ldd_jax.core import outputs, registry
from ldd_jax.core.types import TokenSpace, as_batch
from ldd_jax.denoisers import DiT, Hollow
from ldd_jax.objectives import EventTimes, Nelbo, NoContext, PseudoContext, UniformTimes
from ldd_jax.processes import BandKernel, Masked, MaskedKernel, Scud, Uniform, UniformKernel
from ldd_jax.schedules import ExponentialSigma, LogLinear
from ldd_jax.training import state as states
from ldd_jax.training.optimizers import AdamW
from ldd_jax.training.step import Update

PLACES, LENGTH, BATCH = 16, 32, 64
# exp(-sigma_max) = 1e-4: what is left of the slowest mode at t = 1, for all of them.
SLOW, LINEAR = ExponentialSigma(sigma_max=9.21, growth=480.0), LogLinear(eps=1e-4)
METHODS: dict[str, Any] = {
    "graph": Scud(kernel=BandKernel(), schedule=SLOW),
    "wide": Scud(
        kernel=BandKernel(width=4, shape="gaussian"),
        schedule=ExponentialSigma(sigma_max=9.21, growth=100.0),
    ),
    "uniform": Scud(kernel=UniformKernel(), schedule=LINEAR),
    "masked": Scud(kernel=MaskedKernel(), schedule=LINEAR),
    "udlm": Uniform(schedule=LINEAR),
    "mdlm": Masked(schedule=LINEAR),
}


def walks(rng: np.random.Generator, count: int) -> np.ndarray:
    """Exact samples, [count, LENGTH]."""
    x = np.empty((count, LENGTH), np.int32)
    x[:, 0] = rng.integers(0, PLACES, count)
    for i in range(1, LENGTH):
        low, high = np.maximum(x[:, i - 1] - 1, 0), np.minimum(x[:, i - 1] + 1, PLACES - 1)
        x[:, i] = low + (rng.random(count) * (high - low + 1)).astype(np.int32)
    return x


def surprise(x: np.ndarray) -> np.ndarray:
    """-log p of every walk, nats a token."""
    choices = np.where((x[:, :-1] == 0) | (x[:, :-1] == PLACES - 1), 2, 3)
    return (np.log(PLACES) + np.log(choices).sum(1)) / LENGTH


def arrays(x: np.ndarray) -> dict[str, np.ndarray]:
    """A batch of whole rows."""
    return dict(
        z0=x,
        keep=np.zeros(x.shape, bool),
        weight=np.ones(x.shape, np.float32),
        index=np.arange(len(x), dtype=np.uint32),
    )


def built(method: str, kind: str) -> tuple[Any, Nelbo]:
    """The network and its loss."""
    name, _, latent = method.partition("_")
    mask = PLACES if name == "mdlm" else None
    tokens = TokenSpace(size=PLACES + (mask is not None), mask=mask)
    section = registry.section(METHODS[name])
    process = registry.build("process", section, tokens=tokens)
    model: Any = (Hollow if kind == "hollow" else DiT)(
        width=48, depth=2, heads=4, cond_width=32, latent=bool(latent),
        time_conditioning=mask is None, tokens=tokens,
    )  # fmt: skip
    times = EventTimes() if process.counts_events else UniformTimes()
    context = PseudoContext() if latent else NoContext()
    return model, Nelbo(process=process, times=times, context=context, num_classes=0)


def run(method: str, seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train and score; `bounds` by walk, prior term included, nats a token."""
    model, objective = built(method, chosen.model)
    optim = AdamW(lr=3e-3, warmup_steps=100, decay="cosine", b2=0.99)
    optimizer = registry.build("optim", registry.section(optim), num_steps=chosen.updates).make()
    update = jax.jit(Update(model, objective, optimizer, ema_decay=0.99), donate_argnums=0)
    state = states.create(model, optimizer, jax.random.key(seed))
    rng, key, begun = np.random.default_rng(seed), jax.random.key(1000 + seed), time.time()
    for _ in range(chosen.updates):
        state, metrics = update(state, arrays(walks(rng, BATCH)), key)
    seconds = time.time() - begun
    bound = objective.as_bound(2 if model.latent else 1)
    tests = walks(np.random.default_rng(10**6), chosen.sequences)

    @jax.jit
    def scored(params, batch, key):
        loss = bound(model.bind(params), as_batch(batch), key)
        return loss.metrics["loss_B"] / LENGTH

    total = np.zeros(len(tests))
    draws = [np.asarray(scored(state.ema, arrays(tests), jax.random.key(i)), np.float64)
             for i in range(chosen.draws)]  # fmt: skip
    total = np.mean(draws, 0) + float(objective.process.boundary())
    return {
        "method": method,
        "seed": seed,
        "updates": chosen.updates,
        "seconds": round(seconds, 1),
        "loss": float(metrics["loss"]),
        "prior": float(objective.process.boundary()),
        "spread": float(np.std(draws, 0).mean()),
        "entropy": float(surprise(tests).mean()),
        "bounds": [round(float(b), 6) for b in total],
    }


def table(found: dict[tuple[str, int], dict[str, Any]]) -> str:
    """Markdown: mean bounds over seeds, and differences to the first method by seed."""
    methods = list(dict.fromkeys(m for m, _ in found))
    seeds = sorted({s for _, s in found})
    lines = ["| method | bound, nats a token | s.d. of a draw | above the first, by seed |",
             "|---|---|---|---|"]  # fmt: skip
    for method in methods:
        own = [found[method, s] for s in seeds if (method, s) in found]
        mean, error = mean_and_error([float(np.mean(r["bounds"])) for r in own])
        apart = []
        for r in own:
            gap = np.subtract(r["bounds"], found[methods[0], r["seed"]]["bounds"])
            apart.append(f"{gap.mean():+.4f} ({gap.std(ddof=1) / np.sqrt(len(gap)):.4f})")
        spread = np.mean([r["spread"] for r in own])
        lines.append(
            f"| {method} | {mean:.4f} +- {error:.4f} | {spread:.3f} | {', '.join(apart)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", default="graph,uniform,masked,udlm,mdlm")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--model", default="dit", choices=("dit", "hollow"))
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--sequences", type=int, default=512)
    parser.add_argument("--draws", type=int, default=64)
    chosen = parser.parse_args()
    path = chosen.output.with_suffix(".jsonl")
    old = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    found = {(r["method"], r["seed"]): r for r in old if r["updates"] == chosen.updates}
    asked = [(m, int(s)) for s in chosen.seeds.split(",") for m in chosen.methods.split(",")]
    for method, seed in asked:
        if (method, seed) not in found:
            record = run(method, seed, chosen)
            found[method, seed] = record
            with outputs.place(str(path)).open() as stream:
                stream.writelines(json.dumps(r) + "\n" for r in [*old, *found.values()])
            print(method, seed, record["seconds"], np.mean(record["bounds"]), flush=True)
    print(table({pair: found[pair] for pair in asked}))


if __name__ == "__main__":
    main()
