"""The `distill` command."""

from __future__ import annotations

from typing import Any

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import need, workdir_flag
from ldd_jax.core.checks import check_seed, require
from ldd_jax.core.console import say
from ldd_jax.core.storage import at


def _distill_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "Folder of a trained run.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_integer, "steps", None, "Steps of the grid to learn.")
    d(flags.DEFINE_integer, "num_samples", 1024, "Rows of either split at most; 0: all.")
    flags.DEFINE_enum(
        "latent",
        "carry",
        ["carry", "off", "frozen"],
        "The latent between the steps that the grid is for.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "objective",
        "path",
        ["path", "trajectory"],
        "The path's bound, or the published trajectory matching, which makes samplers worse.",
        flag_values=values,
    )
    d(flags.DEFINE_integer, "seed", 0, "Of the draws.")
    d(flags.DEFINE_integer, "step", None, "Checkpoint; default: the newest.")
    d(flags.DEFINE_bool, "ema", True, "Averaged parameters.")
    d(flags.DEFINE_string, "output", "", "JSON file, for --grid=FILE of sample and bench.")


def _distill(values: flags.FlagValues) -> None:
    workdir = at(need(values, "workdir"))
    steps = need(values, "steps")
    need(values, "output")
    require(steps >= 1, f"--steps={steps}; it must be at least 1")
    require(values.num_samples >= 0, f"--num_samples={values.num_samples}; it must be 0 or more")
    check_seed(values.seed)
    from ldd_jax.config.experiment import read_corpus
    from ldd_jax.config.sections import check_sampler
    from ldd_jax.core import outputs
    from ldd_jax.inference import distill, json_lines, loading, scaling
    from ldd_jax.inference.settings import overlaid

    output = outputs.place(values.output)
    experiment, params, step = loading.load_trained(workdir, ema=values.ema, step=values.step)
    experiment = experiment.of_tokens
    by_grid = distill.is_grid(experiment)
    require(
        by_grid or values.objective == "path",
        "--objective=trajectory is for masked diffusion that predicts x_theta",
    )
    require(
        experiment.model.latent or values.latent == "carry",
        "this network takes no latent; --latent does not apply",
    )
    sampling = overlaid(experiment.sampling, sampler="ancestral", steps=steps, latent=values.latent)
    if not by_grid:  # a grid is learned for a process of masks, which ancestral always samples
        check_sampler(sampling, experiment.process, experiment.model)
    corpus = read_corpus(experiment)
    corpus.rows("train")  # refused where there are none
    common: dict[str, Any] = dict(sequences=values.num_samples, seed=values.seed)
    found: Any
    if by_grid:
        found = distill.distill(
            experiment,
            corpus,
            params,
            sampling,
            objective=values.objective,
            report=lambda text: say(text, error=True),
            **common,
        )
    else:
        found = scaling.scale(experiment, corpus, params, sampling, **common)
    say(found)
    record = found.record() | {"objective": values.objective}
    record |= distill.about(experiment, step, sampling)
    json_lines.write(output, [record])
    say(f"written to {output.path}")


DISTILL = Command(
    "learn a sampler of few steps: a time grid, or factors",
    _distill_flags,
    _distill,
    buckets=("workdir", "output"),
)
