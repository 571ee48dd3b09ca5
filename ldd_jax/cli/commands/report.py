"""The `report` command."""

from __future__ import annotations

from typing import Any

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.core.checks import check_seed, require
from ldd_jax.core.console import say
from ldd_jax.core.storage import at


def _report_flags(values: flags.FlagValues) -> None:
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_multi_string, "workdir", [], "Trained runs: A,B,... or the flag repeated.")
    d(flags.DEFINE_string, "output", "", "HTML file; default: report.html in the first workdir.")
    d(flags.DEFINE_string, "bench", "", "Folder of a bench, whose frontier is shown as well.")
    d(flags.DEFINE_integer, "steps", 64, "Steps of the samples that are watched.")
    d(flags.DEFINE_integer, "num_samples", 32, "Samples that are averaged over.")
    d(flags.DEFINE_integer, "seed", 0, "Of noise and draws.")


def _report(values: flags.FlagValues) -> None:
    require(bool(values.workdir), "--workdir is missing; give --workdir=A --workdir=B")
    for name in ("steps", "num_samples"):
        require(
            getattr(values, name) >= 1, f"--{name}={getattr(values, name)}; it must be at least 1"
        )
    check_seed(values.seed)
    from ldd_jax.core import outputs
    from ldd_jax.inference import loading, trace
    from ldd_jax.report import page

    workdirs = [at(w) for w in dict.fromkeys(",".join(values.workdir).split(","))]
    bench = at(values.bench) if values.bench else None
    if bench:
        page.frontier(bench)
    names = [w.name for w in workdirs]
    runs: list[dict[str, Any]] = []
    for workdir in workdirs:
        experiment, params, _ = loading.load_trained(workdir)
        label = workdir.name if names.count(workdir.name) == 1 else str(workdir)
        if not runs:
            output = outputs.place(values.output, workdirs[0] / "report.html")
        found = trace.watch(
            experiment, params, steps=values.steps, samples=values.num_samples, seed=values.seed
        )
        runs.append(found | page.read_run(workdir) | {"label": label})
        say(f"{label}: {found['samples']} samples watched")
    text = page.page(runs, bench)
    with output.open() as stream:
        stream.write(text)
    say(f"report: {output.path}")


REPORT = Command(
    "one HTML page: curves, tables, mechanism, a player",
    _report_flags,
    _report,
    buckets=("workdir", "output"),
)
