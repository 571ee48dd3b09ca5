"""Learn time grids for trained masked runs, and compare them with the linear and the cosine grid.

    python launch/distillation.py --folder=runs/table --output=runs/grids [--methods=mdlm,lddm_m] \
        [--seeds=0,1,2] [--steps=8,16] [--num_samples=1024] [--texts=256] [--judge=ngram]

FOLDER/METHOD-SEED are finished runs, as `launch/table.py` leaves them. Each is distilled for every
number of steps, with the latent carried and off where it has one, and its samples along all grids
are judged by a bench. What is there already is not made again. Path bounds on validation rows;
judge and entropy of sampled texts, differences to the better of linear and cosine by path bound,
means over seeds and standard errors of those means.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cells import command, finished, logged, mean_and_error

GRIDS = ("linear", "cosine", "counts", "learned")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", default="mdlm,lddm_m")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", default="8,16")
    parser.add_argument("--num_samples", default="1024", help="rows that losses and bounds are of")
    parser.add_argument("--texts", default="256", help="samples that are judged")
    parser.add_argument("--judge", default="ngram")
    return parser.parse_args()


def latents(workdir: Path) -> tuple[str, ...]:
    """Ways of the latent that make a difference to a run."""
    model = json.loads((workdir / "config.json").read_text())["model"]
    return ("carry", "off") if model.get("latent") else ("none",)


def distilled(workdir: Path, latent: str, steps: str, chosen: argparse.Namespace) -> Path:
    """The grid's file, made once."""
    path = chosen.output / f"{workdir.name}-{latent}-{steps}.json"
    if not path.is_file():
        off = [f"--latent={latent}"] if latent == "off" else []
        argv = command("distill", f"--workdir={workdir}", f"--steps={steps}", f"--output={path}",
                       f"--num_samples={chosen.num_samples}", *off)  # fmt: skip
        logged(path.with_suffix(""), argv)
    return path


def judged(
    workdir: Path, latent: str, files: dict[str, Path], chosen: argparse.Namespace
) -> dict[tuple[str, int], dict[str, Any]]:
    """Cells of samples by grid and steps; a learned grid with its own number of steps only."""
    folder = chosen.output / f"bench-{workdir.name}-{latent}"
    grids = {"linear": "linear", "cosine": "cosine"} | {s: str(p) for s, p in files.items()}
    samplers = ",".join(f"ancestral:grid={text}" for text in grids.values())
    latent = "carry" if latent == "none" else latent
    argv = command("bench", f"--workdir={workdir}", f"--samplers={samplers}",
                   f"--steps={chosen.steps}", f"--latents={latent}", f"--judge={chosen.judge}",
                   f"--num_samples={chosen.texts}", f"--output={folder}")  # fmt: skip
    logged(folder, argv)
    cells = [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]
    out = {}
    for cell in cells:
        name = cell["sampler"].partition("grid=")[2]
        for steps in map(int, files):
            own = files[str(steps)].stem
            if cell["steps"] == steps and name in ("linear", "cosine"):
                out[name, steps] = cell
            elif cell["steps"] == steps and name.startswith(f"{own}-"):
                out["learned", steps] = cell
    return out


def told(values: list[float], digits: int, sign: str = "") -> str:
    """Mean +- error."""
    mean, error = mean_and_error(values)
    return f"{mean:{sign}.{digits}f} +- {error:.{digits}f}"


def lines(name: str, steps: int, bounds: list[dict], cells: list[dict]) -> list[str]:
    """Markdown rows of all grids for one model, latent and number of steps, over its seeds."""
    out = []
    for grid in GRIDS:
        own = [b[grid] for b in bounds]
        base = ["cosine" if b["linear"]["above"] else "linear" for b in bounds]
        apart = ", ".join(f"{b['above']:+.4f} ({b['above_se']:.4f})" for b in own)
        row = [name, str(steps), grid, told([b["nats"] for b in own], 4)]
        row.append(f"{told([b['above'] for b in own], 4, '+')}: {apart}")
        have = all((grid, steps) in c for c in cells)
        for field in ("judge_nats", "entropy") if have else ():
            value = [c[grid, steps][field] for c in cells]
            less = [v - c[b, steps][field] for v, c, b in zip(value, cells, base)]
            row.append(f"{told(value, 3)} ({told(less, 3, '+')})")
        out.append("| " + " | ".join(row + ["", ""] * (not have)) + " |")
    return out


def main() -> None:
    """Learn, judge and print."""
    chosen = arguments()
    chosen.output.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, str], list[tuple[dict, dict]]] = {}
    for method in chosen.methods.split(","):
        for seed in chosen.seeds.split(","):
            workdir = chosen.folder / f"{method}-{seed}"
            if not finished(workdir):
                print(f"left out: {workdir} has not come to its end")
                continue
            for latent in latents(workdir):
                files = {s: distilled(workdir, latent, s, chosen) for s in chosen.steps.split(",")}
                read = {s: json.loads(p.read_text())["bounds"] for s, p in files.items()}
                bounds = {int(s): {b["name"]: b for b in bs} for s, bs in read.items()}
                cells = judged(workdir, latent, files, chosen)
                found.setdefault((method, latent), []).append((bounds, cells))
                print(f"{workdir.name}, latent {latent}: done", flush=True)
    if not found:
        raise SystemExit(f"{chosen.folder} holds no finished run; there is nothing to distill")
    print(
        "\n| model, latent | steps | grid | path bound, nats/token | to the better of linear and "
        "cosine: each seed (paired s.e.) | judge, nats/token (to it) | entropy (to it) |\n"
        + "|---" * 7
        + "|"
    )
    for (method, latent), runs in found.items():
        for steps in map(int, chosen.steps.split(",")):
            of_steps = [b[steps] for b, _ in runs], [c for _, c in runs]
            print(*lines(f"{method}, {latent}", steps, *of_steps), sep="\n")


if __name__ == "__main__":
    main()
