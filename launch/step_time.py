"""Time per update of loopholing against its base method, as ratios of interleaved blocks.

    python launch/step_time.py [--config=configs/quickstart.py] [--blocks=15] [--steps=20]

Both methods run in one process in turn; the ratio of each pair of blocks is taken, then the median.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time

import jax

from ldd_jax import experiment
from ldd_jax.core import registry
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.data import batches
from ldd_jax.training import sharding
from ldd_jax.training import state as states

PAIRS = (("mdlm", "lddm_m"), ("udlm", "lddm_u"))


class Timed:
    """A method's jitted step with its state."""

    def __init__(self, config_file: str, method: str):
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

    def block(self, steps: int) -> float:
        """Milliseconds per update over `steps` updates."""
        began = time.perf_counter()
        for _ in range(steps):
            arrays = sharding.put(self.experiment.mesh, next(self.stream))
            self.state, metrics = self.step(self.state, arrays, self.experiment.key(1))
        jax.block_until_ready(metrics)
        return 1000 * (time.perf_counter() - began) / steps


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    chosen = parser.parse_args()
    keep_freed_memory()
    for names in PAIRS:
        base, loop = (Timed(chosen.config, name) for name in names)
        for method in (base, loop):
            method.block(chosen.steps)
        pairs = [(base.block(chosen.steps), loop.block(chosen.steps)) for _ in range(chosen.blocks)]
        ratios = sorted(b / a for a, b in pairs)
        print(
            f"{names[1]} / {names[0]}: median ratio {statistics.median(ratios):.3f} "
            f"(min {ratios[0]:.3f}, max {ratios[-1]:.3f}, {len(ratios)} pairs of blocks of "
            f"{chosen.steps} updates); medians {statistics.median(b for _, b in pairs):.1f} and "
            f"{statistics.median(a for a, _ in pairs):.1f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
