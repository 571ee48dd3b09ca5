"""The bounds of two passes and of the carried sampler itself, for runs of `launch/table.py`.

    python launch/carried.py --folder=runs/table [--methods=mdlm,lddm_m,udlm,lddm_u]
        [--seeds=0,1,2] [--steps=4,16,64,256] [--sequences=128] [--trajectories=4]

Each run is evaluated on the same rows with the same draws, into WORKDIR/bounds.jsonl, which
`report` shows; finished ones are not done again. Errors: standard deviation of the seeds over
sqrt(seeds).
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from cells import command, mean_and_error

from ldd_jax.core import writing

BOUND, TIGHTER = "nelbo_nats_per_token", "importance_nats_per_token"


def main() -> None:
    """Evaluate what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--methods", default="mdlm,lddm_m,udlm,lddm_u")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", default="4,16,64,256")
    parser.add_argument("--sequences", default="128")
    parser.add_argument("--trajectories", default="4")
    chosen = parser.parse_args()
    steps = [int(n) for n in chosen.steps.split(",")]
    names = ["of so many passes", *(f"carried, T = {n}" for n in steps)]
    print("| method | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for method in chosen.methods.split(","):
        runs = [chosen.folder / f"{method}-{seed}" for seed in chosen.seeds.split(",")]
        found = [evaluated(run, chosen) for run in runs if (run / "summary.json").is_file()]
        if found:
            print(line(method, found, steps), flush=True)


def evaluated(workdir: Path, chosen: argparse.Namespace) -> list[dict]:
    """The records of one run: passes first, then by steps."""
    there = workdir / "bounds.jsonl"
    if not there.is_file():
        parts = []
        rows = f"--max_sequences={chosen.sequences}"
        own = ("--bound=carried", f"--steps={chosen.steps}")
        for name, flags in (
            ("passes", ("--draws=16",)),
            ("own", (*own, f"--trajectories={chosen.trajectories}")),
        ):
            output = workdir / f"bounds-{name}.jsonl"
            argv = command("evaluate", f"--workdir={workdir}", rows, f"--output={output}", *flags)
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
            parts.append(output)
        writing.write(there, "".join(part.read_text() for part in parts))
        for part in parts:
            part.unlink()
    return [json.loads(text) for text in there.read_text().splitlines()]


def line(method: str, found: list[list[dict]], steps: list[int]) -> str:
    """Mean over seeds +- s.e.: the bound / importance weighted (above that of so many passes)."""
    cells = [f"{method} ({found[0][0]['passes']})", shown([run[0][BOUND] for run in found])]
    for place in range(1, len(steps) + 1):
        bound, tighter = ([run[place][name] for run in found] for name in (BOUND, TIGHTER))
        gap = shown(paired(found, place))
        cells.append(f"{shown(bound)} / {shown(tighter)} ({gap})")
    return "| " + " | ".join(cells) + " |"


def paired(found: list[list[dict]], place: int) -> list[float]:
    """By seed, what the sampler's own bound is above that of so many passes."""
    return [run[place][BOUND] - run[0][BOUND] for run in found]


def shown(values: list[float]) -> str:
    """Mean and error."""
    return "{:.4f} +- {:.4f}".format(*mean_and_error(values))


if __name__ == "__main__":
    main()
