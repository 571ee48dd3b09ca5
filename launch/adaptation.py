"""An autoregressive model becomes masked diffusion, in five ways at equal operations.

    python launch/adaptation.py --folder=runs/adaptation [--seeds=0,1,2] [--first=3000] \
        [--updates=1000] [--lr=5e-3] [--cells=scratch,annealed,...] [--only_found]

FOLDER/ar-SEED is a llama that is trained from left to right (configs/quickstart.py:method=ar,
network=llama). From it, each an ordinary run in FOLDER/NAME-SEED:

    scratch   masked diffusion of the same network with parameters of its own
    annealed  adapted, the causal mask opened over half of the updates
    open      adapted, the mask open from the start
    latent    adapted and annealed with loopholing
    more      `annealed`, gone on with as it is
    added     `annealed`, gone on with and loopholing added
    half      the same with a first pass in half of the updates
    masked    the same with the latent at masked positions alone
    soft      the same with an embedding of the three likeliest tokens in the place of the latent
    rollout   the same with latents of trajectories that go on between updates, at the price of none

Updates with a latent are fewer, so that all cells that are compared take the same operations, by
the count of `plan --what=flops`: the first four those of UPDATES plain updates, the others as many
again. A stopped series resumes.
Each cell's bound, samples and judged samples go into FOLDER/NAME-SEED.json; the judge is the
autoregressive run of the next seed, which no cell of this seed begins with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cells as series
from cells import command, finished, judged, logged, mean_and_error, paired

from ldd_jax.core import writing
from ldd_jax.data import load_tokenizer

SAMPLES, STEPS = 64, 64
Cell = tuple[str, str, dict[str, Any]]  # config, its argument, fields that are set
CELLS = ("scratch", "annealed", "open", "latent", "more", "added", "half", "masked", "soft",
         "rollout")  # fmt: skip


# What is compared by seed.
PAIRS = [(n, "scratch") for n in CELLS[1:4]] + [(n, "annealed") for n in CELLS[2:4]]
PAIRS += [(n, "more") for n in CELLS[5:]]


def cell_of(name: str, folder: Path, seed: str, lr: float) -> Cell:
    """What a cell's run is told."""
    ar, base = folder / f"ar-{seed}", folder / f"annealed-{seed}"
    begun = {"optim.lr": lr}
    adapted = lambda method, **more: ("adapt", f"from={ar},method={method}", begun | more)
    tuned = lambda method="", **more: ("finetune", f"from={base}{method}", begun | more)
    start = {"model.shift": "start", "optim.warmup_steps": 100}
    return {
        "scratch": lambda: ("quickstart", "method=mdlm,network=llama", start),
        "annealed": lambda: adapted("mdlm"),
        "open": lambda: adapted("mdlm", **{"objective.anneal_steps": 0}),
        "latent": lambda: adapted("lddm_m"),
        "more": lambda: tuned(),
        "added": lambda: tuned(",method=lddm_m"),
        "half": lambda: tuned(",method=lddm_m", **{"objective.context.p": 0.5}),
        "masked": lambda: tuned(",method=lddm_m", **{"model.carry_at": "masked"}),
        "soft": lambda: tuned(",method=soft_masking"),
        "rollout": lambda: tuned(",method=lddm_rollout"),
    }[name]()


def price(what: Cell, plain: Cell, tokenizer: Any) -> float:
    """Operations of an update by those of a plain one."""
    each = (
        series.operations(series.config_of(c[0], c[1], **c[2]), tokenizer) for c in (what, plain)
    )
    return next(each) / next(each)


def trained(workdir: Path, config: str, argument: str, seed: str, flags: list[str]) -> dict:
    """The summary of a run that is made or continued unless it has come to its end."""
    if not finished(workdir):
        logged(workdir, command("train", f"--config=configs/{config}.py:{argument}",
                                f"--config.seed={seed}", f"--workdir={workdir}",
                                "--config.training.eval_every=0",
                                "--config.training.sample_every=0", *flags))  # fmt: skip
    return json.loads((workdir / "summary.json").read_text())


