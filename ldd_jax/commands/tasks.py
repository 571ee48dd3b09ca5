"""The `verify` command: solutions of generated problems, checked exactly."""

from __future__ import annotations

import sys

from absl import flags

from ldd_jax.command_line import Command
from ldd_jax.core.checks import UserError


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
            print(*map(int, verdicts))
    except UnicodeDecodeError as error:
        raise UserError(f"the input is not UTF-8 text: {error}") from error


VERIFY = Command("check lines problem|solution from stdin: strict legacy", _verify_flags, _verify)
