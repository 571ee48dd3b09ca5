"""The bounds of two samplers of T steps: of the one that carries h, and of the two-pass one.

    python launch/carried.py --folder=runs/table [--methods=mdlm,lddm_m,udlm,lddm_u]
        [--seeds=0,1,2] [--steps=4,16,64,256] [--trajectories=4,2,1,1] [--sequences=64]

Runs of `launch/table.py`, all on the same rows along the same paths, so that differences are
paired; records go into WORKDIR/bounds.jsonl, which `report` shows, and finished ones are not done
again. The two-pass sampler begins every step with h = 0; a network without latent has one pass and
one sampler. Errors: standard deviation of the seeds over sqrt(seeds).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from cells import mean_and_error

from ldd_jax.config.experiment import read_corpus
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.inference import carried, evaluate, json_lines, loading, own_law

BOUND, TIGHTER = "nelbo_nats_per_token", "importance_nats_per_token"


@dataclasses.dataclass(frozen=True)
class TwoPasses:
    """A model without latent: two passes of another, the first from h = 0."""

    inner: Any
    latent = False

    num_classes = property(lambda self: self.inner.num_classes)
    time_conditioning = property(lambda self: self.inner.time_conditioning)

    def bind(self, params: Any) -> Any:
        """The denoiser."""
        return TwoPassDenoiser(self.inner.bind(params))


@dataclasses.dataclass(frozen=True)
class TwoPassDenoiser:
    """Of `TwoPasses`."""

    inner: Any

    head = property(lambda self: self.inner.head)
    timed = property(lambda self: self.inner.timed)

    def trunk(self, z: Any, cond: Any, h: Any = None) -> Any:
        """The second pass, which gets the latent of the first."""
        first = self.inner.trunk(z, cond)
        return self.inner.trunk(z, cond, first.latent)._replace(latent=h)

    def latent(self, batch: int, length: int) -> None:
        """None."""


def main() -> None:
    """Evaluate what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--methods", default="mdlm,lddm_m,udlm,lddm_u")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", default="4,16,64,256")
    parser.add_argument("--trajectories", default="4,2,1,1")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--draws", type=int, default=16)
    chosen = parser.parse_args()
    keep_freed_memory()
    steps, paths = ([int(n) for n in a.split(",")] for a in (chosen.steps, chosen.trajectories))
    print("| method, sampler | " + " | ".join(f"T = {n}" for n in steps) + " |")
    print("|" + "---|" * (len(steps) + 1))
    for method in chosen.methods.split(","):
        runs = [chosen.folder / f"{method}-{seed}" for seed in chosen.seeds.split(",")]
        found = [
            evaluated(run, dict(zip(steps, paths)), chosen.sequences, chosen.draws)
            for run in runs
            if (run / "summary.json").is_file()
        ]
        if found:
            print("\n".join(lines(method, found, steps)), flush=True)


def evaluated(workdir: Path, paths: dict[int, int], sequences: int, draws: int) -> list[dict]:
    """The records of one run: the bound of its passes, then its samplers by steps."""
    there = workdir / "bounds.jsonl"
    if not there.is_file():
        experiment, params, _ = loading.load_trained(workdir)
        corpus = read_corpus(experiment)
        each = dict(sequences=sequences)
        bound = evaluate.evaluate_split(experiment, corpus, params, draws=draws, **each)
        found = [bound.record()]
        kinds = [(experiment, "carried" if experiment.model.latent else "one pass")]
        if experiment.model.latent:
            two = dataclasses.replace(experiment, model=TwoPasses(experiment.model))
            kinds.append((two, "two passes"))
        for e, kind in kinds:
            run = carried.program(e, own_law.settings(e))
            for steps, many in paths.items():
                how = dict(run=run, trajectories=many, **each)
                sampling = own_law.settings(e, steps=steps)
                record = carried.evaluate_split(e, corpus, params, sampling, **how).record()
                if kind == "two passes":
                    record["sampler"] += ", two passes a step from h = 0"
                found.append(record | {"kind": kind, "steps": steps})
        json_lines.write(str(there), found)
    return [json.loads(text) for text in there.read_text().splitlines()]


def lines(method: str, found: list[list[dict]], steps: list[int]) -> list[str]:
    """Of each sampler, and of the difference of two, bound; importance weighted where it is."""
    kinds = list(dict.fromkeys(r["kind"] for r in found[0] if "kind" in r))
    pick = lambda kind, n, name: [
        r[name] for run in found for r in run if r.get("kind") == kind and r.get("steps") == n
    ]
    row = lambda name, cells: f"| {method}, {name} | " + " | ".join(cells) + " |"
    out = []
    for kind in kinds:
        out.append(row(kind, [shown(*(pick(kind, n, x) for x in (BOUND, TIGHTER))) for n in steps]))
    if len(kinds) == 2:
        gap = lambda n, name: [
            a - b for a, b in zip(pick(kinds[0], n, name), pick(kinds[1], n, name))
        ]
        cells = [shown(*(gap(n, x) for x in (BOUND, TIGHTER))) for n in steps]
        out.append(row(f"{kinds[0]} - {kinds[1]}", cells))
    return out


def shown(bound: list[float], tighter: list[float]) -> str:
    """Mean and error over seeds; behind it importance weighted, where there are several paths."""
    if not bound:
        return ""
    text = "{:+.4f} +- {:.4f}" if min(bound) < 0.5 else "{:.4f} +- {:.4f}"
    one = text.format(*mean_and_error(bound))
    return one if bound == tighter else f"{one} / {text.format(*mean_and_error(tighter))}"


if __name__ == "__main__":
    main()
