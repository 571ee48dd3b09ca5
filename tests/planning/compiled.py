"""Compile step and sampler for all devices: python -m tests.planning.compiled FOLDER."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from ldd_jax.core.logical import constrain
from ldd_jax.core.vocabulary_tiles import CHOSEN, SCORED
from ldd_jax.objectives import PseudoContext
from ldd_jax.objectives.context import FractionGate
from ldd_jax.planning import aot, hlo
from ldd_jax.training import sharding
from tests.training.common import experiment

LENGTH, EACH, PAYING = 10, 4, 3  # rows of a device, and those of them that pay for pass 1
ALPHABET = "".join(chr(i) for i in range(0x4E00, 0x4E00 + 95))
STATES = 97  # with the unknown character and the mask; a prime number


def says(text: str) -> dict:
    """Computations in loops over rows, collectives in them, and the largest array of logits."""
    program = hlo.Program.read(text, {SCORED: 1.0, CHOSEN: 1.0})
    return {
        "loops": len(program.open),
        "in_loops": [site for site in program.sites() if site[3]],
        "largest": hlo.largest_float32(text, STATES),
    }


def holds(text: str, rows: int) -> bool:
    """Whether an array of so many sequences of hidden states is in the program."""
    return bool(re.search(rf"f32\[({rows},{LENGTH}|{rows * LENGTH}),", text))


def main(path: Path) -> None:
    """Write what the programs say, and controls that do what they must not."""
    devices = jax.devices()
    count = len(devices)
    batch = EACH * count
    built = experiment(
        "lddm_m",
        devices,
        alphabet=ALPHABET,
        data__length=LENGTH,
        training__batch_size=batch,
        objective__tile=8,
        sampling__tile=8,
        mesh__data=2,
        mesh__fsdp=count // 2,
    )
    context = PseudoContext(p=PAYING / EACH, gate=FractionGate(group=EACH))
    objective = dataclasses.replace(built.objective, context=context)
    built = dataclasses.replace(built, objective=objective)
    assert built.tokens.size == STATES
    train, sample = aot.train_step(built, batch).text, aot.sampler(built, batch, LENGTH).text
    plain = experiment(
        "mdlm", devices, alphabet=ALPHABET, data__length=LENGTH, training__batch_size=batch,
        mesh__data=2, mesh__fsdp=count // 2,
    )  # fmt: skip

    def forbidden(x, w, n):
        """A sum over the devices in a loop of unknown length; a shuffled part of the batch."""
        some = jnp.take(x, jnp.argsort(x[:, 0, 0])[: PAYING * count], axis=0) @ w
        with jax.named_scope(SCORED):
            step = lambda i, s: s + constrain(jnp.einsum("blk,kd->d", x + s[0], w), None)
            total = jax.lax.fori_loop(0, n, step, jnp.zeros(w.shape[1]))
        return jnp.sum(some) + jnp.sum(total)

    rows, one = sharding.batch(built.mesh), sharding.replicated(built.mesh)
    like = lambda s, p, t=jnp.float32: jax.ShapeDtypeStruct(s, t, sharding=p)
    lowered = jax.jit(sharding.on(built.mesh, forbidden)).lower(
        like((batch, LENGTH, 16), rows), like((16, 16), one), like((), one, jnp.int32)
    )
    control = aot.Compiled.of(lowered).text
    whole = says(aot.train_step(plain, batch).text)
    out = {
        "train": says(train),
        "sample": says(sample),
        "logits_of_a_device": EACH * LENGTH * (STATES),
        "paying_own": holds(train, PAYING),
        "paying_whole": holds(train, PAYING * count),
        "control": {
            "in_loops": says(control)["in_loops"],
            "largest": whole["largest"],
            "paying_whole": holds(control, PAYING * count),
        },
    }
    path.write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "found.json")
