"""Train and sampler steps of this code against the same model written plainly, as ratios.

    python launch/compare.py [--method=lddm_m] [--width=256] [--depth=6] [--heads=8] \
        [--unroll=6] [--length=256] [--batch=16] [--vocabulary=256] [--tile=1024] \
        [--repeats=9] [--calls=9] [--processor]

Plainly: the blocks one after the other instead of a scan, the whole vocabulary for every row
instead of tiles of the rows that count, a Python loop over sampling steps instead of a compiled
one. Both have the same parameters and draws; losses and samples must agree, or it fails.
Both take turns in one process; medians of each, and the median of the ratios of the turns.
`--processor` counts processor time, for a machine with other work (on one core: `taskset -c 1`).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldd_jax.config import experiment as experiments
from ldd_jax.config.methods import method, methods
from ldd_jax.config.recipes import arguments, make
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.core.types import Attend, Trunk
from ldd_jax.data.characters import CharacterTokenizer
from ldd_jax.denoisers import layers
from ldd_jax.denoisers.dit import DiT
from ldd_jax.denoisers.dit_bound import BoundDiT
from ldd_jax.denoisers.transformer import Network
from ldd_jax.inference import generate, programs
from ldd_jax.samplers.loop import start
from ldd_jax.samplers.net import Net
from ldd_jax.training import sharding
from ldd_jax.training import state as states

CLOCK = time.perf_counter


@struct.dataclass
class Unrolled(BoundDiT):
    """A DiT whose blocks follow one another in the program."""

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        """See `Denoiser.trunk`."""
        c, params = self.config, self.params["trunk"]
        call = lambda method, *args: Network(c).apply({"params": params}, *args, method=method)
        x = call(Network.inputs, z, h)
        condition = call(Network.conditioning, cond, x.shape[0])
        block = layers.Block(
            width=c.width, heads=c.heads, mlp_ratio=c.mlp_ratio, dropout=c.dropout,
            dtype=jnp.dtype(c.dtype), attention=c.attention,
        )  # fmt: skip
        given = (condition, jnp.arange(x.shape[1]), cond.segment, Attend(), key, None)
        for i in range(c.depth):
            own = jax.tree.map(lambda a, i=i: a[i], params["blocks"])
            x, _ = block.apply({"params": own}, x, i, *given, method="one")
        finish = lambda net, x, c: layers.modulate(
            net.final_norm(x), *jnp.split(layers.spread(net.final_adaln(c)), 2, axis=-1)
        )
        latent = x[..., : c.latent_size] if c.latent else None
        return Trunk(features=call(finish, x, condition), latent=latent)


class UnrolledDiT(DiT):
    """The same config and parameters, bound to `Unrolled`."""

    def bind(self, params):
        """The denoiser with these parameters."""
        return Unrolled(params=params, config=self)


class Side:
    """One way to write the model: its jitted train step and its sampler."""

    def __init__(self, chosen: argparse.Namespace, plain: bool):
        self.chosen, self.draw = chosen, np.random.default_rng(0)
        config = make(
            arguments("", method=chosen.method, size="tiny"),
            data=dict(length=chosen.length),
            model=dict(
                width=chosen.width,
                depth=chosen.depth,
                heads=chosen.heads,
                cond_width=128,
                unroll=chosen.unroll,
            ),
            context=dict(p=1.0),
            objective=dict(tile=0 if plain else chosen.tile),
            training=dict(num_steps=10**6, batch_size=chosen.batch),
            sampling=dict(tile=0 if plain else chosen.tile, batch_size=chosen.batch),
        )
        special = 2 if method(chosen.method).process.__name__ == "Masked" else 1
        letters = "".join(chr(0x4E00 + i) for i in range(chosen.vocabulary - special))
        e = experiments.build(config, CharacterTokenizer(letters))
        if plain:
            fields = {f.name: getattr(e.model, f.name) for f in dataclasses.fields(DiT)}
            e = dataclasses.replace(e, model=UnrolledDiT(**fields))
        self.experiment, self.plain, update = e, plain, e.update
        like = states.abstract(e.model, update.optimizer, e.mesh)
        self.state = states.initial(e.model, update.optimizer, e.mesh, e.key(0))
        out = (states.shardings(like), None)
        self.step = jax.jit(update, donate_argnums=0, out_shardings=out)
        self.sampler = generate.Sampler.make(e, e.sampling, chosen.length)
        self.one = jax.jit(self._one, static_argnames="last")

    def train(self) -> tuple[float, float]:
        """One update: milliseconds, and the loss."""
        c = self.chosen
        arrays = {
            "z0": self.draw.integers(0, c.vocabulary - 2, (c.batch, c.length), np.int32),
            "keep": np.zeros((c.batch, c.length), bool),
            "weight": np.ones((c.batch, c.length), np.float32),
            "index": np.arange(c.batch, dtype=np.int32),
        }
        arrays = sharding.put(self.experiment.mesh, arrays)
        began = CLOCK()
        self.state, metrics = self.step(self.state, arrays, self.experiment.key(1))
        jax.block_until_ready((self.state, metrics))
        return 1000 * (CLOCK() - began), float(metrics["loss"])

    def liven(self) -> None:
        """Random parameters: an untrained network's ties are decided by rounding."""
        leaves, tree = jax.tree.flatten(self.state.ema)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        live = [p + 0.1 * jax.random.normal(k, p.shape) for k, p in zip(keys, leaves)]
        self.state = self.state.replace(ema=jax.tree.unflatten(tree, live))

    def _one(self, params, state, draw, i, last):
        e, n = self.experiment, self.chosen.calls - 1
        net = Net(e.model.bind(params), e.process, e.sampling.readout)
        at = lambda j: jnp.full(state.z.shape[:1], e.sampling.grid(jnp.float32(j), n))
        state = state._replace(clock=at(i))
        return e.sampling.step(net, state, None if last else at(i + 1), draw.at(step=i), None)

    def sample(self) -> tuple[float, np.ndarray]:
        """Milliseconds per network call, and the tokens."""
        c, e, n = self.chosen, self.experiment, self.chosen.calls - 1
        began = CLOCK()
        if self.plain:
            index, key = np.arange(c.batch, dtype=np.uint32), jax.random.key(np.uint32(0))
            keys = example_keys(jax.random.fold_in(key, programs.PRIOR), index)
            draw = Production.of(jax.random.fold_in(key, programs.STEPS), index)
            net = Net(e.model.bind(self.state.ema), e.process)
            state = start(net, e.process.prior(keys, c.length), None)
            for i in range(n + 1):
                state = self.one(self.state.ema, state, draw, i, last=i == n)
            z = state.z
        else:
            nothing = np.zeros(c.length, bool)
            z = self.sampler.batch(self.state.ema, 0, 0, nothing, nothing, n)[0].z
        z = np.asarray(z)
        return 1000 * (CLOCK() - began) / c.calls, z


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="lddm_m", choices=sorted(methods()))
    sizes = dict(
        width=256, depth=6, unroll=6, heads=8, length=256, batch=16, vocabulary=256, tile=1024
    )
    for name, default in {**sizes, "repeats": 9, "calls": 9}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--processor", action="store_true", help="processor time, not wall time")
    chosen = parser.parse_args()
    global CLOCK
    CLOCK = time.process_time if chosen.processor else time.perf_counter
    keep_freed_memory()
    ours, plain = Side(chosen, False), Side(chosen, True)
    for what in ("train", "sample"):
        pairs = []
        if what == "sample":
            ours.liven()
            plain.state = ours.state
        for i in range(chosen.repeats + 1):
            (a, found), (b, expected) = (getattr(side, what)() for side in (ours, plain))
            same = np.mean(np.abs(np.subtract(found, expected)) < 1e-4 * np.maximum(1, expected))
            if same < 0.999:
                raise SystemExit(f"{what} {i}: the two sides differ ({same:.1%} agree)")
            pairs += [(a, b)] if i else []  # the first one compiles
        ratios = sorted(a / b for a, b in pairs)
        medians = [statistics.median(side) for side in zip(*pairs)]
        print(
            f"{chosen.method} {what} step: this code / plain, median ratio "
            f"{statistics.median(ratios):.3f} (min {ratios[0]:.3f}, max {ratios[-1]:.3f}, "
            f"{len(ratios)} turns); medians {medians[0]:.1f} and {medians[1]:.1f} ms; load "
            f"{os.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
