"""What leaving out ended rows is worth: processor seconds with `compact` 0, 1, 2, ..., in turns.

    taskset -c 0 python launch/compaction.py [--rows=32] [--repeats=5]

A network of quickstart's size with drawn parameters. Three ways in which rows end apart:

  prompts   whole rows of 64, a token a call (confidence), prompts of 0 to 62 tokens
  eos       rows of 128 by blocks of 16 in 16 steps with a cache; a row ends with a token
  together  as `prompts`, all without: no row ends before the others, so that nothing can be won

Tokens are compared. `ideal` is what would be left if a call cost as its rows do: the calls of all
rows over those of the longest, times rows.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.core.types import TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.processes import Masked
from ldd_jax.samplers import Ancestral, Cached, Clamp, Confidence, Whole, sample_blocks
from ldd_jax.samplers.net import Net

SYMBOLS, LENGTH, LONG, BLOCK = 107, 64, 128, 16
TOKENS = TokenSpace(size=SYMBOLS + 1, mask=SYMBOLS)
WAYS = ("prompts", "eos", "together")


def network(block: int) -> Net:
    """Quickstart's size; its head draws from all tokens."""
    model = DiT(tokens=TOKENS, width=96, depth=3, heads=4, block=block)
    params = model.init(jax.random.key(0))
    head = params["head"]["kernel"]
    params["head"]["kernel"] = 0.1 * jax.random.normal(jax.random.key(1), head.shape)
    return Net(model.bind(params), Masked(tokens=TOKENS), tile=-1)


def program(way: str, rows: int, compact: int) -> Any:
    """Tokens and calls, of no argument."""
    by_block = way == "eos"
    net, length = network(BLOCK if by_block else 0), LONG if by_block else LENGTH
    index = jnp.arange(rows)
    given = jnp.zeros(rows, int) if way != "prompts" else index * (length - 1) // rows
    clamp = Clamp(jnp.zeros((rows, length), jnp.int32), jnp.arange(length) < given[:, None])
    prior = net.process.prior(example_keys(jax.random.key(2), index), length)
    draw = Production.of(jax.random.key(3), index)
    blocks: Any = Cached(stop=True) if by_block else Whole()
    step: Any = Ancestral() if by_block else Confidence()
    how: dict[str, Any] = dict(window=length, clamp=clamp, eos=1, compact=compact)

    @jax.jit
    def run(steps: Any) -> Any:
        state, _ = sample_blocks(net, step, draw, prior, steps, blocks=blocks, **how)
        return state.z, state.calls

    return lambda: jax.device_get(run(np.int32(BLOCK)))


def measured(way: str, rows: int, repeats: int, halvings: list[int]) -> list[dict[str, Any]]:
    """Seconds of every number of halvings, 0 first, in turns, and their ratio to none."""
    runs, compiled, made, seconds = {}, {}, {}, {n: [] for n in halvings}
    for n in halvings:
        runs[n], began = program(way, rows, n), time.process_time()
        made[n] = runs[n]()
        compiled[n] = time.process_time() - began
        jax.tree.map(np.testing.assert_array_equal, made[n], made[0])
    for _ in range(repeats):
        for n, run in runs.items():
            began = time.process_time()
            run()
            seconds[n].append(time.process_time() - began)
    ratios = {n: statistics.median(np.divide(seconds[0], seconds[n])) for n in halvings}
    calls = made[0][1]
    ideal = float(calls.sum() / calls.max() / rows)
    return [
        {
            "way": way,
            "compact": n,
            "seconds": statistics.median(seconds[n]),
            "ratio": float(ratios[n]),
            "first call": compiled[n],
            "ideal": 1 / ideal,
        }
        for n in halvings
    ]


def table(found: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| rows end by | compact | seconds | ratio | at best | first call, s |"]
    lines.append("|" + "---|" * 6)
    for f in found:
        lines.append(
            f"| {f['way']} | {f['compact']} | {f['seconds']:.2f} | {f['ratio']:.2f} | "
            f"{f['ideal']:.2f} | {f['first call']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--halvings", default="0,1,2,3,5", help="0 first")
    chosen = parser.parse_args()
    keep_freed_memory()
    ways, halvings = chosen.ways.split(","), [int(n) for n in chosen.halvings.split(",")]
    for way in ways:
        print(table(measured(way, chosen.rows, chosen.repeats, halvings)), flush=True)


if __name__ == "__main__":
    main()
