"""Networks on a hidden Markov chain whose law is known: data, training, samples against the law."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
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
from ldd_jax.samplers import sample
from ldd_jax.samplers.net import Net
from ldd_jax.training import sharding
from ldd_jax.training import state as states

BATCH, VOCABULARY = 64, 8
LAW = Chain.random(0, 6, VOCABULARY)
HEAD = (
    "| method | rule | calls | TV of neighbours | excess, nats a token | their entropy, less the "
    "chain's |",
    "|---|---|---|---|---|---|",
)
Rule = tuple[Any, int, str]  # step, number of steps, tail


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of `length` symbols of a chain of 8 symbols, by default of 6 hidden states."""

    length: int
    law: Chain = LAW

    @functools.cached_property
    def pairs(self) -> Bench:
        """Laws of neighbours."""
        return Bench(length=self.length, vocabulary=VOCABULARY)

    @functools.cached_property
    def draw(self) -> Callable[[Any, int], Any]:
        """Rows of a key, so many."""
        return jax.jit(
            lambda key, number: self.law.draw(key, number, self.length), static_argnums=1
        )

    def nll(self, rows: Any) -> float:
        """-log p of the chain, nats a token."""
        return float(-jnp.mean(self.law.log_likelihood(jnp.asarray(rows))) / self.length)

    def build(
        self,
        method: str,
        updates: int,
        model: dict[str, Any],
        trainable: tuple[str, ...] = (),
        **sections: Any,
    ) -> Any:
        """The experiment of a method, with a network of these fields."""
        config = make(
            arguments("", method=method, size="tiny"),
            data=dict(length=self.length),
            model=dict(depth=2, heads=4, cond_width=32, **model),
            optim=dict(lr=3e-3, warmup_steps=100, decay="cosine", b2=0.99, trainable=trainable),
            training=dict(num_steps=updates, batch_size=BATCH, ema_decay=0.995),
            **sections,
        )
        return experiments.build(config, SimpleNamespace(size=VOCABULARY))

    def arrays(self, e: Any, key: Any, number: int) -> dict[str, Any]:
        """Fresh rows, as the pipeline gives them."""
        rows = np.asarray(self.draw(key, number))
        host = {
            "z0": rows,
            "keep": np.zeros(rows.shape, bool),
            "weight": np.ones(rows.shape, np.float32),
            "index": np.arange(number, dtype=np.int32),
        }
        return sharding.put(e.mesh, host)

    def trained(
        self, e: Any, seed: int, updates: int, begin: Callable[[Any], Any] = lambda state: state
    ) -> Any:
        """Averaged parameters after so many updates from `begin`, each on rows of its own."""
        like = states.abstract(e.model, e.update.optimizer, e.mesh)
        step = jax.jit(e.update, donate_argnums=0, out_shardings=(states.shardings(like), None))
        state = begin(states.initial(e.model, e.update.optimizer, e.mesh, jax.random.key(seed)))
        rows = jax.random.key(1000 + seed)
        for i in range(updates):
            given = self.arrays(e, jax.random.fold_in(rows, i), BATCH)
            state, _ = step(state, given, jax.random.key(2000 + seed))
        return state.ema

    def bound(self, e: Any, params: Any, number: int, draws: int) -> tuple[float, float, float]:
        """Nats a token on rows never trained on, its standard error, and the chain's own there."""
        objective = e.objective.as_bound(2 if e.model.latent else 1)
        given = self.arrays(e, jax.random.key(7), number)

        @jax.jit
        def run(p: Any, key: Any) -> Any:
            return objective(e.model.bind(p), as_batch(given), key).metrics["loss_B"]

        found = [run(params, jax.random.key(i)) for i in range(draws)]
        nats = np.mean(found, axis=0) / self.length
        return float(nats.mean()), float(nats.std() / number**0.5), self.nll(given["z0"])

    def measured(
        self, e: Any, params: Any, rule: Rule, number: int, at_a_time: int
    ) -> dict[str, float]:
        """Samples of a rule against the chain.

        Args:
          e: the experiment.
          params: its parameters.
          rule: step, steps and tail.
          number: of samples, a multiple of `at_a_time`.
          at_a_time: rows of a call.
        """
        step, count, tail = rule

        @jax.jit
        def run(params: Any, index: Any) -> Any:
            prior = e.process.prior(example_keys(jax.random.key(1), index), self.length)
            draw = Production.of(jax.random.key(2), index)
            net = Net(e.model.bind(params), e.process)
            state = sample(net, step, draw, prior, count, tail=tail)[0]
            return e.process.decode(state.z), state.calls

        pieces = [run(params, i + jnp.arange(at_a_time)) for i in range(0, number, at_a_time)]
        return self.against(pieces)

    def against(self, pieces: Sequence[tuple[Any, Any]]) -> dict[str, float]:
        """Pieces of (samples, calls) against the chain."""
        x, calls = (np.concatenate([np.asarray(p[i]) for p in pieces]) for i in (0, 1))
        truth, found = np.asarray(self.pairs.exact_pairs(self.law)), self.pairs.pairs(x)
        entropy = lambda p: float(-np.sum(p[p > 0] * np.log(p[p > 0])))
        return {
            "calls": float(np.mean(calls)),
            "tv": float(np.abs(found - truth).sum() / 2),
            "excess": self.nll(x) - self.nll(self.draw(jax.random.key(3), 65_536)),
            "entropy": entropy(found) - entropy(truth),
        }

    def floor(self, number: int) -> float:
        """Total variation of neighbours of so many exact rows."""
        found = self.pairs.pairs(np.asarray(self.draw(jax.random.key(4), number)))
        return float(np.abs(found - np.asarray(self.pairs.exact_pairs(self.law))).sum() / 2)


def shown(values: Sequence[float], form: str) -> str:
    """Mean and standard error of it."""
    return "{} +- {}".format(*(format(v, form) for v in mean_and_error(list(values))))


def table(records: Sequence[dict[str, Any]]) -> str:
    """Markdown; a record has method, bound (mean, error, the chain's own) and rules."""
    lines = list(HEAD)
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


def parser(about: str, methods: str, *, updates: int, samples: int) -> argparse.ArgumentParser:
    """The command line of such a script, with these defaults."""
    out = argparse.ArgumentParser(description=about.splitlines()[0])
    out.add_argument("--output", type=Path, required=True)
    out.add_argument("--methods", default=methods)
    out.add_argument("--seeds", default="0,1,2")
    out.add_argument("--updates", type=int, default=updates)
    out.add_argument("--samples", type=int, default=samples)
    return out


def records(
    chosen: argparse.Namespace, record: Callable[[str, int, argparse.Namespace], dict[str, Any]]
) -> list[dict[str, Any]]:
    """One JSON file a method and seed in the folder; what is there is not made again."""
    keep_freed_memory()
    chosen.output.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in map(int, chosen.seeds.split(",")):
        for method in chosen.methods.split(","):
            path = chosen.output / f"{method}-{seed}.json"
            if not path.exists():
                writing.write(path, json.dumps(record(method, seed, chosen)) + "\n")
            found.append(json.loads(path.read_text()))
            print(f"{method} seed {seed}: bound {found[-1]['bound'][0]:.4f}, "
                  f"{found[-1]['train_s']:.0f} s", flush=True)  # fmt: skip
    return found
