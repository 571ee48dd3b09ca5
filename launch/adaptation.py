"""An autoregressive model becomes masked diffusion, in five ways at equal operations.

    python launch/adaptation.py --folder=runs/adaptation [--seeds=0,1,2] [--first=3000] \
        [--updates=1000] [--only_found]

FOLDER/ar-SEED is a llama that is trained from left to right (configs/quickstart.py:method=ar,
network=llama). From it, each an ordinary run in FOLDER/NAME-SEED:

    scratch   masked diffusion of the same network with parameters of its own
    annealed  adapted, the causal mask opened over half of the updates
    open      adapted, the mask open from the start
    latent    adapted and annealed with loopholing
    more      `annealed`, gone on with as it is
    added     `annealed`, gone on with and loopholing added

Updates with a latent are fewer, so that all cells that are compared take the same operations: the
first four those of UPDATES plain updates, the last two as many again. A stopped series resumes.
Each cell's bound, samples and judged samples go into FOLDER/NAME-SEED.json; the judge is the
autoregressive run of the next seed, which no cell of this seed begins with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cells import command, finished, logged, mean_and_error

from ldd_jax.config import experiment as experiments
from ldd_jax.core import writing
from ldd_jax.denoisers import Llama

PASS_ONE = 0.9  # p of the latent: so many forward passes more in an update
SAMPLES, STEPS = 64, 64
Cell = tuple[str, str, list[str], float]


def cells(folder: Path, seed: str) -> dict[str, Cell]:
    """Name -> config, its argument, flags, and the operations of an update in plain ones."""
    ar, base = folder / f"ar-{seed}", folder / f"annealed-{seed}"
    lr = ["--config.optim.lr=1e-3"]
    adapted = lambda method: f"from={ar},method={method}"
    return {
        "scratch": ("quickstart", "method=mdlm,network=llama",
                    ["--config.model.shift=start", "--config.optim.warmup_steps=100"], 1.0),
        "annealed": ("adapt", adapted("mdlm"), lr, 1.0),
        "open": ("adapt", adapted("mdlm"), [*lr, "--config.objective.anneal_steps=0"], 1.0),
        "latent": ("adapt", adapted("lddm_m"), lr, 0.0),
        "more": ("finetune", f"from={base}", lr, 1.0),
        "added": ("finetune", f"from={base},method=lddm_m", lr, 0.0),
    }  # fmt: skip


def price(workdir: Path) -> float:
    """Operations of an update with a latent by those of one without: (3 (T + H) + p T) / same."""
    experiment = experiments.restore(workdir)
    model: Any = experiment.model
    assert isinstance(model, Llama)
    found = model.operations(experiment.config.data.length)
    plain = 3 * (found["trunk"] + found["head"])
    return (plain + PASS_ONE * found["trunk"]) / plain


def trained(workdir: Path, config: str, argument: str, seed: str, flags: list[str]) -> dict:
    """The summary of a run that is made or continued unless it has come to its end."""
    if not finished(workdir):
        logged(workdir, command("train", f"--config=configs/{config}.py:{argument}",
                                f"--config.seed={seed}", f"--workdir={workdir}",
                                "--config.training.eval_every=0",
                                "--config.training.sample_every=0", *flags))  # fmt: skip
    return json.loads((workdir / "summary.json").read_text())


def judged(workdir: Path, judge: Path) -> dict:
    """Nats under the judge and entropy of the run's samples."""
    samples, output = workdir / "judged.jsonl", workdir / "judged.json"
    if not output.is_file():
        logged(workdir, command("sample", f"--workdir={workdir}", f"--num_samples={SAMPLES}",
                                f"--steps={STEPS}", f"--output={samples}"))  # fmt: skip
        logged(workdir, command("gen-ppl", str(samples), f"--judge={judge}",
                                f"--output={output}"))  # fmt: skip
    return json.loads(output.read_text().splitlines()[-1])


def cell(folder: Path, name: str, what: Cell, seed: str, judge: Path, chosen: Any) -> dict:
    """One cell's record, made unless it is there."""
    path = folder / f"{name}-{seed}.json"
    if path.is_file():
        return json.loads(path.read_text())
    workdir, (config, argument, flags, cost) = folder / f"{name}-{seed}", what
    cost = cost or price(folder / f"ar-{seed}")
    updates = round(chosen.updates / cost)
    own = [f"--config.training.num_steps={updates}"]
    if name in ("annealed", "latent"):
        own.append(f"--config.objective.anneal_steps={updates // 2}")
    summary = trained(workdir, config, argument, seed, [*own, *flags, *chosen.overrides])
    record = {
        "cell": name,
        "seed": int(seed),
        "updates": updates,
        "operations": updates * cost,
        **{k: v for k, v in summary.items() if k.startswith(("nelbo", "parameters", "passes"))},
        "judge": judged(workdir, judge),
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
    parser.add_argument("--only_found", action="store_true", help="train nothing")
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    seeds = chosen.seeds.split(",")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    first = [f"--config.training.num_steps={chosen.first}", *chosen.overrides]
    if not chosen.only_found:
        for seed in {*seeds, *(str(int(s) + 1) for s in seeds)}:
            trained(
                chosen.folder / f"ar-{seed}", "quickstart", "method=ar,network=llama", seed, first
            )
    found: dict[str, list[dict]] = {}
    for seed in seeds:
        judge = chosen.folder / f"ar-{int(seed) + 1}"
        for name, what in cells(chosen.folder, seed).items():
            if chosen.only_found and not (chosen.folder / f"{name}-{seed}.json").is_file():
                continue
            record = cell(chosen.folder, name, what, seed, judge, chosen)
            found.setdefault(name, []).append(record)
            print(f"{name}-{seed}: {record['nelbo_nats_per_token']:.4f} nats", flush=True)
    print(
        "\n| cell | updates | bound, nats a character | judge's nats | entropy |\n"
        + "|---" * 5
        + "|"
    )
    for name, records in found.items():
        print(row(name, records))


if __name__ == "__main__":
    main()
