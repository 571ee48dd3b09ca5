"""Samplers of lattice targets over methods and seeds, beside the truth or long Gibbs chains.

    python launch/energy.py --output=runs/energy [--methods=mdns,mdns_lv] [--seeds=0,1,2] \
        [--config=configs/ising.py] [--argument=side=4,beta=0.28] [--rollouts=20000] [--gibbs=0] \
        [--flags=...]

Every run is trained (what is there already is not made again) and measured by `energy`. The truth
is exact where `energy` knows it; `--gibbs=SWEEPS` runs 256 independent heat-bath chains besides,
half of them from all spins up and half from all down (colours 0 and 1), whose first fifth is left
out; a figure's error is that of the mean over chains. The table: means over seeds and standard
errors of those means, and by how many standard errors the weighted magnetisation is off.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from cells import command, logged, mean_and_error, train
from ml_collections import ConfigDict

from ldd_jax.core import registry
from ldd_jax.core.writing import write
from ldd_jax.targets import Lattice

CHAINS, BURN_IN = 256, 0.2


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--config", default="configs/ising.py")
    parser.add_argument("--argument", default="side=4", help="of the config, beside the method")
    parser.add_argument("--methods", default="mdns,mdns_lv")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rollouts", default="20000")
    parser.add_argument("--gibbs", type=int, default=0, help="sweeps of every chain; 0: none")
    parser.add_argument("--flags", default="", help="further flags of train, separated by spaces")
    return parser.parse_args()


def gibbs(target: Lattice, sweeps: int, seed: int = 0, chains: int = CHAINS) -> dict[str, Any]:
    """Means of the target's numbers over heat-bath chains, with errors, and R-hat.

    A sweep draws the even sites of the checkerboard given all others, then the odd ones; the side
    must be even. R-hat compares the spread of the chains' means with that of one chain's halves:
    near 1 where chains from either start have met.
    """
    if target.side % 2:
        raise ValueError(f"side {target.side}: the checkerboard needs an even one")
    rng = np.random.default_rng(seed)
    side, states = target.side, np.arange(target.states, dtype=np.int64)
    x = np.zeros((chains, side, side), np.int64)
    x[: chains // 2] = 1
    even = (np.indices((side, side)).sum(0) % 2).astype(bool)
    shape = (chains, side**2)
    skipped, halves = int(BURN_IN * sweeps), []
    total: dict[str, np.ndarray] = {}
    count = 0
    for sweep in range(sweeps):
        for here in (even, ~even):
            near = [np.roll(x, s, a) for s, a in ((1, 1), (-1, 1), (1, 2), (-1, 2))]
            force = np.stack(
                [target.coupling * sum(target.pair(np.full_like(x, c), n) for n in near)
                 + target.field * target.one(np.full_like(x, c)) for c in states], -1
            )  # fmt: skip
            p = np.exp(target.beta * (force - force.max(-1, keepdims=True)))
            edge = np.cumsum(p, -1)
            u = rng.random((chains, side, side, 1)) * edge[..., -1:]
            x = np.where(here, np.minimum((u >= edge).sum(-1), len(states) - 1), x)
        if sweep < skipped:
            continue
        for name, value in numbers(target, x.reshape(shape)).items():
            total[name] = total.get(name, 0.0) + value
        count += 1
        if sweep in (skipped + (sweeps - skipped) // 2, sweeps - 1):
            halves.append((count, {n: v.copy() for n, v in total.items()}))
    found: dict[str, Any] = {"sweeps": sweeps, "chains": chains}
    (first, a), (last, b) = halves
    for name in total:
        means = b[name] / last
        parts = np.stack([a[name] / first, (b[name] - a[name]) / (last - first)])
        within = parts.var(0, ddof=1).mean() / 2
        found[name] = float(means.mean())
        found[f"{name}_se"] = float(means.std(ddof=1) / np.sqrt(chains))
        found[f"{name}_r_hat"] = float(np.sqrt(means.var(ddof=1) / within)) if within else np.nan
    return found


def numbers(target: Lattice, x: np.ndarray) -> dict[str, np.ndarray]:
    """Energy, magnetisation, its size and the two-point function, in numpy."""
    grid = x.reshape(-1, target.side, target.side)
    mean = lambda a: a.mean((1, 2), dtype=np.float64)
    found = {"magnetisation": mean(target.one(grid))}
    for r in target.distances:
        both = [mean(target.pair(grid, np.roll(grid, -r, axis))) for axis in (1, 2)]
        found[f"two_point_{r}"] = (both[0] + both[1]) / 2
    each = 2 * target.coupling * found["two_point_1"] + target.field * found["magnetisation"]
    share = np.stack([(x == c).mean(1) for c in range(target.states)], 1)
    size = (target.states * share.max(1) - 1) / (target.states - 1)
    return found | {"energy": -target.beta * target.sites * each, "abs_magnetisation": size}


def measured(workdir: Path, rollouts: str) -> dict[str, Any]:
    """What `energy` says of a run; made once."""
    path = workdir.with_name(f"{workdir.name}.json")
    if not path.is_file():
        argv = command("energy", f"--workdir={workdir}", f"--output={path}",
                       f"--num_samples={rollouts}")  # fmt: skip
        logged(workdir, argv)
    return json.loads(path.read_text())


def row(method: str, found: list[dict[str, Any]], truth: dict[str, Any]) -> str:
    """A line of the table: means over seeds; how far log Z and magnetisation are off."""
    shown = []
    for name in ("ess", "elbo", "log_z", "path_kl", "magnetisation", "two_point_1"):
        mean, error = mean_and_error([f[name] for f in found])
        shown.append(f"{mean:.4f} +- {error:.4f}")
    off = lambda name: [f[name] - truth[name] for f in found]
    shown.append(" ".join(f"{d:+.4f}" for d in off("log_z")) if "log_z" in truth else "-")
    errors = [np.hypot(f["magnetisation_se"], truth.get("magnetisation_se", 0)) for f in found]
    sigmas = [d / e for d, e in zip(off("magnetisation"), errors)]
    shown.append(" ".join(f"{s:+.1f}" for s in sigmas))
    return " | ".join([method, *shown])


def main() -> None:
    """Train, measure, and write the table."""
    chosen = arguments()
    table: dict[str, list[dict[str, Any]]] = {}
    for seed in chosen.seeds.split(","):
        for method in chosen.methods.split(","):
            workdir = chosen.output / f"{method}-{seed}"
            train(workdir, chosen.config, f"{method},{chosen.argument}", seed, chosen.flags.split())
            table.setdefault(method, []).append(measured(workdir, chosen.rollouts))
    first = next(iter(table.values()))[0]
    truth = {n.removeprefix("exact_"): v for n, v in first.items() if n.startswith("exact_")}
    if chosen.gibbs:
        target = registry.build("target", ConfigDict(first["target"]))
        truth = gibbs(target, chosen.gibbs)
        write(chosen.output / "gibbs.json", json.dumps(truth, indent=2) + "\n")
    head = "method | ESS | ELBO | log Z | path KL | <m> | <s s'> | log Z off | <m> off, s.e."
    lines = [head, *(row(method, found, truth) for method, found in table.items())]
    kept = ("log_z", "magnetisation", "magnetisation_se", "two_point_1", "two_point_1_se")
    lines.append("truth: " + json.dumps({n: truth[n] for n in kept if n in truth}))
    write(chosen.output / "table.txt", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
