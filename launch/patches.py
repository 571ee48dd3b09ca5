"""Bytes against patches at equal operations a byte, and clocks by patch against uniform ones.

    python launch/patches.py --output=runs/patches [--variants=bytes,static,...] [--seeds=0,1,2] \
        [--updates=1500] [--clocks=space,space_latent] [--rows=256] [--paths=4]

Every variant is a run of `configs/patches.py` on the prose of Python's documentation, size=tiny,
in OUTPUT/VARIANT-SEED, which goes on where it was stopped; what it reached is a JSON line in
OUTPUT/runs.jsonl. `bytes`: a DiT by byte with as many operations a byte as `static`; `_latent`:
loopholing, bound of two passes; `space`: the patches are given to the network, so that its bound
is that of the bytes given the patches (docs/patches.md). Then, for the variants of --clocks, the
bound of the sampler's own likelihood with clocks by entropy, uniform clocks with as many steps of
patches in all, and the clocks by entropy dealt anew among the patches of a row: one line a seed,
rule and work in OUTPUT/clocks.jsonl. What is there is not made again. Tables at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cells import mean_and_error

from ldd_jax.config.experiment import read_corpus
from ldd_jax.core.draws import Production
from ldd_jax.inference import carried
from ldd_jax.inference.generate import Sampler
from ldd_jax.inference.loading import load_trained
from ldd_jax.inference.programs import network
from ldd_jax.runs import train
from ldd_jax.samplers import PatchClock
from ldd_jax.samplers.loop import start
from ldd_jax.samplers.patch_clock import units

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = {
    "bytes": "method=patch_mdlm,by=byte",
    "bytes_latent": "method=patch_lddm,by=byte",
    "static": "method=patch_mdlm",
    "static_latent": "method=patch_lddm",
    "space": "method=patch_mdlm,patches=space",
    "space_latent": "method=patch_lddm,patches=space",
    "ar_bytes": "method=patch_ar,by=byte",
    "ar_static": "method=patch_ar",
}
WORKS = (2, 4, 8)  # steps of a patch, on average
FINE = 10_000  # parts of a nat in which entropies are read off


def config_of(variant: str, seed: int, updates: int) -> Any:
    """The config of a run."""
    spec = importlib.util.spec_from_file_location("patches_config", ROOT / "configs/patches.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(VARIANTS[variant])
    with config.unlocked():
        config.seed = seed
        config.training.update(num_steps=updates, batch_size=32, eval_every=0, sample_every=0)
        config.training.checkpoint_every = 250
        config.sampling.update(num_samples=2, num_steps=8)
        config.evaluation.update(max_sequences=1024, draws=4)
    return config


def trained(variant: str, seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train (or go on); bits a byte of held-out text."""
    workdir = chosen.output / f"{variant}-{seed}"
    found = train.train(config_of(variant, seed, chosen.updates), workdir)
    bits = lambda name: found[name] / math.log(2)
    return {
        "variant": variant,
        "seed": seed,
        "updates": chosen.updates,
        "bits": bits("nelbo_nats_per_token"),
        "bits_se": bits("nelbo_se"),
        "seconds": found["seconds"],
        "parameters": found["parameters"],
    }


def entropies(experiment: Any, params: Any, sampler: Sampler, rows: int) -> np.ndarray:
    """H of every patch at the first call, [rows, L], nats; 0 past the last patch."""
    length = sampler.length
    none = np.zeros((rows, length), bool)
    unit = None
    if sampler.patterns is not None:
        unit = jnp.asarray(sampler.patterns.units(np.arange(rows), 0, none.astype(int), none))
    net = network(experiment, sampler.sampling, params, None, unit)
    rule = PatchClock(alpha=FINE, most=1 << 30)
    prior = experiment.process.prior(jax.random.split(jax.random.key(0), rows), length)
    state = start(net, prior, None)
    draw = Production.of(jax.random.key(0), jnp.arange(rows))
    unit = units(net, state, rule.size)
    steps = rule.clocks(net, net.trunk(state), state, unit, draw)
    out = np.zeros((rows, length))
    np.put_along_axis(out, np.asarray(unit), np.asarray(steps) / FINE, axis=1)
    return out


