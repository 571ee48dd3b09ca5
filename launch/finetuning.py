"""Go on from trained MDLM runs, with loopholing added or not, on the same text and on another.

    python launch/finetuning.py --base=runs/table --folder=runs/finetuning [--seeds=0,1,2] \
        [--text="docs/*.md"] [--split=paragraph] [--output=docs/finetuning.png] [-- OVERRIDES]

BASE/mdlm-SEED are finished runs, as `launch/table.py` leaves them. Each cell is an ordinary `train`
run of configs/finetune.py in FOLDER/TEXT_METHOD-SEED; a stopped series resumes. Prints the bounds
before and after with errors over seeds, and plots the validation bound by update.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from cells import command, finished, logged, mean_and_error, save_bounds

METHODS = {"mdlm": "", "lddm": ",method=lddm_m"}
LABELS = {"mdlm": "without a latent", "lddm": "loopholing added"}
KEY = "validation/nelbo_nats_per_token"


def cell(folder: Path, base: Path, text: str, method: str, seed: str, flags: list[str]) -> Path:
    """The workdir of a run that is made unless it has come to its end."""
    workdir = folder / f"{text}_{method}-{seed}"
    if not finished(workdir):
        argv = command("train", f"--config=configs/finetune.py:from={base}{METHODS[method]}",
                       f"--config.seed={seed}", f"--workdir={workdir}", *flags)  # fmt: skip
        logged(workdir, argv)
    return workdir


def before(folder: Path, base: Path, text: str, seed: str, flags: list[str]) -> float:
    """Bound of the run that the others begin with, on the same text, evaluated once."""
    found = folder / f"{text}_base-{seed}.jsonl"
    if not found.is_file():
        logged(folder / f"{text}_base-{seed}",
               command("evaluate", f"--workdir={base}", f"--output={found}", *flags))  # fmt: skip
    return json.loads(found.read_text().splitlines()[-1])["nelbo_nats_per_token"]


def curve(workdir: Path) -> dict[int, float]:
    """Validation bound by update."""
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {r["step"]: r[KEY] for r in records if KEY in r}


def plot(curves: dict[str, dict[str, list[dict[int, float]]]], path: Path) -> None:
    """A panel for each text, a line for each method, bars of one standard error over seeds."""
    figure, panels = plt.subplots(1, len(curves), figsize=(10, 3.8), dpi=110)
    for axes, (title, methods) in zip(panels, curves.items()):
        for method, runs in methods.items():
            steps = sorted(set.intersection(*(set(r) for r in runs)))
            at = [mean_and_error([r[s] for r in runs]) for s in steps]
            axes.errorbar(steps, [m for m, _ in at], yerr=[e for _, e in at], fmt="o-", capsize=3,
                          label=LABELS[method])  # fmt: skip
        axes.set(title=title, xlabel="updates after the first run")
    save_bounds(figure, path)
    plt.close(figure)


def main() -> None:
    """Fill, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--text", default="docs/*.md")
    parser.add_argument("--split", default="paragraph")
    parser.add_argument("--output", type=Path, default=Path("docs/finetuning.png"))
    parser.add_argument("overrides", nargs="*", default=["--config.optim.lr=1e-3"])
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    own = [f"--config.data.path={chosen.text}", f"--config.data.split={chosen.split}"]
    asked = {
        "same": ([], []),
        "docs": (own, [f"--data={chosen.text}", f"--data_split={chosen.split}"]),
    }
    titles = {"same": "the text of the first run", "docs": chosen.text}
    curves: dict[str, dict[str, list[dict[int, float]]]] = {}
    print("| text | first run | " + " | ".join(LABELS.values()) + " | difference |")
    print("|---" * 5 + "|")
    for text, (flags, data) in asked.items():
        ends: dict[str, list[float]] = {m: [] for m in METHODS}
        first = []
        for seed in chosen.seeds.split(","):
            base = chosen.base / f"mdlm-{seed}"
            first.append(before(chosen.folder, base, text, seed, data))
            for method in METHODS:
                at = cell(chosen.folder, base, text, method, seed, [*flags, *chosen.overrides])
                found = curve(at)
                curves.setdefault(titles[text], {}).setdefault(method, []).append(found)
                ends[method].append(found[max(found)])
        gains = [b - a for a, b in zip(*ends.values())]
        columns = [first, *ends.values(), gains]
        shown = [f"{m:.4f} +- {e:.4f}" for m, e in map(mean_and_error, columns)]
        print(f"| {titles[text]} | " + " | ".join(shown) + " |", flush=True)
    plot(curves, chosen.output)
    print(f"\nwritten to {chosen.output}")


if __name__ == "__main__":
    main()
