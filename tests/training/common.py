"""A tiny experiment without files."""

from __future__ import annotations

import jax
import numpy as np

from ldd_jax.config import experiment as experiments
from ldd_jax.config.recipes import arguments, make
from ldd_jax.core import registry
from ldd_jax.data.characters import CharacterTokenizer
from ldd_jax.training import sharding
from ldd_jax.training import state as states

LENGTH, BATCH = 12, 8
ALPHABET = "abcdefghij"


def experiment(method: str, devices=None, alphabet: str = ALPHABET, optim: str = "", **changes):
    """An experiment of a method; `changes` are dotted fields with __ for the dot."""
    config = make(
        arguments("", method=method, size="tiny", **({"optim": optim} if optim else {})),
        data=dict(length=LENGTH),
        model=dict(width=16, depth=1, heads=2, cond_width=8),
        optim=dict(lr=1e-3, warmup_steps=2),
        training=dict(num_steps=10, batch_size=BATCH, ema_decay=0.9),
    )
    # Adam divides by small gradients: at larger rates rounding shows in the parameters.
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    tokenizer = CharacterTokenizer(alphabet)
    mesh = None
    if devices is not None:
        mesh = registry.build("mesh", config.mesh).make(devices)
    return experiments.build(config, tokenizer, mesh)


def stream(steps: int, seed: int = 0):
    """Batches of letters, some positions padded."""
    draw = np.random.default_rng(seed)
    for _ in range(steps):
        keep = np.arange(LENGTH) >= draw.integers(LENGTH // 2, LENGTH + 1, (BATCH, 1))
        yield {
            "z0": draw.integers(0, len(ALPHABET), (BATCH, LENGTH), np.int32),
            "keep": keep,
            "weight": (~keep).astype(np.float32),
            "index": np.arange(BATCH, dtype=np.int32),
        }


def run(built, steps: int, seed: int = 0, begin=None):
    """(losses, scored shares, final state) of the updates up to `steps`, as the loop does them.

    `begin` is a state to go on from; the first losses are then those of the next update.
    """
    update = built.update
    like = built.abstract()
    state = begin or built.initial()
    first = int(state.step)
    out = (states.shardings(like), None)
    step = jax.jit(sharding.on(built.mesh, update), donate_argnums=0, out_shardings=out)
    found = []
    for arrays in list(stream(steps, seed))[first:]:
        state, metrics = step(state, sharding.put(built.mesh, arrays), built.key(1))
        found.append(jax.device_get(metrics))
    pick = lambda name: np.asarray([m[name] for m in found])
    return pick("loss"), pick("scored"), state
