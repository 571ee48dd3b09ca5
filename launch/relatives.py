"""Loopholing and its relatives at equal training operations, and their samplers' own bounds.

    python launch/relatives.py --folder=runs/relatives [--methods=mdlm,lddm_m,...] [--seeds=0,1,2]
        [--updates=1500] [--steps=4,16,64] [--trajectories=4,2,1] [--sequences=64] [--draws=16]
        [--lrs=2.5e-3,5e-3 [--tuning_seed=0] [--tuning_updates=500]] [--only_operations]
        [--samples=64 [--judge=ngram]] [--output=PICTURE] [--only_found] [-- OVERRIDES]

Every method gets the operations of `--updates` updates of the first one, counted from the traced
update as `plan --what=flops` does. A cell is an ordinary `train` run in FOLDER/METHOD-SEED; then
the bound of its passes and the own bound of its sampler (`evaluate --bound=carried`) at T calls,
and at as many calls as have the operations of T calls of the first method; all on the same rows
along the same paths. With `--samples` also the judge's nats and the entropy of samples, at the
operations of the most calls of the first method. With `--lrs` each method gets the learning rate
whose run of the tuning seed ends with the lowest bound by its passes (FOLDER/tuning/METHOD-RATE):
give it a seed that is not in the table. FOLDER/METHOD-SEED.json holds a cell: a stopped table
resumes, what is finished is not done again. Errors: standard deviation of the seeds over
sqrt(seeds); differences to the first method are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from carried import BOUND, evaluated
from cells import finished, judged, mean_and_error, save, train

from ldd_jax.cli.main import COMMANDS, parse
from ldd_jax.core import registry, writing
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.planning import cost, plan

METHODS = "mdlm,lddm_m,lddm_unrolled,lddm_rollout,relay,soft_masking,rcd,self_conditioning,looped"


def main() -> None:
    """Fill and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--steps", default="4,16,64")
    parser.add_argument("--trajectories", default="4,2,1")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=0, help="0 = that of the data")
    parser.add_argument(
        "--lrs", default="", help="learning rates to choose from; '' = the config's"
    )
    parser.add_argument("--tuning_seed", default="0")
    parser.add_argument("--tuning_updates", type=int, default=0, help="0 = those of the table")
    parser.add_argument("--samples", type=int, default=0, help="that are judged; 0 = none")
    parser.add_argument("--judge", default="ngram")
    parser.add_argument("--output", type=Path, help="a picture of the bounds")
    parser.add_argument("--only_operations", action="store_true")
    parser.add_argument("--only_found", action="store_true")
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    keep_freed_memory()
    methods = chosen.methods.split(",")
    price = prices(chosen, methods)
    print(operations(price, chosen.updates), flush=True)
    if chosen.only_operations:
        return
    rates = tuned(chosen, methods, price) if chosen.lrs and not chosen.only_found else {}
    steps, paths = ([int(n) for n in a.split(",")] for a in (chosen.steps, chosen.trajectories))
    found: dict[str, dict[str, dict]] = {}
    for seed in chosen.seeds.split(","):
        for method in methods:
            place = chosen.folder / f"{method}-{seed}.json"
            if not place.is_file():
                if chosen.only_found:
                    continue
                own = [f"--config.optim.lr={rates[method]}"] if rates else []
                made = cell(chosen, method, seed, price, dict(zip(steps, paths)), own)
                with writing.replacing(place) as stream:
                    stream.write(json.dumps(made, indent=1) + "\n")
            found.setdefault(method, {})[seed] = json.loads(place.read_text())
            bound = found[method][seed]["bound"]
            print(f"{method} seed {seed}: {bound:.4f} nats by its passes", flush=True)
    if not found:
        raise SystemExit(f"no finished cell in {chosen.folder}")
    for head, name in (("calls", "steps"), ("sampling operations", "equal")):
        print(f"\nOwn bound at equal {head}\n{table(found, methods, steps, name)}")
    if chosen.samples:
        print(f"\nJudged\n{judgements(chosen, found, methods, steps[-1])}")
    if chosen.output:
        draw(found, methods, steps, chosen.output)


