"""The `play` command."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import reset_steps, stop_flag, stop_of
from ldd_jax.core.checks import check_seed, require
from ldd_jax.core.console import OUT, say


def _play_flags(values: flags.FlagValues) -> None:
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_multi_string, "workdir", [], "Trained runs: A,B,... or the flag repeated.")
    d(flags.DEFINE_integer, "steps", 64, "Steps of the sampler.")
    d(flags.DEFINE_integer, "seed", 0, "Of noise and draws, the same for all runs.")
    d(flags.DEFINE_integer, "row", 0, "Which sample of the seed, 0 to 3.")
    d(flags.DEFINE_string, "resets", "0", "h = 0 every k steps, such as 0,1: 0 never, 1 always.")
    stop_flag(values)
    d(flags.DEFINE_float, "delay", 0.12, "Seconds between steps.")
    d(flags.DEFINE_string, "gif", "", "Write a GIF instead of playing in the terminal.")


def _play(values: flags.FlagValues) -> None:
    require(bool(values.workdir), "--workdir is missing; give --workdir=DIR")
    resets = reset_steps(values.resets)
    require(values.steps >= 1, f"--steps={values.steps}; it must be at least 1")
    check_seed(values.seed)
    delay = values.delay
    require(math.isfinite(delay) and 0 <= delay <= 60, f"--delay={delay}; 0 to 60 seconds")
    from ldd_jax.core import outputs
    from ldd_jax.inference import loading, trace
    from ldd_jax.report import frames, terminal

    require(0 <= values.row < trace.PLAYED, f"--row={values.row}; 0 to {trace.PLAYED - 1}")
    runs: list[Any] = []
    for workdir in map(Path, dict.fromkeys(",".join(values.workdir).split(","))):
        experiment, params, _ = loading.load_trained(workdir)
        if values.gif and not runs:
            place = outputs.place(values.gif, flag="gif")
        for reset in resets:
            found = trace.watch(
                experiment,
                params,
                steps=values.steps,
                samples=values.row + 1,
                seed=values.seed,
                reset_every=reset,
                stop=stop_of(values),
            )
            how = {0: "", 1: ", h off"}.get(reset, f", h reset every {reset}")
            runs.append(frames.frames(f"{workdir.name}{how}", found["paths"][values.row]))
    if values.gif:
        from ldd_jax.report import gif

        count = gif.write(runs, place, delay)
        say(f"{count} pictures written to {values.gif}")
        return
    colours = OUT.isatty() and not os.environ.get("NO_COLOR")
    terminal.play(runs, OUT, delay, colours)


PLAY = Command(
    "show denoising step by step: terminal or GIF", _play_flags, _play, buckets=("workdir", "gif")
)
