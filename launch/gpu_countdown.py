"""The published 6M recipes of Countdown-4 on one GPU, a slice of time at each call.

Part `countdown` of launch/gpu.py. A run that is not through when its time is up is asked to stop,
saves its checkpoint, and goes on at the next call; a finished one is solved and printed beside the
published success.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import reasoning
from cells import command

PUBLISHED = {"mgdm": 45.0, "lddm_g": 56.3}  # % solved, arXiv 2510.19304
SAVING = 45.0  # seconds to write a checkpoint and to leave


def train(workdir: Path, recipe: str, flags: list[str], seconds: float) -> bool:
    """Whether the run is through."""
    process = subprocess.Popen(
        command("train", f"--config={recipe}", f"--workdir={workdir}", *flags)
    )
    try:
        return process.wait(timeout=max(seconds - SAVING, 1)) == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=4 * SAVING)
        return False


def run(folder: Path, end: float, updates: int, small: bool) -> None:
    """Train and solve both methods within the time left, half of it each."""
    flags = [f"--config.training.num_steps={updates}"] if updates else []
    size = "size=tiny" if small else "size=6m,numbers=4"
    for i, (method, published) in enumerate(PUBLISHED.items()):
        workdir = folder / method
        left = (end - time.monotonic()) / (len(PUBLISHED) - i)
        done = train(workdir, f"configs/countdown.py:method={method},{size}", flags, left)
        if not done:
            print(f"{method}: not through; call again with the same --output", flush=True)
            continue
        steps = [4] if small else [20]
        found = reasoning.success(
            workdir, steps, ["ancestral", "easy_first"], 16 if small else 1000, ""
        )
        for record in found:
            print(
                f"{method} {record['decoder']} latent {record['latent']}: "
                f"{100 * record['strict']:.1f} % of {record['problems']} problems at "
                f"{record['calls']} calls; published {published} %",
                flush=True,
            )
