"""What an update's time consists of on a CPU, by kind of operation, from the profiler.

    taskset -c 1 python launch/shares.py [--method=mdlm] [--width=256] [--depth=6] [--unroll=6] \
        [--heads=8] [--length=256] [--batch=16] [--vocabulary=256] [--tile=1024] [--updates=3]

On one core the operations do not overlap, so that shares add up; without `taskset` they may not.
"""

from __future__ import annotations

import argparse
import collections
import re
import tempfile
from pathlib import Path

import compare
import jax
import numpy as np

from ldd_jax.config.methods import methods
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.training import sharding

LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\S+) [\w\-]+\(.*$", re.M)
NAME = re.compile(r'op_name="([^"]*)"')


def kind(operation: str, shape: str, source: str) -> str:
    """The row of the table that an operation belongs to."""
    way = "backward" if "transpose(" in source else "forward"
    if "dynamic" in operation or "wrapped_broadcast" in operation:
        return "stacking what the layer scan keeps"
    if "copy" in operation:
        return "transposed copies"
    if "dot" in operation or "ynn" in operation:
        attention = "bh" in source or shape.count(",") > 4  # [B, heads, L, L] and its layout
        return f"products of {'attention' if attention else 'weights'}, {way}"
    return "elementwise"


def main() -> None:
    """Print shares and the mean time of an update."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="mdlm", choices=sorted(methods()))
    sizes = dict(width=256, depth=6, unroll=6, heads=8, length=256, batch=16, vocabulary=256)
    for name, default in {**sizes, "tile": 1024, "updates": 3, "calls": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    keep_freed_memory()
    side = compare.Side(chosen, plain=False)
    c = chosen
    arrays = {
        "z0": np.zeros((c.batch, c.length), np.int32),
        "keep": np.zeros((c.batch, c.length), bool),
        "weight": np.ones((c.batch, c.length), np.float32),
        "index": np.arange(c.batch, dtype=np.int32),
    }
    e = side.experiment
    lowered = side.step.lower(side.state, sharding.put(e.mesh, arrays), e.key(1))
    known = {}
    for found in LINE.finditer(lowered.compile().as_text()):
        source = NAME.search(found[0])
        known[found[1]] = found[2], source[1] if source else ""
    side.train()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(chosen.updates):
                side.train()
        trace = next(Path(folder).rglob("*.xplane.pb"))
        data = jax.profiler.ProfileData.from_file(str(trace))
    spent: collections.Counter = collections.Counter()
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name and not name.startswith(("while", "call", "conditional")):
                    spent[kind(name, *known.get(name, ("", "")))] += event.duration_ns / 1e6
    total = sum(spent.values())
    for row, ms in sorted(spent.items()):
        print(f"{100 * ms / total:5.1f} %  {ms / chosen.updates:9.1f} ms  {row}")
    print(
        f"        {total / chosen.updates:9.1f} ms  all operations of one update, {chosen.method}"
    )


if __name__ == "__main__":
    main()
