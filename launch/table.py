"""Train methods x seeds one after the other and print the table of docs/results.md.

    python launch/table.py --folder=runs/table [--methods=mdlm,lddm_m] [--seeds=0,1,2] \
        [-- --config.training.num_steps=...]

Each cell is an ordinary `train` run in FOLDER/METHOD-SEED, so that a stopped table resumes.
The error of a method is the standard deviation of its seeds over sqrt(number of seeds).
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from cells import mean_and_error, train

METHODS = "mdlm,lddm_m,udlm,lddm_u"


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
            workdir = chosen.folder / f"{method}-{seed}"
            found.append(train(workdir, chosen.config, method, seed, chosen.overrides))
            print(f"{method} seed {seed}: {found[-1]['nelbo_nats_per_token']:.4f}", flush=True)
    print("\n| method | passes | NELBO nats/token, mean over seeds +- s.e. | of each seed +- s.e. "
          "over sequences | below unigram entropy |\n|---|---|---|---|---|")  # fmt: skip
    for method, found in cells.items():
        nats = [r["nelbo_nats_per_token"] for r in found]
        mean, error = mean_and_error(nats)
        each = ", ".join(f"{r['nelbo_nats_per_token']:.4f} +- {r['nelbo_se']:.4f}" for r in found)
        below = statistics.mean(r["percent_below_unigram"] for r in found)
        print(
            f"| {method} | {found[0]['passes']} | {mean:.4f} +- {error:.4f} | "
            f"{each} | {below:.1f} % |"
        )


if __name__ == "__main__":
    main()