def alpha_of(nats: np.ndarray, work: float) -> float:
    """Steps by nat with which patches take `work` steps on average."""
    live = nats[nats > 0]
    mean = lambda alpha: np.maximum(np.ceil(alpha * live), 1).mean()
    low, high = 0.0, 100.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < work else (low, middle)
    return high


def clocks(variant: str, seed: int, work: int, chosen: argparse.Namespace) -> list[dict]:
    """Bounds of three rules at equal work."""
    experiment, params, _ = load_trained(chosen.output / f"{variant}-{seed}")
    corpus = read_corpus(experiment)
    length = experiment.config.data.length
    base = Sampler.make(experiment, experiment.sampling, length)
    alpha = alpha_of(entropies(experiment, params, base, 128), work)
    rules = {
        "uniform": PatchClock(alpha=0.0, least=work),
        "entropy": PatchClock(alpha=alpha),
        "shuffled": PatchClock(alpha=alpha, shuffle=True),
    }
    out = []
    for name, rule in rules.items():
        sampling = dataclasses.replace(experiment.sampling, step=rule, batch_size=64)
        made = Sampler.make(experiment, sampling, length)
        nothing = np.zeros(length, np.int32)
        state, _ = made.batch(params, seed, 0, nothing, nothing > 0, 1)
        found = carried.evaluate_split(
            experiment,
            corpus,
            params,
            sampling,
            trajectories=chosen.paths,
            sequences=chosen.rows,
        )
        out.append({
            "variant": variant, "seed": seed, "rule": name, "asked": work, "alpha": alpha,
            "bits": found.nats / math.log(2), "bits_se": found.se / math.log(2),
            "work": float(np.mean(state.memory.work)), "calls": float(np.mean(state.calls)),
        })  # fmt: skip
    return out


def lines(path: Path) -> list[dict[str, Any]]:
    """What is there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def add(path: Path, records: list[dict[str, Any]]) -> None:
    """More of it."""
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(r) + "\n" for r in records)


def table(records: list[dict[str, Any]], keys: tuple[str, ...], extra: tuple[str, ...]) -> str:
    """Markdown: mean over seeds and its standard error."""
    groups: dict[tuple, list[dict]] = {}
    for r in records:
        groups.setdefault(tuple(r[k] for k in keys), []).append(r)
    rows = [f"| {' | '.join(keys)} | seeds | bits a byte | {' | '.join(extra)} |"]
    rows.append("|" + "---|" * (len(keys) + 2 + len(extra)))
    for group, own in groups.items():
        mean, error = mean_and_error([r["bits"] for r in own])
        said = [f"{np.mean([r[e] for r in own]):.4g}" for e in extra]
        text = f"{mean:.4f} +- {error:.4f}" if len(own) > 1 else (
            f"{mean:.4f} (rows {own[0]['bits_se']:.4f})"
        )  # fmt: skip
        rows.append(f"| {' | '.join(map(str, group))} | {len(own)} | {text} | {' | '.join(said)} |")
    return "\n".join(rows)


def main() -> None:
    """Make what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--variants", default="bytes,static,bytes_latent,static_latent,space")
    parser.add_argument("--clocks", default="space")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--paths", type=int, default=4)
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    asked = lambda text: [name for name in text.split(",") if name]
    for seed in map(int, asked(chosen.seeds)):
        for variant in asked(chosen.variants):
            path = chosen.output / "runs.jsonl"
            there = {(r["variant"], r["seed"], r["updates"]) for r in lines(path)}
            if (variant, seed, chosen.updates) not in there:
                add(path, [trained(variant, seed, chosen)])
        for variant in asked(chosen.clocks):
            for work in WORKS:
                path = chosen.output / "clocks.jsonl"
                if (variant, seed, work) not in {
                    (r["variant"], r["seed"], r["asked"]) for r in lines(path)
                }:
                    add(path, clocks(variant, seed, work, chosen))
    print(table(lines(chosen.output / "runs.jsonl"), ("variant",), ("parameters", "seconds")))
    found = lines(chosen.output / "clocks.jsonl")
    if found:
        print(table(found, ("variant", "asked", "rule"), ("work", "calls", "alpha")))


if __name__ == "__main__":
    main()
