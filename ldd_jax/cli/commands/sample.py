"""The `sample` command."""

from __future__ import annotations

import contextlib
import time

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import (
    distributed_flags,
    need,
    sampler_flags,
    start_as_one,
    workdir_flag,
)
from ldd_jax.core.checks import RunError
from ldd_jax.core.console import OUT, say
from ldd_jax.core.storage import at


def _sample_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "Folder of a trained run.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_integer, "num_samples", None, "Samples; default: the config's.")
    d(flags.DEFINE_integer, "steps", None, "Steps of the sampler; default: the config's.")
    sampler_flags(values)
    d(flags.DEFINE_integer, "seed", 0, "Sample i of a seed is always the same.")
    d(flags.DEFINE_string, "label", None, "Class of the samples, of a model trained with classes.")
    d(flags.DEFINE_integer, "length", None, "Tokens of a sample; default: the training length.")
    d(flags.DEFINE_integer, "batch_size", None, "Samples at a time.")
    d(flags.DEFINE_integer, "compact", None, "Halve a batch so often as its rows end; 0 = never.")
    d(flags.DEFINE_string, "prompt", None, "Text that every sample begins with.")
    d(flags.DEFINE_string, "fill", None, 'Text with gaps, such as "The [MASK][MASK] is".')
    text = "PART:FILE, such as signal:pairs.jsonl: of a model with a signal, what is given to it."
    d(flags.DEFINE_string, "given", None, text)
    d(flags.DEFINE_integer, "step", None, "Checkpoint; default: the newest.")
    d(flags.DEFINE_bool, "ema", True, "Averaged parameters.")
    d(flags.DEFINE_string, "output", "", "JSON lines file; default: WORKDIR/samples.jsonl.")
    distributed_flags(values)


def _sample(values: flags.FlagValues) -> None:
    workdir = at(need(values, "workdir"))
    start_as_one(values)
    from ldd_jax.cli.commands.sample_file import SampleFile
    from ldd_jax.core import outputs
    from ldd_jax.inference.pipeline import load
    from ldd_jax.inference.settings import HOW, WHAT
    from ldd_jax.training import distributed

    pipeline = load(workdir, ema=values.ema, step=values.step)
    output = outputs.place(values.output, workdir / "samples.jsonl")
    options = {name: getattr(values, name) for name in (*HOW, *WHAT)}
    began = time.monotonic()
    asked = pipeline.request(**options)
    common = asked.common | {"averaged": values.ema}
    file = SampleFile(output, common, asked.sampler.length, asked.count)
    # What a file gets as it is, a terminal must not obey.
    show = lambda record: say(record["text"], raw=not OUT.isatty())
    there = distributed.agreed(len(file.records))
    if there:
        say(f"{output.path} has {there} samples of this command already; it goes on", error=True)
        for record in file.records:
            show(record)
    with contextlib.closing(file):
        try:
            for record in asked.records(there):
                file.add(record | {"averaged": values.ema})
                show(record)
        except KeyboardInterrupt as error:
            done = len(file.records)
            if not done:
                raise
            raise RunError(
                f"interrupted; {done} of {asked.count} samples are in {output.path}, the same "
                "command goes on"
            ) from error
    records = file.records
    latent = values.latent if pipeline.experiment.model.latent else "none"
    say(
        f"{len(records)} samples of {len(records[0]['tokens'])} tokens, {records[0]['calls']} "
        f"network calls each, latent {latent}, {time.monotonic() - began:.1f} s with "
        f"compilation; written to {output.path}",
        error=True,
    )


SAMPLE = Command(
    "draw samples, fill gaps, continue prompts",
    _sample_flags,
    _sample,
    buckets=("workdir", "output", "grid"),
)
