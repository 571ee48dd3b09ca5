"""The `energy` command."""

from __future__ import annotations

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import distributed_flags, need, start_as_one, workdir_flag
from ldd_jax.core.checks import check_seed, require
from ldd_jax.core.console import say
from ldd_jax.core.storage import at


def _energy_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "Folder of a run on a target.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_integer, "num_samples", 4096, "Rollouts that are averaged over.")
    d(flags.DEFINE_integer, "batch_size", 0, "Rollouts at a time; default: the config's.")
    flags.DEFINE_enum(
        "latent",
        "",
        ["", "carry", "off"],
        "The latent along a rollout; default: as the objective rolls.",
        flag_values=values,
    )
    d(flags.DEFINE_bool, "truth", True, "Compute what is known exactly, if it can be.")
    d(flags.DEFINE_integer, "seed", 0, "Of the draws.")
    d(flags.DEFINE_integer, "step", None, "Checkpoint; default: the newest.")
    d(flags.DEFINE_bool, "ema", True, "Averaged parameters.")
    d(flags.DEFINE_string, "output", "", "JSON file to write as well.")
    distributed_flags(values)


def _energy(values: flags.FlagValues) -> None:
    workdir = at(need(values, "workdir"))
    require(values.num_samples >= 2, f"--num_samples={values.num_samples}; it must be at least 2")
    require(values.batch_size >= 0, f"--batch_size={values.batch_size}; it must be 0 or more")
    check_seed(values.seed)
    start_as_one(values)
    from ldd_jax.core import outputs
    from ldd_jax.inference import energy, json_lines, loading
    from ldd_jax.training import metrics

    output = outputs.place(values.output) if values.output else None
    experiment, params, step = loading.load_trained(workdir, ema=values.ema, step=values.step)
    energy.require_target(experiment)
    require(
        experiment.model.latent or values.latent != "carry",
        "this network takes no latent; --latent does not apply",
    )
    found = energy.measure(
        experiment,
        params,
        rollouts=values.num_samples,
        seed=values.seed,
        carry=None if not values.latent else values.latent == "carry",
        batch_size=values.batch_size,
        truth=experiment.target.truth() if values.truth else None,
        report=metrics.Ticker("rollouts", lambda text: say(text, error=True)),
    )
    say(f"checkpoint {step}, {'averaged' if values.ema else 'raw'} parameters", found)
    if output:
        record = found.record() | energy.about(experiment, step, values.seed)
        json_lines.write(output, [record | {"ema": values.ema}])
        say(f"written to {output.path}")


ENERGY = Command(
    "measure a sampler of a target: log Z, ESS, means",
    _energy_flags,
    _energy,
    buckets=("workdir", "output"),
)
