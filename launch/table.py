"""Train methods x seeds one after the other and print the table of docs/results.md.

    python launch/table.py --folder=runs/table [--methods=mdlm,lddm_m] [--seeds=0,1,2] \
        [-- --config.training.num_steps=...]

Each cell is an ordinary `train` run in FOLDER/METHOD-SEED, so that a stopped table resumes.
The error of a method is the standard deviation of its seeds over sqrt(number of seeds).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

METHODS = "mdlm,lddm_m,udlm,lddm_u"


def cell(folder: Path, config: str, method: str, seed: str, overrides: list[str]) -> dict:
    """Summary of one run; trains unless it has been."""
    workdir = folder / f"{method}-{seed}"
    if not (workdir / "summary.json").exists():
        command = [
            sys.executable, "-m", "ldd_jax", "train", f"--config={config}:method={method}",
            f"--config.seed={seed}", f"--workdir={workdir}", *overrides,
        ]  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{method}-{seed}.log").open("a") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log)
    return json.loads((workdir / "summary.json").read_text())


def main() -> None:
    """Fill and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    cells: dict[str, list[dict]] = {m: [] for m in chosen.methods.split(",")}
    for seed in chosen.seeds.split(","):
        for method, found in cells.items():
            found.append(cell(chosen.folder, chosen.config, method, seed, chosen.overrides))
            print(f"{method} seed {seed}: {found[-1]['nelbo_nats_per_token']:.4f}", flush=True)
    print("\n| method | passes | NELBO nats/token, mean over seeds +- s.e. | of each seed +- s.e. "
          "over sequences | below unigram entropy |\n|---|---|---|---|---|")  # fmt: skip
    for method, found in cells.items():
        nats = [r["nelbo_nats_per_token"] for r in found]
        error = statistics.stdev(nats) / math.sqrt(len(nats)) if len(nats) > 1 else float("nan")
        each = ", ".join(f"{r['nelbo_nats_per_token']:.4f} +- {r['nelbo_se']:.4f}" for r in found)
        below = statistics.mean(r["percent_below_unigram"] for r in found)
        print(
            f"| {method} | {found[0]['passes']} | {statistics.mean(nats):.4f} +- {error:.4f} | "
            f"{each} | {below:.1f} % |"
        )


if __name__ == "__main__":
    main()
