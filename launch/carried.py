"""The bounds of two passes and of the carried sampler itself, for runs of `launch/table.py`.

    python launch/carried.py --folder=runs/table [--methods=mdlm,lddm_m,udlm,lddm_u]
        [--seeds=0,1,2] [--steps=4,16,64,256] [--trajectories=4,4,2,1] [--sequences=64]

Each run is evaluated on the same rows with the same draws, into WORKDIR/bounds.jsonl, which
`report` shows; finished ones are not done again. Errors: standard deviation of the seeds over
sqrt(seeds); the Monte-Carlo error of the draws alone, in brackets, is what pairing does not cancel.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from cells import mean_and_error

from ldd_jax.config.experiment import read_corpus
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.inference import carried, evaluate, generate, pipeline

BOUND, TIGHTER, DRAWN = "nelbo_nats_per_token", "importance_nats_per_token", "monte_carlo_se"


def main() -> None:
    """Evaluate what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--methods", default="mdlm,lddm_m,udlm,lddm_u")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", default="4,16,64,256")
    parser.add_argument("--trajectories", default="4,4,2,1")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--draws", type=int, default=64)
    chosen = parser.parse_args()
    keep_freed_memory()
    steps, paths = ([int(n) for n in a.split(",")] for a in (chosen.steps, chosen.trajectories))
    names = ["of so many passes", *(f"own, T = {n}" for n in steps)]
    print("| method (passes) | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for method in chosen.methods.split(","):
        runs = [chosen.folder / f"{method}-{seed}" for seed in chosen.seeds.split(",")]
        found = [
            evaluated(run, dict(zip(steps, paths)), chosen.sequences, chosen.draws)
            for run in runs
            if (run / "summary.json").is_file()
        ]
        if found:
            print(line(method, found, steps), flush=True)


def evaluated(workdir: Path, paths: dict[int, int], sequences: int, draws: int) -> list[dict]:
    """The records of one run: passes first, then by steps."""
    there = workdir / "bounds.jsonl"
    if not there.is_file():
        experiment, params, _ = pipeline.load_trained(workdir)
        corpus = read_corpus(experiment)
        each = dict(sequences=sequences)
        found = [evaluate.evaluate_split(experiment, corpus, params, draws=draws, **each)]
        run = carried.program(experiment, carried.settings(experiment))
        for steps, many in paths.items():
            sampling = carried.settings(experiment, steps=steps)
            how = dict(run=run, trajectories=many, **each)
            found.append(carried.evaluate_split(experiment, corpus, params, sampling, **how))
        generate.write_json_lines(str(there), [f.record() for f in found])
    return [json.loads(text) for text in there.read_text().splitlines()]


def line(method: str, found: list[list[dict]], steps: list[int]) -> str:
    """Mean over seeds +- s.e. [of the draws]; importance weighted; above that of the passes."""
    passes = [run[0] for run in found]
    cells = [f"{method} ({passes[0]['passes']})", f"{shown(passes, BOUND)} [{drawn(passes):.4f}]"]
    for place in range(1, len(steps) + 1):
        own = [run[place] for run in found]
        gaps = [{BOUND: a[BOUND] - b[BOUND]} for a, b in zip(own, passes)]
        tighter = f"; IW-{own[0]['draws']} {shown(own, TIGHTER)}" * (own[0]["draws"] > 1)
        cells.append(f"{shown(own, BOUND)} [{drawn(own):.4f}]{tighter}; {shown(gaps, BOUND)} above")
    return "| " + " | ".join(cells) + " |"


def shown(records: list[dict], name: str) -> str:
    """Mean and error over seeds."""
    return "{:.4f} +- {:.4f}".format(*mean_and_error([r[name] for r in records]))


def drawn(records: list[dict]) -> float:
    """Monte-Carlo error of the mean over seeds; one draw tells none."""
    errors = [r[DRAWN] for r in records]
    return math.nan if None in errors else math.hypot(*errors) / len(errors)


if __name__ == "__main__":
    main()