def prices(chosen: argparse.Namespace, methods: list[str]) -> dict[str, dict[str, float]]:
    """Operations of an update and of a sampling step, and calls of the network, of every method."""
    out: dict[str, dict[str, float]] = {}
    size = chosen.vocabulary
    for method in methods:
        argv = [f"--config={chosen.config}:method={method}", *chosen.overrides]
        config = parse("train", COMMANDS["train"], argv).config
        size = size or registry.build("data", config.data).load().tokenizer.size
        built = plan.build(plan.with_fields(config, mesh__data=1), size, jax.devices()[:1])
        batch, context = built.training.batch_size, built.objective.context
        sampled = cost.sampler_step_count(built, built.sampling.batch_size, 64).total
        out[method] = {
            "update": cost.step_count(built, batch).total,
            "call": sampled / built.sampling.batch_size,
            "forward": context.forward,
            "trained": context.trained,
            "loops": cost.mean_loops(built),
        }
    return out


def operations(price: dict[str, dict[str, float]], updates: int) -> str:
    """Markdown: what an update and a call of every method cost, and its number of updates."""
    first = next(iter(price.values()))
    lines = [
        "| method | passes forward | passes with gradient | loops | operations an update | of the "
        "first | a sampling step, of the first | updates |",
        "|---" * 8 + "|",
    ]
    for method, own in price.items():
        lines.append(
            f"| {method} | {own['forward']:g} | {own['trained']:g} | {own['loops']:g} | "
            f"{own['update']:.3g} | {own['update'] / first['update']:.3f} | "
            f"{own['call'] / first['call']:.3f} | {number(own, first, updates)} |"
        )
    return "\n".join(lines)


def number(own: dict[str, float], first: dict[str, float], updates: int) -> int:
    """Updates of a method that have the operations of so many of the first."""
    return max(1, round(updates * first["update"] / own["update"]))


def equal_steps(own: dict[str, float], first: dict[str, float], steps: int) -> int:
    """Sampling steps with the operations of so many of the first."""
    return max(1, round(steps * first["call"] / own["call"]))


def lengths(updates: int) -> list[str]:
    """Flags of a run of so many updates that looks at itself at its end."""
    every = {f"{n}_every": updates for n in ("eval", "sample", "checkpoint")}
    return [f"--config.training.{k}={v}" for k, v in {"num_steps": updates, **every}.items()]


def tuned(
    chosen: argparse.Namespace, methods: list[str], price: dict[str, dict[str, float]]
) -> dict[str, str]:
    """The best learning rate of each method, at equal operations too."""
    first, best = next(iter(price.values())), {}
    for method in methods:
        updates = chosen.tuning_updates or chosen.updates
        flags = [*lengths(number(price[method], first, updates)), *chosen.overrides]
        found = {}
        for rate in chosen.lrs.split(","):
            workdir = chosen.folder / "tuning" / f"{method}-{rate}"
            own = [*flags, f"--config.optim.lr={rate}"]
            made = train(workdir, chosen.config, method, chosen.tuning_seed, own)
            found[rate] = made["nelbo_nats_per_token"]
        best[method] = min(found, key=found.__getitem__)
        shown = ", ".join(f"{r}: {b:.4f}" for r, b in found.items())
        print(f"{method}: learning rate {best[method]} ({shown})", flush=True)
    return best


def cell(
    chosen: argparse.Namespace,
    method: str,
    seed: str,
    price: dict[str, dict[str, float]],
    paths: dict[int, int],
    flags: list[str],
) -> dict[str, Any]:
    """Train and evaluate one run, or take what is there of it.

    Args:
      chosen: of the command line.
      method: its name.
      seed: of the run.
      price: of `prices`.
      paths: trajectories by number of steps.
      flags: of this method's training alone.
    """
    first, own = next(iter(price.values())), price[method]
    updates = number(own, first, chosen.updates)
    workdir = chosen.folder / f"{method}-{seed}"
    flags = [*lengths(updates), *chosen.overrides, *flags]
    summary = train(workdir, chosen.config, method, seed, flags)
    assert finished(workdir)
    equal = {n: equal_steps(own, first, n) for n in paths}
    wanted = {equal[n]: many for n, many in paths.items()} | paths
    records = evaluated(workdir, wanted, chosen.sequences, chosen.draws)
    of_kind = lambda n, two: next(
        (r[BOUND] for r in records
         if r.get("steps") == n and (r["kind"] == "two passes") == two), None
    )  # fmt: skip
    return {
        "method": method,
        "seed": int(seed),
        "updates": updates,
        "training_operations": updates * own["update"],
        "operations": own,
        "seconds": summary["seconds"],
        "bound": records[0][BOUND],
        "passes": records[0]["passes"],
        "steps": {n: of_kind(n, False) for n in paths},
        "equal_steps": equal,
        "equal": {n: of_kind(equal[n], False) for n in paths},
        "two_passes": {n: of_kind(n, True) for n in paths},
    }


