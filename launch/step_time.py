"""Time per update of loopholing against its base method, as ratios of interleaved blocks.

    python launch/step_time.py [--config=configs/quickstart.py] [--blocks=15] [--steps=20] [--skip]

Both methods run in one process in turn; the ratio of each pair of blocks is taken, then the median.
With --skip the pairs are a method with and without the test that skips updates that are not finite,
in processor time, which other programs change less (on one core: `taskset -c 1`).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import statistics
import time
from unittest import mock

import jax
import jax.numpy as jnp

from ldd_jax.config import experiment
from ldd_jax.core import registry
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.data import batches
from ldd_jax.training import sharding
from ldd_jax.training import state as states

PAIRS = (("mdlm", "lddm_m"), ("udlm", "lddm_u"))


class Timed:
    """A method's jitted step with its state."""

    def __init__(self, config_file: str, method: str, clock=time.perf_counter, test=True):
        self.clock = clock
        spec = importlib.util.spec_from_file_location("recipe", config_file)
        recipe = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(recipe)
        config = recipe.get_config(f"method={method}")
        corpus = registry.build("data", config.data).load()
        self.experiment = experiment.build(config, corpus.tokenizer)
        update = self.experiment.update
        mesh = self.experiment.mesh
        key = self.experiment.key(0)
        self.state = states.initial(self.experiment.model, update.optimizer, mesh, key)
        placed = states.shardings(states.abstract(self.experiment.model, update.optimizer, mesh))
        self.step = jax.jit(update, donate_argnums=0, out_shardings=(placed, None))
        self.stream = batches(corpus.train, batch_size=config.training.batch_size)
        # Constants are folded by the compiler; nothing else in the update asks for it.
        constant = lambda array: jnp.ones((), bool)
        with contextlib.nullcontext() if test else mock.patch.object(jnp, "isfinite", constant):
            self.block(1)

    def block(self, steps: int) -> float:
        """Milliseconds per update over `steps` updates."""
        began = self.clock()
        for _ in range(steps):
            arrays = sharding.put(self.experiment.mesh, next(self.stream))
            self.state, metrics = self.step(self.state, arrays, self.experiment.key(1))
        jax.block_until_ready(metrics)
        return 1000 * (self.clock() - began) / steps


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--skip", action="store_true")
    chosen = parser.parse_args()
    keep_freed_memory()
    for first, second in PAIRS:
        if chosen.skip:
            made = lambda test, name=second: Timed(chosen.config, name, time.process_time, test)
            base, loop, first = made(False), made(True), f"{second} without the test"
        else:
            base, loop = (Timed(chosen.config, name) for name in (first, second))
        for method in (base, loop):
            method.block(chosen.steps)
        pairs = [(base.block(chosen.steps), loop.block(chosen.steps)) for _ in range(chosen.blocks)]
        ratios = sorted(b / a for a, b in pairs)
        print(
            f"{second} / {first}: median ratio {statistics.median(ratios):.3f} "
            f"(min {ratios[0]:.3f}, max {ratios[-1]:.3f}, {len(ratios)} pairs of blocks of "
            f"{chosen.steps} updates); medians {statistics.median(b for _, b in pairs):.1f} and "
            f"{statistics.median(a for a, _ in pairs):.1f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
