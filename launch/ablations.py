"""Train the ablations of loopholing x seeds, print their table and plot them.

    python launch/ablations.py --folder=runs/table [--seeds=0,1,2] [--only_found] \
        [--output=docs/ablations.png] [-- --config.training.num_steps=...]

How often the latent is trained (p), how wide it is, and how many passes make it, with and without
gradient. Each cell is an ordinary `train` run in FOLDER/NAME-SEED, the base in FOLDER/lddm_m-SEED
as `launch/table.py` leaves it; a stopped run resumes. A finished cell is evaluated with 1, 2 and 3
passes, once, into its passes.jsonl. Errors are those of the mean over seeds; differences are to
the base with the same passes and seeds. MDLM is drawn where FOLDER/mdlm-SEED is finished.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from cells import command, finished, logged, mean_and_error, save_bounds, train

BASE, PLAIN = "lddm_m", "mdlm"
PASSES = (1, 2, 3)
context = lambda **fields: [f"--config.objective.context.{k}={v}" for k, v in fields.items()]
narrow = lambda width: [f"--config.model.latent_width={width}"]
FLAGS = {
    BASE: [],
    "lddm_m_p0.5": context(p=0.5),
    "lddm_m_p1.0": context(p=1.0),
    **{f"lddm_m_width{k}": narrow(k) for k in (12, 24, 48)},
    "lddm_m_grad": context(gradient=True),
    # The operations of 3,000 updates of the base: 3,000 x 1.292 / 1.875 (`plan --what=flops`).
    "lddm_m_gradshort": [*context(gradient=True), "--config.training.num_steps=2067"],
    "lddm_m_3pass": context(passes=2),
    "lddm_m_3passgrad": context(passes=2, gradient=True),
}
# panel -> cells by what stands on its axis
PANELS = {
    "probability p of a pseudo-context": {
        "0.5": "lddm_m_p0.5", "0.9": BASE, "1": "lddm_m_p1.0",
    },
    "channels of the latent, of 96": {
        "12": "lddm_m_width12", "24": "lddm_m_width24", "48": "lddm_m_width48", "96": BASE,
    },
    "passes before the scored one in training": {
        "1": BASE, "1, gra-\ndient": "lddm_m_grad",
        "1, gra-\ndient,\nsame op-\nerations": "lddm_m_gradshort", "2": "lddm_m_3pass",
        "2, gra-\ndient": "lddm_m_3passgrad",
    },
}  # fmt: skip
Nats = dict[str, dict[str, dict[int, float]]]  # of cell, seed and passes


def evaluated(workdir: Path, passes: tuple[int, ...]) -> dict[int, float]:
    """Validation bound in nats a token by number of passes, evaluated once."""
    found = workdir / "passes.jsonl"
    if not found.is_file():
        asked = ",".join(map(str, passes))
        logged(workdir, command("evaluate", f"--workdir={workdir}", f"--passes={asked}",
                                f"--output={found}"))  # fmt: skip
    records = [json.loads(line) for line in found.read_text().splitlines()]
    return {r["passes"]: r["nelbo_nats_per_token"] for r in records}


def gathered(chosen: argparse.Namespace) -> tuple[Nats, list[str]]:
    """Bounds of the finished cells, and the names of those that are missing."""
    out: Nats = {}
    missing = []
    for seed in chosen.seeds.split(","):
        for name, flags in {PLAIN: [], **FLAGS}.items():
            workdir = chosen.folder / f"{name}-{seed}"
            if not finished(workdir):
                if name == PLAIN or chosen.only_found:
                    missing.append(workdir.name)
                    continue
                train(workdir, chosen.config, BASE, seed, [*flags, *chosen.overrides])
            nats = evaluated(workdir, (1,) if name == PLAIN else PASSES)
            out.setdefault(name, {})[seed] = nats
            shown = ", ".join(f"{v:.4f}" for v in nats.values())
            print(
                f"{workdir.name}: {shown} nats with {', '.join(map(str, nats))} passes", flush=True
            )
    return out, missing


def difference(cell: dict, base: dict, passes: int) -> tuple[float, float, int]:
    """Mean over the seeds that both have of cell less base, its error, and their number."""
    both = [cell[s][passes] - base[s][passes] for s in cell if s in base]
    return (*mean_and_error(both), len(both)) if both else (math.nan, math.nan, 0)


def shown(mean: float, error: float) -> str:
    """Mean +- error; the error of one seed is unknown."""
    return f"{mean:.4f} +- {'?' if math.isnan(error) else f'{error:.4f}'}"


def table(found: Nats) -> str:
    """Markdown: a line for each value of each panel, its bounds and differences by passes."""
    heads = [f"{k} pass{'es' * (k > 1)}{tail}" for k in PASSES for tail in ("", " - base")]
    lines = ["| | | seeds | " + " | ".join(heads) + " |", "|---" * (3 + len(heads)) + "|"]
    for panel, values in PANELS.items():
        for value, name in values.items():
            seeds = found.get(name, {})
            fields = []
            for k in PASSES if seeds else ():
                fields.append(shown(*mean_and_error([s[k] for s in seeds.values()])))
                mean, error, n = difference(seeds, found.get(BASE, {}), k)
                fields.append("" if name == BASE or not n else shown(mean, error))
            fields += [""] * (len(heads) - len(fields))
            label = value.replace("-\n", "").replace("\n", " ")
            lines.append(f"| {panel} | {label} | {len(seeds)} | " + " | ".join(fields) + " |")
    if PLAIN in found:
        plain = shown(*mean_and_error([s[1] for s in found[PLAIN].values()]))
        blank = " | ".join([""] * len(heads))
        lines.append(f"| without a latent ({PLAIN}) |  | {len(found[PLAIN])} | {plain}{blank} |")
    return "\n".join(lines)


def plot(found: Nats, path: Path) -> None:
    """A panel for each ablation, a line for each number of passes, bars of one standard error."""
    figure, panels = plt.subplots(1, len(PANELS), figsize=(12, 4.2), dpi=110, sharey=True)
    for axes, (panel, values) in zip(panels, PANELS.items()):
        numbers = all(v.replace(".", "").isdigit() for v in values)  # a line joins no categories
        for j, k in enumerate(PASSES):
            at = [(i, found[name]) for i, name in enumerate(values.values()) if name in found]
            nats = [mean_and_error([s[k] for s in seeds.values()]) for _, seeds in at]
            axes.errorbar(
                [i + 0.08 * (j - 1) for i, _ in at], [m for m, _ in nats],
                yerr=[0 if math.isnan(e) else e for _, e in nats],
                fmt="o-" if numbers else "o", capsize=3, label=f"{k} pass{'es' * (k > 1)} scored",
            )  # fmt: skip
        if PLAIN in found:
            mean, error = mean_and_error([s[1] for s in found[PLAIN].values()])
            axes.axhline(mean, color="grey", ls="--", lw=1, label="MDLM, +- s.e.")
            axes.axhspan(mean - error, mean + error, color="grey", alpha=0.15)
        axes.set(xlabel=panel, xticks=range(len(values)), xlim=(-0.5, len(values) - 0.5))
        axes.set_xticklabels(values)
    save_bounds(figure, path, fontsize=8)
    plt.close(figure)


def main() -> None:
    """Fill, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only_found", action="store_true", help="train nothing")
    parser.add_argument("--output", type=Path, default=Path("docs/ablations.png"))
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    found, missing = gathered(chosen)
    if missing:
        print(f"missing: {', '.join(missing)}")
    if not set(found) & set(FLAGS):
        raise SystemExit(f"{chosen.folder} holds no finished cell; there is nothing to show")
    print("\n" + table(found))
    plot(found, chosen.output)
    print(f"\nwritten to {chosen.output}")


if __name__ == "__main__":
    main()
