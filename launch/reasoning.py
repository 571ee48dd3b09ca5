"""Train methods x seeds on a task with a verifier at equal operations, and print who solves it.

    python launch/reasoning.py --folder=runs/countdown [--config=configs/countdown.py] \
        [--methods=ar,mdlm,lddm_m,mgdm,lddm_g] [--seeds=0,1,2] [--calls=4,8,16,32] \
        [--problems=500] [--task=game24] [--lrs=2.5e-3,5e-3 [--tuning_seed=7]]
        [-- --config.training.num_steps=...]

Each cell is an ordinary `train` run in FOLDER/METHOD-SEED, so that a stopped table resumes. The
first method runs the config's number of updates and every other as many as make the same number of
operations (`plan --what=flops`, all five have the same network). Success is the share of held-out
problems whose solution passes `strict`; its error is that of the mean over seeds. With `--lrs` each
method gets the learning rate whose run of the tuning seed, at the same operations, solves most of
as many other held-out problems (last decoder, most calls): give it a seed that is not in the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
from pathlib import Path

from cells import command, mean_and_error, train

from ldd_jax.core import registry
from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.inference import json_lines, loading
from ldd_jax.inference.solve import Solver
from ldd_jax.samplers import Latent

METHODS = "ar,mdlm,lddm_m,mgdm,lddm_g"
DECODERS = "ancestral,easy_first"


def operations(config: str, method: str, overrides: list[str]) -> dict:
    """Operations of an update, and parameters."""
    flags = command("plan", f"--config={config}:method={method}", "--what=flops", "--json",
                    "--vocabulary=20", *overrides)  # fmt: skip
    done = subprocess.run(flags, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def success(
    workdir: Path, calls: list[int], decoders: list[str], problems: slice, task: str
) -> list[dict]:
    """Share of these held-out problems solved, by decoder, latent and network calls."""
    found = workdir / f"success{task and '-'}{task}.jsonl"
    if found.exists():
        return [json.loads(line) for line in found.read_text().splitlines()]
    experiment, params, _ = loading.load_trained(workdir)
    data = registry.build("data", experiment.config.data)
    asked = registry.parse("task", task) if task else data.task
    held_out = [p for p, _ in asked.problems("validation", problems.stop, data.seed)][problems]
    if not held_out:
        raise SystemExit(f"no held-out problems behind the first {problems.start}: --problems")
    timeless = experiment.process.schedule is None
    steps = [experiment.step] if timeless else [registry.parse("step", d) for d in decoders]
    latents = {"on": Latent(), "off": Latent(reset_every=1)}
    records = []
    for step in steps:
        for name, latent in latents.items() if experiment.model.latent else [("none", Latent())]:
            sampling = dataclasses.replace(
                experiment.sampling, step=step, latent=latent, batch_size=len(held_out)
            )
            solver = dataclasses.replace(Solver.make(experiment, sampling), task=asked)
            for n in [1] if timeless else calls:
                # Without a mask the last call removes the noise.
                count = n if timeless or experiment.process.absorbing else n - 1
                answers = list(solver.answers(params, held_out, seed=0, num_steps=count))
                share = lambda verdicts: sum(verdicts) / len(held_out)
                records.append({
                    "decoder": step.registered[1],
                    "latent": name,
                    "calls": max(a.calls for a in answers),
                    "problems": len(held_out),
                    "strict": share(a.strict for a in answers),
                    "legacy": share(a.legacy for a in answers),
                })  # fmt: skip
    json_lines.write(str(found), records)
    return records


def tuned(
    chosen: argparse.Namespace, method: str, updates: int, calls: list[int], decoders: list[str]
) -> str:
    """The learning rate that solves most problems which the table does not ask."""
    found = {}
    for rate in chosen.lrs.split(","):
        workdir = chosen.folder / "tuning" / f"{method}-{rate}"
        flags = [*chosen.overrides, f"--config.training.num_steps={updates}"]
        flags += [f"--config.optim.lr={rate}"]
        train(workdir, chosen.config, method, chosen.tuning_seed, flags)
        others = slice(chosen.problems, 2 * chosen.problems)
        made = success(workdir, calls[-1:], decoders[-1:], others, chosen.task)
        found[rate] = made[0]["strict"]
    best = max(found, key=found.__getitem__)
    shown = ", ".join(f"{rate}: {share:.3f}" for rate, share in found.items())
    print(f"{method}: learning rate {best} ({shown})", flush=True)
    return best


def percent(values: list[float]) -> str:
    """In percent."""
    mean, error = mean_and_error(values)
    return f"{100 * mean:.1f} +- {100 * error:.1f}"


def table(cells: dict[str, list[list[dict]]], verdict: str) -> str:
    """Markdown: a line for method, decoder and latent; a column for each number of calls."""
    columns = sorted({r["calls"] for runs in cells.values() for run in runs for r in run})
    lines = ["| method | decoder | latent | " + " | ".join(map(str, columns)) + " |"]
    lines.append("|---" * (3 + len(columns)) + "|")
    for method, runs in cells.items():
        for decoder, latent in dict.fromkeys((r["decoder"], r["latent"]) for r in runs[0]):
            of = lambda run, n, key=(decoder, latent): [
                r[verdict] for r in run if (r["decoder"], r["latent"]) == key and r["calls"] == n
            ]
            shares = [[v for run in runs for v in of(run, n)] for n in columns]
            shown = " | ".join(percent(s) if s else "" for s in shares)
            lines.append(f"| {method} | {decoder} | {latent} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Fill and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--config", default="configs/countdown.py")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--calls", default="4,8,16,32")
    parser.add_argument("--decoders", default=DECODERS)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--task", default="", help="ask these problems, such as game24")
    parser.add_argument("--lrs", default="", help="rates to choose from; '' = the config's")
    parser.add_argument("--tuning_seed", default="7")
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    keep_freed_memory()
    methods, calls = chosen.methods.split(","), [int(n) for n in chosen.calls.split(",")]
    decoders, asked = chosen.decoders.split(","), slice(chosen.problems)
    cost = {m: operations(chosen.config, m, chosen.overrides) for m in methods}
    budget = cost[methods[0]]["step"] * cost[methods[0]]["updates"]
    updates = {m: round(budget / cost[m]["step"]) for m in methods}
    rates = {
        m: tuned(chosen, m, updates[m], calls, decoders) for m in (methods if chosen.lrs else [])
    }
    cells: dict[str, list[list[dict]]] = {m: [] for m in methods}
    for seed in chosen.seeds.split(","):
        for method in methods:
            flags = [*chosen.overrides, f"--config.training.num_steps={updates[method]}"]
            flags += [f"--config.optim.lr={rates[method]}"] if rates else []
            workdir = chosen.folder / f"{method}-{seed}"
            train(workdir, chosen.config, method, seed, flags)
            found = success(workdir, calls, decoders, asked, chosen.task)
            cells[method].append(found)
            best = max(found, key=lambda r: r["strict"])
            print(
                f"{method} seed {seed}: {best['strict']:.3f} at {best['calls']} calls", flush=True
            )
    for method in methods:
        record = cost[method]
        print(f"{method}: {record['parameters']:,} parameters, {record['step']:.4g} operations an "
              f"update, {updates[method]} updates")  # fmt: skip
    for verdict in ("strict", "legacy"):
        print(f"\n{verdict}, % of {found[0]['problems']} held-out problems\n")
        print(table(cells, verdict))


if __name__ == "__main__":
    main()
