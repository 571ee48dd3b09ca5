"""The table of docs/scale.md: largest batch, memory and estimate of every size on named slices.

Command:   PYTHONPATH=.tpu python launch/scale.py --output=runs/scale.jsonl
           (make .tpu/.installed first; one compilation is 1 to 3 minutes, a row 3 to 6 of them)
Rows that the output holds already are not made again; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

# Size, slice, sequences a chip to begin with, policies to search.
ROWS = (
    ("small", "v5e:4x4", 256, "full:4"),
    ("small", "v5e:4x4", 8, "none:1,dots:1,full:1"),
    ("1b", "v5p:4x4x4", 64, "full:16"),
    ("7b", "v5p:4x8x8", 32, "full:16"),
    ("70b", "v5p:8x8x16", 4, "full:16"),
    ("medium", "v5e:8x8", 48, "full:16"),
    ("1b", "v6e:8x8", 16, "full:16"),
    ("7b", "v6e:16x16", 32, "full:16"),
    ("1b", "v5e:16x16", 8, "full:16"),
    ("small", "v6e:4x4", 256, "full:16"),
    ("small", "v5p:4x4x4", 1024, "full:16"),
)
HEAD = (
    "| size | parameters | slice | chips | remat, chunks | sequences/chip | parameters + EMA + "
    "optimizer, GiB | peak, GiB | of | tokens/s/chip (estimate) | MFU (estimate) | compile, s |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def row(size: str, topology: str, start: int, policies: str) -> dict:
    """Search one row in a process of its own."""
    command = [
        sys.executable, "-m", "ldd_jax", "plan", f"--config=configs/openwebtext.py:size={size}",
        f"--topology={topology}", f"--per_chip={start}", "--search", f"--policies={policies}",
        "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout[done.stdout.index("{") :])


def _share(mfu: float | None) -> str:
    """As a number, where the estimate says one: not where it assumes it (`plan.estimate`)."""
    return "half of peak assumed" if mfu is None else f"{mfu:.2f}"


def line(size: str, found: dict) -> str:
    """A row of the table."""
    best = found.get("best")
    if not best:
        return f"| {size} | {found.get('error', 'nothing fits')} |" + " |" * 10
    memory, estimate = best["gib_per_device"], best["estimate"]
    state = memory["parameters"] + memory["average"] + memory["optimizer"]
    return (
        f"| {size} | {best['parameters'] / 1e9:.2f} G | {best['topology']} | {best['chips']} | "
        f"{best['remat']}, {best['chunks']} | {best['sequences_per_chip']} | {state:.2f} | "
        f"{memory['peak']:.1f} | {memory['capacity']:.0f} | "
        f"{estimate['tokens_per_second_per_chip']:,.0f} | {_share(estimate['mfu'])} | "
        f"{best['compile_seconds']:.0f} |"
    )


def main() -> None:
    """Make what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/scale.jsonl"))
    parser.add_argument("--only", default="", help="a size, or a size on a slice: 7b@v5p:4x8x8")
    given = parser.parse_args()
    given.output.parent.mkdir(parents=True, exist_ok=True)
    lines = given.output.read_text().splitlines() if given.output.exists() else []
    have = {tuple(r["row"]): r for r in map(json.loads, lines)}
    for spec in ROWS:
        if spec in have or given.only not in ("", spec[0], f"{spec[0]}@{spec[1]}"):
            continue
        have[spec] = {"row": spec, **row(*spec)}
        with given.output.open("a") as file:
            file.write(json.dumps(have[spec]) + "\n")
        print(line(spec[0], have[spec]), flush=True)
    print(HEAD)
    for spec in ROWS:
        if spec in have:
            print(line(spec[0], have[spec]))


if __name__ == "__main__":
    main()
