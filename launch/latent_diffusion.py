"""Latent diffusion for language on a Markov chain whose law is known.

    python launch/latent_diffusion.py --output=FOLDER [--seeds=0,1,2] [--updates=3000] \
        [--methods=plain_latent_diffusion,latent_diffusion,lddm_latent_diffusion] \
        [--code_updates=3000] [--samples=2048] [--vectors=8] [--numbers=8] [--least=0.01]

An autoencoder (width 48, two blocks each way; rows of 16 symbols of 8 to 8 vectors of 8 numbers,
blurred by a variance of `least`) learns from fresh draws of the chain; then each method diffuses
its vectors, begun with the same parameters: nothing carried, the last estimate (self-conditioning),
estimate and hidden state. Measured are the share of tokens that come back by greedy decoding of
z_0 ~ q(z_0 | x), the bound with its terms on draws of another seed, and samples held against the
chain: excess of -log p(x) a token (negative: too typical), total variation of the law of neighbours
and its entropy. Noise is N(0, 1) decoded: the same decoder without a law of vectors. One JSON file
a method and seed, which is not made again; means over seeds and standard errors of those means, and
paired differences of methods.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from typing import Any

import chains
import jax
import jax.numpy as jnp
import numpy as np
from chains import VOCABULARY, shown

from ldd_jax.core import writing
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.core.registry import section
from ldd_jax.core.types import as_batch
from ldd_jax.oracle.chain import Chain
from ldd_jax.samplers import Ancestral, Latent, SampleState, read, sample
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.net import Net
from ldd_jax.schedules import Angle

LENGTH = 16
MOVE = 0.95 * np.random.default_rng(0).dirichlet(np.full(VOCABULARY, 0.3), VOCABULARY)
LAW = Chain(  # its states are seen: neighbours tell much, and none is impossible
    jnp.full(VOCABULARY, 1 / VOCABULARY), jnp.asarray(MOVE + 0.05 / VOCABULARY), jnp.eye(VOCABULARY)
)
ROWS = chains.Rows(LENGTH, LAW)
METHODS = ("plain_latent_diffusion", "latent_diffusion", "lddm_latent_diffusion")
TRAINED = {"autoencoder": ("encoder.*", "decoder.*")}


def build(method: str, updates: int, code: argparse.Namespace) -> Any:
    """The experiment, on rows of the chain; `code` says how many vectors and how blurred."""
    shape = dict(vectors=code.vectors, size=code.numbers)
    return ROWS.build(
        method,
        updates,
        dict(width=48, encoder=2, decoder=2, unroll=2) | shape,
        trainable=TRAINED.get(method, ("prior.*",)),
        process=shape | dict(schedule=section(Angle, least=code.least)),
        context=dict(p=0.5),
    )


def begun(code: Any) -> Any:
    """A state whose encoder and decoder are those of `code`."""
    copied = lambda: jax.tree.map(jnp.copy, {n: code[n] for n in ("encoder", "decoder")})
    return lambda state: dataclasses.replace(
        state, **{n: getattr(state, n) | copied() for n in ("params", "ema")}
    )


def bound(e: Any, params: Any, number: int = 512, draws: int = 8) -> dict[str, Any]:
    """Nats a token with its terms, its standard error over rows, and the chain's own."""
    objective = e.objective.as_bound(2 if e.model.latent else 1)
    given = ROWS.arrays(e, jax.random.key(7), number)
    run = jax.jit(lambda p, key: objective(e.model.bind(p), as_batch(given), key).metrics["terms"])
    each = [jax.device_get(run(params, jax.random.key(i))) for i in range(draws)]
    terms = {name: np.mean([one[name] for one in each], 0) / LENGTH for name in each[0]}
    nats = sum(terms.values())
    exact = -np.asarray(LAW.log_likelihood(given["z0"])) / LENGTH
    return {
        "nats": float(nats.mean()),
        "se": float(nats.std() / number**0.5),
        "exact": float(exact.mean()),
        "terms": {name: float(term.mean()) for name, term in terms.items()},
    }


def reconstructed(e: Any, params: Any, number: int = 2048) -> float:
    """Share of the tokens of fresh rows that greedy decoding of z_0 ~ q(z_0 | x) gives back."""
    given = ROWS.arrays(e, jax.random.key(8), number)

    def run(params: Any) -> Any:
        denoiser, index = e.model.bind(params), jnp.arange(number)
        batch = as_batch(given)
        mean = denoiser.encoded(batch.z0, batch.cond)
        none = jnp.zeros(mean.shape[:2], bool)
        z, t = e.process.corrupt(
            example_keys(jax.random.key(9), index), mean, jnp.zeros(number), none
        )
        net = Net(denoiser, e.process, readout=Readout(temperature=0.0))
        state = SampleState(z=z, clock=t, h=None, free=~none, calls=jnp.zeros(number, jnp.int32))
        return read(net, state, Production.of(jax.random.key(10), index), LENGTH).z

    return float(jnp.mean(jax.jit(run)(params) == given["z0"]))