def cell(folder: Path, name: str, seed: str, chosen: Any) -> dict:
    """One cell's record, made unless it is there."""
    path = folder / f"{name}-{seed}.json"
    if path.is_file():
        return json.loads(path.read_text())
    what = cell_of(name, folder, seed, chosen.lr)
    tokenizer = load_tokenizer(folder / f"ar-{seed}" / "tokenizer")
    cost = price(what, cell_of("open", folder, seed, chosen.lr), tokenizer)
    updates = round(chosen.updates / cost)
    own = {"training.num_steps": updates}
    if name in ("annealed", "latent"):
        own["objective.anneal_steps"] = updates // 2
    flags = [f"--config.{n}={value}" for n, value in (what[2] | own).items()]
    workdir = folder / f"{name}-{seed}"
    summary = trained(workdir, *what[:2], seed, [*flags, *chosen.overrides])
    record = {
        "cell": name,
        "seed": int(seed),
        "updates": updates,
        "operations": updates * cost,
        **{k: v for k, v in summary.items() if k.startswith(("nelbo", "parameters", "passes"))},
        "judge": judged(workdir, folder / f"ar-{int(seed) + 1}", SAMPLES, STEPS),
    }
    writing.write(path, json.dumps(record, indent=1) + "\n")
    return record


def row(name: str, found: list[dict]) -> str:
    """A line of the table: bound, the judge's nats and the entropy, means over seeds."""
    shown = []
    for get in (lambda r: r["nelbo_nats_per_token"], lambda r: r["judge"]["nats"],
                lambda r: r["judge"]["entropy"]):  # fmt: skip
        mean, error = mean_and_error([get(r) for r in found])
        shown.append(f"{mean:.4f} +- {error:.4f}" if len(found) > 1 else f"{mean:.4f} (one seed)")
    return f"| {name} | {found[0]['updates']} | " + " | ".join(shown) + " |"


def main() -> None:
    """Fill and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--first", type=int, default=3000, help="updates of the first model")
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=5e-3, help="of all cells but scratch")
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--only_found", action="store_true", help="train nothing")
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    seeds, names = chosen.seeds.split(","), chosen.cells.split(",")
    if wrong := [n for n in names if n not in CELLS]:
        parser.error(f"no cell {wrong[0]}; there are {', '.join(CELLS)}")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    first = [f"--config.training.num_steps={chosen.first}", *chosen.overrides]
    if not chosen.only_found:
        for seed in {*seeds, *(str(int(s) + 1) for s in seeds)}:
            trained(
                chosen.folder / f"ar-{seed}", "quickstart", "method=ar,network=llama", seed, first
            )
    found: dict[str, list[dict]] = {}
    for seed in seeds:
        for name in names:
            if chosen.only_found and not (chosen.folder / f"{name}-{seed}.json").is_file():
                continue
            record = cell(chosen.folder, name, seed, chosen)
            found.setdefault(name, []).append(record)
            print(f"{name}-{seed}: {record['nelbo_nats_per_token']:.4f} nats", flush=True)
    print(
        "\n| cell | updates | bound, nats a character | judge's nats | entropy |\n"
        + "|---" * 5
        + "|"
    )
    for name, records in found.items():
        print(row(name, records))
    read = {
        "bound": lambda r: r["nelbo_nats_per_token"],
        "judge": lambda r: r["judge"]["nats"],
        "entropy": lambda r: r["judge"]["entropy"],
    }
    print("\nBy seed, nats:")
    for name, base in PAIRS:
        if {name, base} <= found.keys() and len(found[name]) == len(found[base]) > 1:
            for what, of in read.items():
                both = [list(map(of, found[n])) for n in (name, base)]
                print(what, paired(name, both[0], base, both[1]))


if __name__ == "__main__":
    main()
