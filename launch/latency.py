"""How long an answer takes: the first and the second call from Python, and the start of a process.

    python launch/latency.py --workdir=DIR [--repeats=5]

Calls: 2 samples of 8 steps, a fill, a likelihood; the first compiles, the others (other seeds and
texts, medians of the repeats) do not. Processes: the `sample` command without kept programs, with
an empty folder for them, and again with what the one before left there (medians of the repeats).
Prints wall time, and for processes processor time, which other programs disturb less; last column:
the first line of each block over this one.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ldd_jax

STEPS, SAMPLES = 8, 2
Lines = list[tuple[str, float, float | None]]


def calls(workdir: str, repeats: int) -> list[Lines]:
    """Seconds of the first and of later calls."""
    model = ldd_jax.load(workdir)
    start = "the "
    texts = [f"{start}{word}" for word in ("list", "dict", "file", "name", "text", "code")]
    kinds: dict[str, Callable[[int], object]] = {
        f"sample({SAMPLES}, steps={STEPS})": lambda i: model.sample(SAMPLES, steps=STEPS, seed=i),
        "fill(text, 2)": lambda i: model.fill(f"{texts[i % 6]} [MASK][MASK]", 2, seed=i),
        "nll(text)": lambda i: model.nll(texts[i % 6]),
    }
    out: list[Lines] = []
    for name, call in kinds.items():
        spent = []
        for i in range(repeats + 1):
            began = time.perf_counter()
            call(i)
            spent.append(time.perf_counter() - began)
        out.append([
            (f"{name}, first call", spent[0], None),
            (f"{name}, later calls", statistics.median(spent[1:]), None),
        ])  # fmt: skip
    return out


def process(workdir: str, cache: Path, *flags: str) -> tuple[float, float]:
    """Wall and processor seconds of a `sample` process."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    env |= {"XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "ldd_jax", "sample", f"--workdir={workdir}", *flags]
    command += [f"--num_samples={SAMPLES}", f"--steps={STEPS}", f"--output={cache / 's.jsonl'}"]
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    before, began = used(), time.perf_counter()
    subprocess.run(command, env=env, check=True, capture_output=True)
    return time.perf_counter() - began, used() - before


def starts(workdir: str, repeats: int) -> Lines:
    """Processes in turn, so that other programs disturb all alike."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            cache = Path(name)
            for what, flags in (
                ("`sample` process, nothing kept", ("--nocompilation_cache",)),
                ("the first that keeps its programs", ()),
                ("the second", ()),
            ):
                found.setdefault(what, []).append(process(workdir, cache, *flags))
    middle = lambda what, i: statistics.median(pair[i] for pair in found[what])
    return [(what, middle(what, 0), middle(what, 1)) for what in found]


def table(blocks: list[Lines]) -> str:
    """Markdown, with ratios within each block."""
    lines = ["| | seconds | processor seconds | ratio |", "|---|---|---|---|"]
    for block in blocks:
        _, wall, used = block[0]
        for name, seconds, cpu in block:
            ratio = f"{wall / seconds:.1f}" + (f" ({used / cpu:.1f})" if used and cpu else "")
            spent = "" if cpu is None else f"{cpu:.2f}"
            lines.append(f"| {name} | {seconds:.3f} | {spent} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    blocks = calls(chosen.workdir, chosen.repeats)
    print(table([*blocks, starts(chosen.workdir, chosen.repeats)]), flush=True)


if __name__ == "__main__":
    main()
