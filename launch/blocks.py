"""Block diffusion between autoregression and diffusion over the row; and what its cache is worth.

    python launch/blocks.py --output=runs/blocks [--variants=ar,block4,...] [--seeds=0,1,2] \
        [--updates=3000] [--samples=64] [--judge=ngram]
    python launch/blocks.py --speed [--length=512] [--block=16] [--batch=1] [--repeats=3]

A variant is a run of `configs/block.py` or `configs/quickstart.py`, size=tiny, in
OUTPUT/VARIANT-SEED, which goes on where it was stopped. All of them get as many operations as
`--updates` updates of `full` do, by the count of `plan --what=flops`: a doubled row costs more, a
first pass for the latent too. `_latent` = loopholing; there is none of a left-to-right model, whose
block of one position has no step before. Of each: the bound (k_form; the likelihood for ar), the
judge's perplexity and the samples' entropy, and tokens/s of a batch, by `bench`, at one step a
token, with the latent carried. One JSON line a run in OUTPUT/cells.jsonl, and a table.

--speed trains nothing: rows of a tiny network with its first parameters, one step a token, by the
cache and by passes over the whole row, with and without a latent, a network that sees both ways by
blocks with keys and values that are kept, and a left-to-right model of the same size; medians of
interleaved repeats, in processor seconds on a CPU, which other programs disturb less; passes over
whole rows are timed twice.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cells
import jax
import jax.numpy as jnp

from ldd_jax.config import packaged
from ldd_jax.config.experiment import StandIn
from ldd_jax.core import outputs
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.processes import LeftToRight, Masked
from ldd_jax.samplers import (
    Ancestral,
    Cached,
    Dual,
    Fill,
    NextToken,
    Prefix,
    Recomputed,
    Whole,
    sample_blocks,
)
from ldd_jax.samplers.net import Net

VARIANTS = {
    "ar": ("quickstart", "method=ar"),
    "block4": ("block", "method=block,block=4"),
    "block4_latent": ("block", "method=lddm_block,block=4"),
    "block16": ("block", "method=block,block=16"),
    "block16_latent": ("block", "method=lddm_block,block=16"),
    "full": ("quickstart", "method=mdlm"),
    "full_latent": ("quickstart", "method=lddm_m"),
}
# What is compared by seed.
PAIRS = [("block4", "full"), ("block16", "full"), ("block4", "block16")]
PAIRS += [(f"{name}_latent", name) for name in ("block4", "block16", "full")]
VOCABULARY = 96
FIELDS = dict(width=96, depth=3, heads=4, cond_width=32, unroll=3)  # of --speed


def operations(variant: str) -> float:
    """Of an update of it."""
    tokenizer: Any = StandIn(VOCABULARY)
    return cells.operations(cells.config_of(*VARIANTS[variant]), tokenizer)


def run(variant: str, seed: str, chosen: argparse.Namespace, flags: list[str]) -> dict[str, Any]:
    """Train (or go on), score and sample."""
    workdir, file = chosen.output / f"{variant}-{seed}", packaged.path(VARIANTS[variant][0])
    updates = round(chosen.updates * operations("full") / operations(variant))
    argument = f"{file}:{VARIANTS[variant][1]}"
    own = [f"--config.seed={seed}", f"--config.training.num_steps={updates}", *flags]
    rare = [f"--config.training.{n}_every=0" for n in ("eval", "sample")]
    train = cells.command("train", f"--config={argument}", f"--workdir={workdir}", *own, *rare)
    if not cells.finished(workdir):
        cells.logged(workdir, train)
    scores, bench = workdir / "score.jsonl", workdir.with_name(f"{workdir.name}-bench")
    estimator = [] if variant == "ar" else ["--estimator=k_form"]
    cells.logged(
        workdir, cells.command("evaluate", f"--workdir={workdir}", *estimator, f"--output={scores}")
    )
    block = json.loads((workdir / "config.json").read_text())["model"]["block"]
    length = json.loads((workdir / "config.json").read_text())["data"]["length"]
    steps, size = f"--steps={block or length}", f"--num_samples={chosen.samples}"
    more = [f"--judge={chosen.judge}", "--latents=carry", f"--output={bench}", steps, size]
    cells.logged(workdir, cells.command("bench", f"--workdir={workdir}", *more))
    made = map(json.loads, (bench / "cells.jsonl").read_text().splitlines())
    cell = next(c for c in made if c["workdir"])
    score = json.loads(scores.read_text().splitlines()[0])
    return {"variant": variant, "seed": seed, "updates": updates, "score": score, "cell": cell}


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: means over seeds, standard errors of those means."""
    lines = ["| variant | updates | nats a character | judge | entropy | calls | tokens/s |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name in dict.fromkeys(r["variant"] for r in found):
        own = [r for r in found if r["variant"] == name]
        told = lambda values, d: "{:.{d}f} +- {:.{d}f}".format(*cells.mean_and_error(values), d=d)
        of = lambda key, own=own: [r["cell"][key] for r in own]
        nats = told([r["score"]["nelbo_nats_per_token"] for r in own], 4)
        row = [name, str(own[0]["updates"]), nats, told(of("judge_ppl"), 2)]
        row += [told(of("entropy"), 3), f"{statistics.mean(of('calls')):.0f}"]
        row += [told(of("tokens_per_s"), 0)]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def programs(length: int, block: int, batch: int) -> dict[str, Callable[[], Any]]:
    """What --speed times, by name."""
    tokens, index = TokenSpace(size=VOCABULARY + 1, mask=VOCABULARY), jnp.arange(batch)
    fields = dict(tokens=tokens, **FIELDS)
    out: dict[str, Callable[[], Any]] = {}

    def add(name: str, model: DiT, process: Any, step: Any, blocks: Any) -> None:
        net = Net(model.bind(jax.jit(model.init)(jax.random.key(0))), process)

        @jax.jit
        def go(net_params: Any, seed: Any) -> Any:
            key = jax.random.fold_in(jax.random.key(0), seed)
            own = Net(model.bind(net_params), process)
            prior = process.prior(example_keys(key, index), length)
            draw = Production.of(key, index)
            more = dict(blocks=blocks, window=length)
            return sample_blocks(own, step, draw, prior, block, **more)[0].z

        out[name] = lambda seed=0: jax.block_until_ready(go(net.denoiser.params, seed))

    for latent in (False, True):
        model = DiT(**fields, block=block, latent=latent)  # type: ignore[arg-type]
        for blocks in (Cached(), Recomputed()):
            kind = blocks.registered[1]  # type: ignore[attr-defined]
            name = f"block {block}, {kind}{', latent' if latent else ''}"
            add(name, model, Masked(tokens=tokens), Ancestral(), blocks)
    model = DiT(**fields, latent=False)  # type: ignore[arg-type]
    kept = {"dual": Dual(size=block), "dual, refresh 4": Dual(size=block, refresh=4)}
    for kind, blocks in {
        "recomputed": Fill(size=block),
        **kept,
        "prefix": Prefix(size=block),
    }.items():
        add(f"both ways, {kind}", model, Masked(tokens=tokens), Ancestral(), blocks)
    model = DiT(**fields, latent=False, causal=True, adaln=False)  # type: ignore[arg-type]
    add("left to right, cached", model, LeftToRight(tokens=tokens), NextToken(), Whole())
    return out


def timed(made: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, in turn, so that other programs disturb all alike."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    for go in made.values():
        go()
    spent: dict[str, list[float]] = {name: [] for name in made}
    for i in range(repeats):
        for name, go in made.items():
            if i > 1 and "recomputed" in name:
                continue  # long enough to be told from noise by two
            began = clock()
            go()
            spent[name].append(clock() - began)
    return {name: statistics.median(each) for name, each in spent.items()}


def speed(chosen: argparse.Namespace) -> str:
    """Markdown: seconds of a batch, tokens/s, times as fast as passes over whole rows."""
    length, block = chosen.length, chosen.block
    found = timed(programs(length, block, chosen.batch), chosen.repeats)
    slow = found[f"block {block}, recomputed"]
    lines = [
        f"| {chosen.batch} x {length} tokens | seconds | tokens/s | ratio |",
        "|---|---|---|---|",
    ]
    for name, seconds in found.items():
        rate = chosen.batch * length / seconds
        lines.append(f"| {name} | {seconds:.3f} | {rate:.0f} | {slow / seconds:.1f} |")
    short = programs(length // 4, block, chosen.batch)
    names = [f"block {block}, cached", f"block {block}, cached, latent"]
    quarter = timed({n: short[n] for n in names}, chosen.repeats)
    for name in names:
        each = lambda seconds, size: 1000 * seconds / (size // block)
        a, b = each(quarter[name], length // 4), each(found[name], length)
        lines.append(f"\n{name}: {a:.2f} ms a block at {length // 4} tokens, {b:.2f} at {length}")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--judge", default="ngram")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    chosen, flags = parser.parse_known_args()
    wrong = [f for f in flags if not f.startswith("--config.")]
    if wrong or (chosen.output is None and not chosen.speed):
        parser.error(f"{wrong[0]} is not known" if wrong else "give --output=FOLDER, or --speed")
    if chosen.speed:
        print(speed(chosen))
        return
    path = chosen.output / "cells.jsonl"
    old = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    found = {(r["variant"], r["seed"]): r for r in old}
    asked = [(v, s) for s in chosen.seeds.split(",") for v in chosen.variants.split(",")]
    for one in asked:
        if one not in found:
            found[one] = run(*one, chosen, flags)
            with outputs.place(str(path)).open() as stream:
                stream.writelines(json.dumps(r) + "\n" for r in found.values())
            print(*one, found[one]["score"]["nelbo_nats_per_token"], flush=True)
    print(table([found[one] for one in asked]))
    bound = lambda variant: [
        r["score"]["nelbo_nats_per_token"]
        for one in asked
        if (r := found[one])["variant"] == variant
    ]
    print("\nBy seed, nats a character:")
    for name, base in PAIRS:
        if len(bound(name)) == len(bound(base)) > 1:
            print(cells.paired(name, bound(name), base, bound(base)))


if __name__ == "__main__":
    main()
