"""The `watch` command."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import need, workdir_flag
from ldd_jax.core.checks import require
from ldd_jax.core.console import OUT, say
from ldd_jax.core.storage import at


def _watch_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "Folder of a run, which may be training; only read.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_bool, "once", False, "Show it once and end.")
    d(flags.DEFINE_float, "every", 5.0, "Seconds between two looks.")
    d(flags.DEFINE_string, "page", "", "Write a web page instead, anew at every change.")


def _watch(values: flags.FlagValues) -> None:
    workdir, every = at(need(values, "workdir")), values.every
    require(math.isfinite(every) and 0.1 <= every <= 3600, f"--every={every}; 0.1 to 3600 seconds")
    from ldd_jax.core import outputs
    from ldd_jax.report import live, status

    found = status.read(workdir)
    show: Callable[[status.Status], None] = _terminal()
    if values.page:
        place = outputs.place(values.page, flag="page")

        def show(found: status.Status) -> None:
            with place.open() as stream:
                stream.write(live.page(found, max(round(every), 1)))

        say(f"page: {values.page}")
    OUT.lost = False
    seen = None
    with contextlib.suppress(KeyboardInterrupt):  # how one stops to look
        while True:
            now = status.signature(workdir)
            if now != seen:
                found, seen = status.read(workdir), now
                show(found)
            if values.once or found.finished or OUT.lost:
                return
            time.sleep(every)


def _terminal() -> Callable[..., None]:
    """Paints in place on a terminal that can; elsewhere one view follows the other."""
    from ldd_jax.report import live, terminal

    paints = OUT.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    high = 0

    def show(found) -> None:
        nonlocal high
        size = shutil.get_terminal_size()
        lines = live.lines(found, size.columns)
        if paints:
            high = terminal.repaint(OUT, lines[: max(size.lines - 1, 1)], high)
        else:
            say(*([""] if high else []), *lines)
            high = len(lines)

    return show


WATCH = Command(
    "look at a run, also while it trains: terminal or web page",
    _watch_flags,
    _watch,
    compiles=False,
    plugins=False,
    buckets=("workdir", "page"),
)
