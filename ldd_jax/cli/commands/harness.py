"""The `lm-eval` command."""

from __future__ import annotations

import json

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import distributed_flags, need, start, workdir_flag
from ldd_jax.core.checks import require
from ldd_jax.core.console import say


def _harness_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "Folder of a run or an import.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_string, "tasks", "", "Names of tasks, with commas; wildcards as in arc_*.")
    d(flags.DEFINE_string, "include", "", "Folder of your own task files.")
    flags.DEFINE_enum(
        "likelihood",
        "conditional",
        ["conditional", "joint", "carried"],
        "Of multiple choice; joint: all noised together, mean over tokens; carried: see docs.",
        flag_values=values,
    )
    d(flags.DEFINE_integer, "draws", 64, "Of each request; short options are scored exactly.")
    d(flags.DEFINE_integer, "passes", None, "Network passes per draw; default: as evaluate.")
    d(flags.DEFINE_integer, "batch_size", 64, "Rows at a time.")
    d(flags.DEFINE_integer, "steps", 0, "Of generation; 0 = one for each token. Of carried.")
    d(flags.DEFINE_integer, "trajectories", 4, "Of carried: paths of each request.")
    d(flags.DEFINE_integer, "num_fewshot", None, "Examples before each question.")
    d(flags.DEFINE_float, "limit", None, "Documents of each task, below 1 a share; default: all.")
    d(flags.DEFINE_string, "gen_kwargs", "", "Of generation, over the tasks': temperature=0.8,...")
    d(flags.DEFINE_string, "system_instruction", None, "Text before every prompt.")
    d(flags.DEFINE_string, "apply_chat_template", "", "A Jinja file, or true for a plain one.")
    d(flags.DEFINE_bool, "log_samples", False, "Keep all documents, requests and answers.")
    d(flags.DEFINE_string, "output_path", "", "Folder for results in lm-eval's own layout.")
    d(flags.DEFINE_integer, "seed", 0, "Of all draws.")
    d(flags.DEFINE_bool, "ema", True, "Averaged parameters.")
    d(flags.DEFINE_string, "output", "", "JSON file to write as well.")
    distributed_flags(values)


def _harness(values: flags.FlagValues) -> None:
    workdir, tasks = need(values, "workdir"), need(values, "tasks")
    require(values.steps >= 0, f"--steps={values.steps}; it must be 0 or more")
    start(values)
    from ldd_jax.core import outputs
    from ldd_jax.interop import harness, harness_tasks
    from ldd_jax.training import distributed
    from ldd_jax.training.metrics import finite

    output = outputs.place(values.output) if values.output else None
    model = harness.Harness(
        workdir,
        likelihood=values.likelihood,
        draws=values.draws,
        passes=values.passes,
        batch_size=values.batch_size,
        steps=values.steps,
        trajectories=values.trajectories,
        ema=values.ema,
        seed=values.seed,
    )
    template = values.apply_chat_template
    found = harness_tasks.evaluate(
        model,
        tasks.split(","),
        values.include,
        output_path=values.output_path,
        log_samples=values.log_samples,
        gen_kwargs=values.gen_kwargs,
        apply_chat_template={"true": True, "false": False, "": False}.get(template, template),
        system_instruction=values.system_instruction,
        num_fewshot=values.num_fewshot,
        limit=values.limit,
    )
    if distributed.leader():
        text = json.dumps(finite(found), indent=1, default=str)
        say(text)
        if output:
            with output.open() as stream:
                stream.write(text + "\n")


LM_EVAL = Command(
    "tasks of lm-evaluation-harness", _harness_flags, _harness, buckets=("workdir", "output")
)