def measured(e: Any, params: Any, steps: int, number: int, carry: bool = True) -> dict[str, float]:
    """Samples against the chain; steps 0 = decoded noise."""

    def run(params: Any, index: Any) -> Any:
        prior = e.process.prior(example_keys(jax.random.key(1), index), LENGTH)
        draw, net = Production.of(jax.random.key(2), index), Net(e.model.bind(params), e.process)
        latent = Latent() if carry else Latent(reset_every=1)
        state = sample(net, Ancestral(), draw, prior, steps, tail="none", latent=latent)[0]
        state = read(net, state, Production.of(jax.random.key(3), index), LENGTH)
        return state.z, state.calls

    made = jax.jit(run)
    return ROWS.against([made(params, jnp.arange(i, i + 1024)) for i in range(0, number, 1024)])


def record(method: str, seed: int, code: Any, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train and measure."""
    began = time.time()
    e = build(method, chosen.updates, chosen)
    params = ROWS.trained(e, seed, chosen.updates, begun(code))
    spent = time.time() - began
    rules = {f"{n} steps": measured(e, params, n, chosen.samples) for n in (16, 64, 256)}
    if e.model.latent:
        rules["64 steps, off"] = measured(e, params, 64, chosen.samples, carry=False)
    return {
        "method": method,
        "seed": seed,
        "updates": [chosen.code_updates, chosen.updates],
        "code": [chosen.vectors, chosen.numbers, chosen.least],
        "train_s": round(spent, 1),
        "reconstructed": reconstructed(e, params),
        "bound": bound(e, params),
        "rules": {"noise": measured(e, params, 0, chosen.samples)} | rules,
        "all_s": round(time.time() - began, 1),
    }


def table(records: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = list(chains.HEAD)
    by = {
        method: {r["seed"]: r for r in records if r["method"] == method}
        for method in dict.fromkeys(r["method"] for r in records)
    }
    for method, runs in by.items():
        every = runs.values()
        terms = ", ".join(
            f"{name} {shown([r['bound']['terms'][name] for r in every], '.4f')}"
            for name in next(iter(every))["bound"]["terms"]
        )
        back = shown([100 * r["reconstructed"] for r in every], ".2f")
        lines.append(
            f"| {method} | bound {shown([r['bound']['nats'] for r in every], '.4f')} nats a token ("
            f"-log p {np.mean([r['bound']['exact'] for r in every]):.4f}): {terms}; {back} % of "
            "tokens come back | | | | |"
        )
        for rule in next(iter(every))["rules"]:
            of = lambda key, rule=rule, every=every: [r["rules"][rule][key] for r in every]
            lines.append(
                f"| {method} | {rule} | {np.mean(of('calls')):.0f} | {shown(of('tv'), '.4f')} | "
                f"{shown(of('excess'), '+.4f')} | {shown(of('entropy'), '+.4f')} |"
            )
    names = list(by)
    lines += [compared(a, b, by) for a, b in zip(names, names[1:])]
    return "\n".join(lines)


def compared(first: str, second: str, by: dict[str, dict[int, Any]]) -> str:
    """A row of paired differences, `second` less `first`."""
    seeds = sorted(by[first].keys() & by[second].keys())
    less = lambda what: shown([what(by[second][s]) - what(by[first][s]) for s in seeds], "+.4f")
    at = lambda key: less(lambda r: r["rules"]["64 steps"][key])
    return (
        f"| {second} less {first}, paired, 64 steps | bound {less(lambda r: r['bound']['nats'])} | "
        f"| {at('tv')} | {at('excess')} | {at('entropy')} |"
    )


def main() -> None:
    """Fill and print the table."""
    parser = chains.parser(__doc__, ",".join(METHODS), updates=3000, samples=2048)
    parser.add_argument("--code_updates", type=int, default=3000)
    parser.add_argument("--vectors", type=int, default=8)
    parser.add_argument("--numbers", type=int, default=8)
    parser.add_argument("--least", type=float, default=0.01)
    chosen = parser.parse_args()
    keep_freed_memory()
    chosen.output.mkdir(parents=True, exist_ok=True)
    records = []
    for seed in map(int, chosen.seeds.split(",")):
        paths = {m: chosen.output / f"{m}-{seed}.json" for m in chosen.methods.split(",")}
        code = None
        if not all(path.exists() for path in paths.values()):
            first = build("autoencoder", chosen.code_updates, chosen)
            code = ROWS.trained(first, seed, chosen.code_updates)
        for method, path in paths.items():
            if not path.exists():
                writing.write(path, json.dumps(record(method, seed, code, chosen)) + "\n")
            records.append(json.loads(path.read_text()))
            last = records[-1]
            print(
                f"{method} seed {seed}: bound {last['bound']['nats']:.4f}, {last['train_s']:.0f} "
                f"s, {last['reconstructed']:.2%} of tokens come back",
                flush=True,
            )
    print(f"\n{table(records)}")


if __name__ == "__main__":
    main()
