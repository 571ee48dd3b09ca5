"""Sampling steps a second: one compiled loop, the compiled step in a Python loop, and eager calls.

    python launch/loop_speed.py [--workdir=DIR] [--batch=32] [--repeats=5]

The same step with the same draws; the samples must agree. Without --workdir an untrained
quickstart model is used: speed does not depend on the weights. Then the cost of a step of the
compiled loop for 16, 64, 256 and 1,024 steps, one program for all. Medians of the repeats, in turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.config import experiment as experiments
from ldd_jax.core import registry
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.inference import loading
from ldd_jax.samplers import sample
from ldd_jax.samplers.loop import start
from ldd_jax.samplers.net import Net

COMPARED, FLAT, EAGER = 32, (16, 64, 256, 1024), 4


def untrained():
    """The quickstart model of LDDM-M and fresh parameters."""
    spec = importlib.util.spec_from_file_location("recipe", "configs/quickstart.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    config = recipe.get_config("method=lddm_m")
    corpus = registry.build("data", config.data).load()
    built = experiments.build(config, corpus.tokenizer)
    return built, built.model.init(built.key(0))


class Ways:
    """Three ways through the same grid."""

    def __init__(self, built, params, batch: int):
        self.built, self.params, self.batch = built, params, batch
        sampling = built.sampling
        self.step, self.grid = sampling.step, sampling.grid
        index, length = jnp.arange(batch), built.config.data.length
        self.draw = Production.of(jax.random.key(1), index)
        self.prior = built.process.prior(example_keys(jax.random.key(0), index), length)
        self.whole = jax.jit(
            lambda params, n: (
                sample(
                    self.net(params),
                    self.step,
                    self.draw,
                    self.prior,
                    n,
                    grid=self.grid,
                    tail="none",
                )[0].z
            )
        )
        self.single = jax.jit(self.one)

    def net(self, params) -> Net:
        """The network as a step sees it."""
        return Net(self.built.model.bind(params), self.built.process)

    def one(self, params, state, i, n):
        """One step."""
        real = jnp.zeros(self.batch)
        t, s = (real + self.grid(jnp.asarray(j, jnp.float32), n) for j in (i, i + 1))
        state = state._replace(clock=t)
        return self.step(self.net(params), state, s, self.draw.at(step=i), None)

    def compiled(self, steps: int) -> tuple[float, np.ndarray]:
        """Seconds a step of the compiled loop."""
        began = time.perf_counter()
        z = jax.block_until_ready(self.whole(self.params, jnp.int32(steps)))
        return (time.perf_counter() - began) / steps, np.asarray(z)

    def python(self, advance, steps: int, of: int) -> tuple[float, np.ndarray]:
        """Seconds a step of a Python loop over the first `steps` of `of` steps."""
        began = time.perf_counter()
        state = start(self.net(self.params), self.prior, None)
        for i in range(steps):
            state = advance(self.params, state, jnp.int32(i), jnp.int32(of))
        z = jax.block_until_ready(state.z)
        return (time.perf_counter() - began) / steps, np.asarray(z)


def main() -> None:
    """Print the ratios and the cost per step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    keep_freed_memory()
    built, params = loading.load_trained(given.workdir)[:2] if given.workdir else untrained()
    ways = Ways(built, params, given.batch)
    _, z = ways.compiled(COMPARED)
    _, looped = ways.python(ways.single, COMPARED, COMPARED)
    ways.python(ways.one, 1, COMPARED)
    if not np.array_equal(z, looped):
        raise SystemExit("the compiled loop and the Python loop disagree")
    _, eager = ways.python(ways.one, EAGER, COMPARED)
    _, first = ways.python(ways.single, EAGER, COMPARED)
    agree = float((eager == first).mean())  # the compiler fuses and reorders sums: rarely a token
    times: dict[str, list[float]] = {"compiled": [], "python": [], "eager": []}
    for _ in range(given.repeats):
        times["compiled"].append(ways.compiled(COMPARED)[0])
        times["python"].append(ways.python(ways.single, COMPARED, COMPARED)[0])
        times["eager"].append(ways.python(ways.one, EAGER, COMPARED)[0])
    base = statistics.median(times["compiled"])
    for name, found in times.items():
        middle = statistics.median(found)
        print(
            f"{name:9s} {1 / middle:8.1f} steps/s  {middle / base:6.2f} x the compiled loop's time"
        )
    print(f"tokens equal in {100 * agree:.2f} % of places after {EAGER} eager steps")
    flat = {n: [] for n in FLAT}
    for _ in range(given.repeats):
        for n, found in flat.items():
            found.append(ways.compiled(n)[0])
    middle = {n: statistics.median(found) for n, found in flat.items()}
    for n, seconds in middle.items():
        print(f"{n:5d} steps: {1000 * seconds:7.3f} ms a step, {seconds / middle[16]:.3f} of 16's")
    print(f"programs compiled for them: {ways.whole._cache_size()}")


if __name__ == "__main__":
    main()
