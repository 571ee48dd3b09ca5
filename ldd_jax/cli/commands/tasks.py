"""The `verify` and `solve` commands: solutions of generated problems, checked exactly."""

from __future__ import annotations

import sys

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import need, workdir_flag
from ldd_jax.core.checks import UserError, check_seed, require
from ldd_jax.core.console import harmless, say
from ldd_jax.core.storage import at


def _verify_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "task",
        "countdown",
        "countdown, game24 or sudoku, with options: sudoku:size=4.",
        flag_values=values,
    )


def _verify(values: flags.FlagValues) -> None:
    from ldd_jax import tasks
    from ldd_jax.core import registry

    task: tasks.Task = registry.parse("task", values.task)
    try:
        for line in sys.stdin:
            problem, _, solution = line.rstrip("\r\n").partition(tasks.SEPARATOR)
            verdicts = task.strict(problem, solution), task.legacy(problem, solution)
            say(" ".join(str(int(v)) for v in verdicts))
    except UnicodeDecodeError as error:
        raise UserError(f"the input is not UTF-8 text: {error}") from error


def _solve_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "Folder of a run trained on problems.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_string, "problem", "", 'The problem, such as "86,28,13,31,96".')
    d(flags.DEFINE_integer, "steps", None, "Steps of the sampler; default: the config's.")
    d(flags.DEFINE_string, "sampler", "", "Step rule, NAME or NAME:field=value,...; see docs.")
    flags.DEFINE_enum(
        "latent", "carry", ["carry", "off", "frozen"], "Latent between steps.", flag_values=values
    )
    d(flags.DEFINE_integer, "seed", 0, "Of the draws.")


def _solve(values: flags.FlagValues) -> None:
    problem, workdir = need(values, "problem"), at(need(values, "workdir"))
    require(values.steps is None or values.steps >= 1, f"--steps={values.steps}; at least 1")
    check_seed(values.seed)
    from ldd_jax.inference import loading, solve
    from ldd_jax.inference.settings import overlaid
    from ldd_jax.report import terminal

    experiment, params, step = loading.load_trained(workdir)
    require(
        experiment.model.latent or values.latent == "carry",  # type: ignore[attr-defined]
        f"this network takes no latent; --latent={values.latent} does not apply",
    )
    asked = dict(sampler=values.sampler or None, latent=values.latent, batch_size=1)
    sampling = overlaid(experiment.sampling, **asked)
    solver = solve.Solver.make(experiment, sampling, solve.tokens_of)
    num_steps = values.steps or sampling.num_steps
    (answer,) = solver.answers(params, [problem], seed=values.seed, num_steps=num_steps)
    say(*terminal.numbered(map(harmless, answer.steps)))
    say(*solver.task.lines(answer.solution))
    verdict = "solves it" if answer.strict else "does not solve it"
    say(
        f"{problem}: {verdict} (strict {answer.strict:d}, legacy {answer.legacy:d}); "
        f"{answer.calls} network calls, checkpoint {step}"
    )


VERIFY = Command(
    "check lines problem|solution from stdin: strict legacy",
    _verify_flags,
    _verify,
    compiles=False,
)
SOLVE = Command(
    "solve a problem with a trained model",
    _solve_flags,
    _solve,
    argument="problem",
    buckets=("workdir",),
)
