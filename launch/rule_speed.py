"""Step rules of one run beside each other: calls of a row and processor seconds of a batch.

    python launch/rule_speed.py --workdir=DIR [--rules=ancestral,skipping,first_hitting] \
        [--steps=16,64,256] [--batch=32] [--repeats=2]

All rules in turn, medians of the repeats after a first call that compiles; processor time, which
other programs change less than the clock.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from ldd_jax.core import registry
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.inference import generate, loading


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--rules", default="ancestral,skipping,first_hitting")
    parser.add_argument("--steps", default="16,64,256")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    chosen = parser.parse_args()
    keep_freed_memory()
    e, params, _ = loading.load_trained(chosen.workdir)
    length, rules = e.config.data.length, chosen.rules.split(",")
    nothing = np.zeros(length, bool)
    made = {
        rule: generate.Sampler.make(
            e,
            dataclasses.replace(
                e.sampling, step=registry.parse("step", rule), batch_size=chosen.batch
            ),
            length,
        )
        for rule in rules
    }
    print("| steps | rule | calls of a row | processor seconds | the first rule's over this |")
    print("|---|---|---|---|---|")
    for steps in map(int, chosen.steps.split(",")):
        spent: dict[str, list[float]] = {rule: [] for rule in rules}
        calls = {}
        for i in range(chosen.repeats + 1):
            for rule, sampler in made.items():
                began = time.process_time()
                state = sampler.batch(params, i, 0, nothing, nothing, steps)[0]
                jax.block_until_ready(state.z)
                spent[rule] += [time.process_time() - began] if i else []
                calls[rule] = float(np.mean(state.calls))
        seconds = {rule: statistics.median(found) for rule, found in spent.items()}
        for rule in rules:
            ratio = seconds[rules[0]] / seconds[rule]
            print(f"| {steps} | {rule} | {calls[rule]:.1f} | {seconds[rule]:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
