"""Train, evaluate, sample and checkpoint at tiny size for a long time; is anything growing?

    python launch/soak.py --minutes=120 --output=FOLDER [-- --config.training.eval_every=0 ...]

One training process runs with frequent evaluations, samples and checkpoints; from outside, every
few seconds, its memory (RSS), open file descriptors, threads, processor time, step and checkpoints
on disk are read from /proc and the workdir. Throughput is also given per second of processor time,
which other programs on the machine change less. Ends with SIGTERM, fits straight lines, writes
soak.json and soak.png.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
FLAGS = (
    "--config.data.split=line",
    "--config.data.length=32",
    "--config.model.width=32",
    "--config.model.heads=2",
    "--config.model.depth=2",
    "--config.model.cond_width=8",
    "--config.training.num_steps=100000000",
    "--config.training.batch_size=16",
    "--config.training.log_every=50",
    "--config.training.eval_every=200",
    "--config.training.sample_every=200",
    "--config.training.checkpoint_every=100",
    "--config.training.keep=3",
    "--config.evaluation.max_sequences=64",
    "--config.evaluation.draws=1",
    "--config.sampling.num_steps=16",
    "--config.sampling.num_samples=4",
    "--config.optim.lr=1e-3",
)


def look(pid: int, workdir: Path, began: float) -> dict[str, float]:
    """What can be seen of the process and its folder."""
    status = Path(f"/proc/{pid}/status").read_text()
    field = lambda name: int(status.split(f"{name}:")[1].split()[0])
    spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    folders = [p.name for p in (workdir / "checkpoints").glob("*")]
    done = [int(n) for n in folders if n.isdigit()]
    metrics = workdir / "metrics.jsonl"
    step, rate = 0, 0.0
    if metrics.exists():
        for line in metrics.read_bytes()[-8000:].splitlines()[1:]:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            step = max(step, record["step"])
            rate = record.get("speed/tokens_per_second", rate)
    return {
        "minutes": (time.monotonic() - began) / 60,
        "rss_mb": field("VmRSS") / 1024,
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": field("Threads"),
        "step": step,
        "cpu_seconds": (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK"),
        "tokens_per_second": rate,
        "checkpoints": len(done),
        "disk_mb": sum(f.stat().st_size for f in workdir.rglob("*") if f.is_file()) / 1e6,
    }


def per_cpu_second(seen: list[dict[str, float]], window: float = 5.0) -> None:
    """Add updates per second of processor time, over the last `window` minutes of each look."""
    first = 0
    for now in seen:
        while seen[first]["minutes"] < now["minutes"] - window:
            first += 1
        spent = now["cpu_seconds"] - seen[first]["cpu_seconds"]
        now["updates_per_cpu_second"] = (
            (now["step"] - seen[first]["step"]) / spent if spent else 0.0
        )


def slope(seen: list[dict[str, float]], name: str) -> tuple[float, float]:
    """Least squares per hour, and its standard error, over the last two thirds."""
    rows = [s for s in seen if s["minutes"] >= seen[-1]["minutes"] / 3]
    x = np.array([s["minutes"] for s in rows]) / 60
    y = np.array([s[name] for s in rows])
    x = x - x.mean()
    b = float((x * y).sum() / (x * x).sum())
    residual = y - y.mean() - b * x
    return b, float(np.sqrt((residual**2).sum() / max(len(y) - 2, 1) / (x * x).sum()))


def plot(seen: list[dict[str, float]], path: Path) -> None:
    """Four curves over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 5.5), sharex=True)
    what = ("rss_mb", "files", "updates_per_cpu_second", "checkpoints")
    for axis, name in zip(axes.flat, what):
        axis.plot([s["minutes"] for s in seen], [s[name] for s in seen], linewidth=1)
        axis.set_title(name)
        axis.set_ylim(bottom=0)
    for axis in axes[1]:
        axis.set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> None:
    """Run, watch, stop, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--every", type=float, default=5, help="seconds between two looks")
    parser.add_argument("--text", default=str(ROOT / "docs" / "decisions.md"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    workdir = given.output / "run"
    command = [sys.executable, "-m", "ldd_jax", "train", f"--workdir={workdir}"]
    command += [
        f"--config={ROOT}/configs/text.py:method=lddm_m",
        f"--config.data.path={given.text}",
    ]
    with (given.output / "log.txt").open("w") as log:
        running = subprocess.Popen(
            [*command, *FLAGS, *given.overrides], cwd=ROOT, stdout=log, stderr=log
        )
        began, seen = time.monotonic(), []
        while time.monotonic() - began < 60 * given.minutes:
            time.sleep(given.every)
            if running.poll() is not None:
                sys.exit(f"the run ended by itself with {running.returncode}; see log.txt")
            try:
                now = look(running.pid, workdir, began)
            except FileNotFoundError:  # a checkpoint went away while it was counted
                continue
            if now["tokens_per_second"]:
                seen.append(now)
        running.send_signal(signal.SIGTERM)
        status = running.wait(timeout=600)  # a loaded machine writes slowly
    per_cpu_second(seen)
    names = ("rss_mb", "files", "threads", "updates_per_cpu_second", "tokens_per_second",
             "checkpoints", "disk_mb")  # fmt: skip
    report = {"exit_status": status, "minutes": seen[-1]["minutes"], "steps": seen[-1]["step"]}
    for name in names:
        b, se = slope(seen, name)
        mean = float(np.mean([s[name] for s in seen]))
        report[name] = {"mean": mean, "last": seen[-1][name], "per_hour": b, "se": se}
    (given.output / "soak.json").write_text(json.dumps({"report": report, "seen": seen}) + "\n")
    plot(seen, given.output / "soak.png")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
