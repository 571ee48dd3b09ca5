"""The `mechanism` command."""

from __future__ import annotations

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import (
    distributed_flags,
    need,
    reset_steps,
    start_as_one,
    stop_flag,
    stop_of,
    workdir_flag,
)
from ldd_jax.core.checks import check_seed, require, spread
from ldd_jax.core.console import say
from ldd_jax.core.storage import at


def _mechanism_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "Folder of a trained run.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_integer, "steps", 64, "Steps of the sampler.")
    d(flags.DEFINE_integer, "num_samples", 32, "Rows that are averaged over.")
    d(flags.DEFINE_integer, "seed", 0, "Of noise and draws.")
    d(flags.DEFINE_string, "resets", "0", "h = 0 every k steps, such as 0,1,4: 0 never, 1 always.")
    stop_flag(values)
    d(flags.DEFINE_integer, "every", 4, "Distance K of the temporal KL, in steps.")
    d(flags.DEFINE_string, "output", "", "JSON lines file; default: WORKDIR/mechanism.jsonl.")
    distributed_flags(values)


def _mechanism(values: flags.FlagValues) -> None:
    workdir = at(need(values, "workdir"))
    resets = reset_steps(values.resets)
    for name in ("steps", "num_samples", "every"):
        require(
            getattr(values, name) >= 1, f"--{name}={getattr(values, name)}; it must be at least 1"
        )
    check_seed(values.seed)
    start_as_one(values)
    from ldd_jax.core import outputs
    from ldd_jax.inference import json_lines, loading, trace

    experiment, params, step = loading.load_trained(workdir)
    output = outputs.place(values.output, workdir / "mechanism.jsonl")
    records = []
    for reset in resets:
        found = trace.watch(
            experiment,
            params,
            steps=values.steps,
            samples=values.num_samples,
            seed=values.seed,
            reset_every=reset,
            every=values.every,
            stop=stop_of(values),
        )
        say(describe(found))
        records.append(found | {"checkpoint": step})
    json_lines.write(output, records)
    say(f"written to {output.path}")


def describe(found: dict) -> str:
    """A run in a few lines: early, middle and late thirds of every curve, and the counts."""
    latent = {0: "carried", 1: "off"}.get(found["reset_every"], f"reset {found['reset_every']}")
    lines = [f"{found['recipe']}: {found['samples']} samples, {found['steps']} steps, h {latent}"]
    if found["no_grid"]:
        return f"{lines[0]}\n  no grid: its rule takes no steps in time, so there is no mechanism"
    for name, values in found["curves"].items():
        if name.endswith("_se"):
            continue
        third = -(-len(values) // 3)
        parts = [[v for v in values[i : i + third] if v is not None] for i in (0, third, 2 * third)]
        shown = "  ".join(f"{sum(p) / len(p):8.4f}" if p else "       -" for p in parts)
        lines.append(f"  {name:10s} early, middle, late thirds {shown}")
    counts = found["counts"]
    expected = counts.get("busy_expected")
    closed = "" if expected is None else f" (closed form {expected:.2f})"
    told = lambda name, digits: spread(counts[name], counts[f"{name}_se"], digits)
    lines.append(
        f"  busy steps {told('busy', 2)}{closed}; oscillations {told('oscillations', 3)}, returns "
        f"{told('returns', 3)} a position"
    )
    if "ended" in counts:
        lines.append(f"  rows end after {told('ended', 2)} steps")
    return "\n".join(lines)


MECHANISM = Command(
    "watch what the latent does while sampling",
    _mechanism_flags,
    _mechanism,
    buckets=("workdir", "output"),
)
