"""Multi-Flow on a chain whose laws are known: joint samples, and a student of few steps.

    python launch/joint.py --output=runs/joint [--methods=joint,lddm_joint] [--noises=0.5,2] \
        [--seeds=0,1,2] [--updates=3000] [--student_updates=1000] [--samples=8192]

A run: a joint model of letters (6 states, 32 long) and their codes with noise (`data: chain`) is
trained; it draws pairs in 64 steps; a student that begins with it learns tokens given the signal
from those pairs alone. Measured on pairs of the true chain, nats a token given the signal: the
samplers' own bound in 1, 2, 4, 32 steps (of one step it is the likelihood itself), of teacher and
student, along equal steps and along grids learned from e(n); beside the entropy, and what one step
of an ideal network costs, both exact. And the joint samples: total variation of the law of
(class of the signal, letter) at a place, of (class, next class) and (letter, next letter), beside
those of exact draws. One JSON line a run in OUTPUT.jsonl; a run that is there is not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cells import mean_and_error

from ldd_jax.config import packaged
from ldd_jax.core import outputs, registry
from ldd_jax.data import ChainData
from ldd_jax.data.signal_chain import chain, codes
from ldd_jax.inference import carried, distill, own_law, pipeline
from ldd_jax.oracle.signals import Shown
from ldd_jax.runs.train import train

STEPS = (1, 2, 4, 32)
LEARNED = (2, 4)
HELD = 1_000_000  # seed of the pairs that are measured on


def recipe() -> Any:
    """configs/joint.py."""
    spec = importlib.util.spec_from_file_location("joint_recipe", packaged.path("joint"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def law_of(data: ChainData) -> Shown:
    """The chain in closed form."""
    move = jnp.asarray(chain(data.states, data.concentration, data.seed))
    start = jnp.full(data.states, 1 / data.states)
    return Shown(start, move, jnp.asarray(codes(data.states)), data.noise)


def pairs_of(path: Path, letters: np.ndarray, signal: np.ndarray) -> None:
    """Write pairs as `sample` does."""
    with outputs.place(str(path)).open() as stream:
        for c, x in zip(letters, signal):
            text = "".join(chr(ord("a") + int(i)) for i in c)
            stream.write(json.dumps({"text": text, "signal": x.round(5).tolist()}) + "\n")


def laws(letters: np.ndarray, signal: np.ndarray) -> dict[str, np.ndarray]:
    """Laws of (class, letter), and of neighbours of either, counted over all places."""
    seen, size = signal.argmax(-1), signal.shape[-1] + 1  # the letter past the last is unknown
    count = lambda a, b: np.bincount((a * size + b).ravel().astype(int), minlength=size**2)
    found = {
        "pairs": count(seen, letters),
        "letters": count(letters[:, :-1], letters[:, 1:]),
        "classes": count(seen[:, :-1], seen[:, 1:]),
    }
    return {name: n / n.sum() for name, n in found.items()}


def apart(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    """Total variation of each."""
    return {name: float(np.abs(one[name] - other[name]).sum() / 2) for name in one}


def bounds(
    loaded: pipeline.Pipeline, corpus: Any, grids: dict[str, Any], rows: int
) -> dict[str, Any]:
    """Own bounds [nats a token, error] by grid and number of steps, with the latent carried."""
    experiment = loaded.experiment.of_tokens
    out: dict[str, Any] = {}
    programs: dict[Any, Any] = {}
    for name, (grid, steps) in grids.items():
        some = own_law.settings(experiment, sampler="ancestral", steps=steps)
        some = dataclasses.replace(some, grid=grid or some.grid)
        run = programs.setdefault(some.grid, carried.program(experiment, some))  # of any steps
        found = carried.evaluate_split(
            experiment, corpus, loaded.params, some, run=run, sequences=rows, trajectories=2
        )
        out[name] = [found.nats, found.se]
    return out


def learned(loaded: pipeline.Pipeline, corpus: Any, steps: int) -> Any:
    """The grid of so many steps, from e(n) given the signal."""
    experiment = loaded.experiment.of_tokens
    some = own_law.settings(experiment, sampler="ancestral", steps=steps)
    return distill.distill(experiment, corpus, loaded.params, some, sequences=512).grid


def run(method: str, noise: str, seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train both, measure both."""
    begun, folder = time.time(), chosen.output / f"{method}-{noise}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    config = recipe().get_config(f"method={method},noise={noise}")
    with config.unlocked():
        config.seed, config.training.num_steps = seed, chosen.updates
    train(config.lock(), folder / "teacher")
    data: ChainData = registry.build("data", config.data)
    law, teacher = law_of(data), pipeline.load(folder / "teacher")
    made = list(teacher.records(num_samples=chosen.samples, steps=64, seed=seed, batch_size=512))
    letters = np.asarray([r["tokens"] for r in made])
    signal = np.asarray([r["signal"] for r in made])
    pairs_of(folder / "pairs.jsonl", letters, signal)
    big = laws(*map(np.asarray, data.draw(200_000, HELD + 1)))
    truth, shown = data.draw(chosen.rows, HELD)
    pairs_of(folder / "truth.jsonl", truth, shown)
    own = f"method={method.replace('joint', 'given')},from={folder / 'teacher'}"
    config = recipe().get_config(own)
    with config.unlocked():
        config.seed, config.training.num_steps = seed, chosen.student_updates
        config.data.path = str(folder / "pairs.jsonl")
        config.data.validation_path = str(folder / "truth.jsonl")
    train(config.lock(), folder / "student")
    student = pipeline.load(folder / "student")
    corpus = registry.build("data", config.data).load(student.tokenizer)
    equal = {str(n): (None, n) for n in STEPS}
    table = {str(n): (learned(student, corpus, n), n) for n in LEARNED}
    exact = jax.jit(lambda c, x: (law.log_given(c, x), law.total_correlation(c, x)))
    given, correlation = exact(jnp.asarray(truth, jnp.int32), jnp.asarray(shown))
    length = truth.shape[1]
    return {
        "method": method,
        "noise": float(noise),
        "seed": seed,
        "updates": [chosen.updates, chosen.student_updates],
        "entropy": float(-jnp.mean(given) / length),
        "correlation": float(jnp.mean(correlation) / length),
        "joint": apart(laws(letters, signal), big),
        "exact_draws": apart(laws(*data.draw(len(letters), HELD + 2)), big),
        "teacher": bounds(teacher, corpus, equal, chosen.rows),
        "student": bounds(student, corpus, equal, chosen.rows),
        "student_learned": bounds(student, corpus, table, chosen.rows),
        "times": {n: list(grid.times) for n, (grid, _) in table.items()},
        "seconds": round(time.time() - begun, 1),
    }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: means over seeds, standard errors of those means."""
    told = lambda values, digits=4: "{:.{d}f} +- {:.{d}f}".format(*mean_and_error(values), d=digits)
    lines = [
        "| method | noise | TV pairs | entropy | TC | teacher, 32 steps | student, 32 | 1 step |"
        " 1 less 32 | 2 and 4 steps | 2 and 4, learned grid |\n" + "|---" * 11 + "|"
    ]
    kinds = dict.fromkeys((r["method"], r["noise"]) for r in found)
    for method, noise in kinds:
        own = [r for r in found if (r["method"], r["noise"]) == (method, noise)]
        of = lambda who, n, own=own: [r[who][n][0] for r in own]
        less = [a - b for a, b in zip(of("student", "1"), of("student", "32"))]
        row = [method, f"{noise:g}", told([r["joint"]["pairs"] for r in own])]
        row += [f"{np.mean([r[n] for r in own]):.4f}" for n in ("entropy", "correlation")]
        row += [told(of("teacher", "32")), told(of("student", "32")), told(of("student", "1"))]
        row += [told(less)]
        for who in ("student", "student_learned"):
            row += ["; ".join(told(of(who, str(n))) for n in LEARNED)]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", default="joint,lddm_joint")
    parser.add_argument("--noises", default="0.5,2")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--student_updates", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=1024, help="true pairs that are measured on")
    chosen = parser.parse_args()
    path = chosen.output.with_suffix(".jsonl")
    old = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    key = lambda r: (r["method"], r["noise"], r["seed"], tuple(r["updates"]))
    found = {key(r): r for r in old}
    updates = (chosen.updates, chosen.student_updates)
    asked = [
        (method, float(noise), int(seed), updates)
        for seed in chosen.seeds.split(",")
        for noise in chosen.noises.split(",")
        for method in chosen.methods.split(",")
    ]
    for one in asked:
        if one not in found:
            method, noise, seed, _ = one
            found[one] = run(method, f"{noise:g}", seed, chosen)
            with outputs.place(str(path)).open() as stream:
                stream.writelines(json.dumps(r) + "\n" for r in found.values())
            print(*one, found[one]["seconds"], found[one]["joint"], flush=True)
    print(table([found[one] for one in asked]))


if __name__ == "__main__":
    main()