def table(found: dict[str, dict], methods: list[str], steps: list[int], name: str) -> str:
    """Markdown: mean and error of each method's bounds, and differences to the first.

    Args:
      found: cells by method and seed.
      methods: in the order of the lines.
      steps: T of the columns.
      name: of the bounds in a cell.
    """
    heads = "".join(f"| T = {n} | - {methods[0]} " for n in steps)
    lines = [f"| method | seeds | by its passes | - {methods[0]} {heads}|"]
    lines.append("|---" * (4 + 2 * len(steps)) + "|")
    base = found.get(methods[0], {})
    for method in (m for m in methods if m in found):
        cells = found[method]
        fields = [method, str(len(cells))]
        fields += pair(cells, base, lambda c: c["bound"])
        for n in steps:
            fields += pair(cells, base, lambda c, n=n: c[name][str(n)])
        lines.append("| " + " | ".join(fields) + " |")
    return "\n".join(lines)


def judgements(
    chosen: argparse.Namespace, found: dict[str, dict], methods: list[str], steps: int
) -> str:
    """Markdown: the judge's nats a token and the entropy of each method's samples."""
    lines = [f"| method | calls | nats by {chosen.judge} | - {methods[0]} | entropy |"]
    lines.append("|---" * 5 + "|")
    base: dict[str, dict] = {}
    for method in (m for m in methods if m in found):
        calls = next(iter(found[method].values()))["equal_steps"][str(steps)]
        made = {
            seed: judged(chosen.folder / f"{method}-{seed}", chosen.judge, chosen.samples, calls)
            for seed in found[method]
        }
        base = base or made
        fields = [method, str(calls), *pair(made, base, lambda c: c["nats"])]
        fields.append(pair(made, made, lambda c: c["entropy"])[0])
        lines.append("| " + " | ".join(fields) + " |")
    return "\n".join(lines)


def draw(found: dict[str, dict], methods: list[str], steps: list[int], path: Path) -> None:
    """Own bounds at equal sampling operations, less the first method's, by T; errors over seeds."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    base = found[methods[0]]
    for i, method in enumerate(m for m in methods[1:] if m in found):
        both = [s for s in found[method] if s in base]
        gaps = [
            mean_and_error([found[method][s]["equal"][n] - base[s]["equal"][n] for s in both])
            for n in map(str, steps)
        ]
        shifted = [n * 1.03**i for n in steps]  # so that bars do not hide each other
        axes.errorbar(shifted, *zip(*gaps), label=method, marker="o", markersize=4, capsize=2)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.set_xlabel(f"T of {methods[0]}; others have as many operations")
    axes.set_ylabel(f"own bound less that of {methods[0]}, nats a token")
    axes.legend(fontsize=8, ncols=2)
    axes.grid(alpha=0.3)
    save(figure, path)


def pair(cells: dict[str, dict], base: dict[str, dict], pick: Any) -> list[str]:
    """Mean and error of a number over seeds, and of its difference to the base by seed."""
    both = [pick(cells[s]) - pick(base[s]) for s in cells if s in base]
    shown = lambda values, sign="": (
        "{:{}.4f} +- {}".format(
            mean_and_error(values)[0],
            sign,
            "?" if math.isnan(mean_and_error(values)[1]) else f"{mean_and_error(values)[1]:.4f}",
        )
        if values
        else ""
    )
    same = cells is base
    return [shown([pick(c) for c in cells.values()]), "" if same else shown(both, "+")]


if __name__ == "__main__":
    main()
