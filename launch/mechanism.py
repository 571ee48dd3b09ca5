"""Watch trained runs with and without a latent while they sample, and plot what differs by step.

    python launch/mechanism.py --folder=runs/table [--seeds=0,1,2] [--steps=64] \
        [--num_samples=256] [--every=4] [--output=docs/mechanism.png]

FOLDER/NAME-SEED are finished runs, as `launch/table.py` leaves them; the methods without a run are
left out aloud. Each is watched once by the `mechanism` command, into a file beside its checkpoints.
Means over seeds; errors and bands are standard errors of those means, differences paired by seed.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from cells import command, finished, logged, mean_and_error, save

# process -> what is drawn: (method, h = 0 every so many steps), the base first
LINES = {
    "masked": {"MDLM": ("mdlm", 0), "LDDM-M": ("lddm_m", 0), "LDDM-M, h = 0": ("lddm_m", 1)},
    "uniform": {"UDLM": ("udlm", 0), "LDDM-U": ("lddm_u", 0), "LDDM-U, h = 0": ("lddm_u", 1)},
}
CURVES = {"entropy": "entropy of the prediction, nats", "temporal": "temporal KL, nats"}
THIRDS = ("early", "middle", "late")
Record = dict[str, dict[str, list[float | None]]]


def watched(workdir: Path, resets: str, chosen: argparse.Namespace) -> dict[int, Record]:
    """Records of a run by reset, made once for these settings."""
    name = f"mechanism-{chosen.steps}-{chosen.num_samples}-{chosen.every}.jsonl"
    path = workdir / name
    if not path.is_file():
        logged(workdir, command("mechanism", f"--workdir={workdir}", f"--steps={chosen.steps}",
                                f"--num_samples={chosen.num_samples}", f"--every={chosen.every}",
                                f"--resets={resets}", f"--output={path}"))  # fmt: skip
    return {r["reset_every"]: r for r in map(json.loads, path.read_text().splitlines())}


def gathered(chosen: argparse.Namespace) -> dict[str, dict[str, dict[str, Record]]]:
    """Records by process, line and seed."""
    out: dict[str, dict[str, dict[str, Record]]] = {}
    for process, lines in LINES.items():
        for label, (method, reset) in lines.items():
            for seed in chosen.seeds.split(","):
                workdir = chosen.folder / f"{method}-{seed}"
                if not finished(workdir):
                    print(f"left out: {workdir} has not come to its end")
                    continue
                resets = ",".join(str(r) for m, r in lines.values() if m == method)
                records = watched(workdir, resets, chosen)
                out.setdefault(process, {}).setdefault(label, {})[seed] = records[reset]
    return out


def third(record: Record, curve: str, part: int) -> float:
    """Mean of a curve over a third of the steps, those without a value left out."""
    values = record["curves"][curve]
    size = -(-len(values) // len(THIRDS))
    known = [v for v in values[part * size : (part + 1) * size] if v is not None]
    return sum(known) / len(known) if known else math.nan


def table(found: dict[str, dict[str, dict[str, Record]]]) -> str:
    """Markdown: thirds of every curve, and what they differ from the base by."""
    lines = ["| curve | | " + " | ".join(THIRDS) + " |", "|---" * 5 + "|"]
    for curve in CURVES:
        for labels in found.values():
            base = next(iter(labels.values()))
            for label, seeds in labels.items():
                cells = []
                for part in range(len(THIRDS)):
                    own = {s: third(r, curve, part) for s, r in seeds.items()}
                    cells.append("{:.4f} +- {:.4f}".format(*mean_and_error(list(own.values()))))
                    paired = [own[s] - third(base[s], curve, part) for s in own if s in base]
                    if seeds is not base and paired:
                        cells[-1] += " ({:+.4f} +- {:.4f})".format(*mean_and_error(paired))
                lines.append(f"| {curve} | {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(found: dict[str, dict[str, dict[str, Record]]], path: Path) -> None:
    """A row for each process, a panel for each curve, a band of one standard error."""
    size = dict(figsize=(11, 3.6 * len(found)), dpi=110, squeeze=False)
    figure, grid = plt.subplots(len(found), len(CURVES), **size)
    for row, (process, labels) in zip(grid, found.items()):
        for axes, (curve, name) in zip(row, CURVES.items()):
            for label, seeds in labels.items():
                runs = [r["curves"][curve] for r in seeds.values()]
                at = [(i, v) for i, v in enumerate(zip(*runs)) if None not in v]
                mean, error = zip(*(mean_and_error(v) for _, v in at))
                steps = [i for i, _ in at]
                (line,) = axes.plot(
                    steps,
                    mean,
                    label=label,
                    lw=1.4,
                    marker="." if len(steps) < len(runs[0]) else "",
                )
                low, high = ([m + k * e for m, e in zip(mean, error)] for k in (-1, 1))
                axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2)
            axes.set(title=f"{process}: {name}", xlabel="step")
            axes.grid(alpha=0.3)
        row[0].legend()
    save(figure, path)
    plt.close(figure)


def main() -> None:
    """Watch, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--num_samples", type=int, default=256)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("docs/mechanism.png"))
    chosen = parser.parse_args()
    found = gathered(chosen)
    if not found:
        raise SystemExit(f"{chosen.folder} holds no finished run; there is nothing to watch")
    print(table(found))
    plot(found, chosen.output)
    print(f"\nwritten to {chosen.output}")


if __name__ == "__main__":
    main()
