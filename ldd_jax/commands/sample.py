"""The `sample` command."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from ldd_jax.command_line import Command
from ldd_jax.commands.shared import need, workdir_flag
from ldd_jax.core.checks import UserError, require


def _sample_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "Folder of a trained run.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_integer, "num_samples", None, "Samples; default: the config's.")
    d(flags.DEFINE_integer, "steps", None, "Steps of the sampler; default: the config's.")
    d(flags.DEFINE_string, "sampler", "", "Step rule, NAME or NAME:field=value,...; see docs.")
    d(flags.DEFINE_string, "grid", "", "Time grid: linear, cosine or geometric, as --sampler.")
    d(flags.DEFINE_string, "blocks", "", "whole, fill:size=32 or slide:size=32; see docs.")
    d(flags.DEFINE_integer, "seed", 0, "Sample i of a seed is always the same.")
    d(flags.DEFINE_float, "temperature", None, "Of p(x0 | z_t).")
    d(flags.DEFINE_float, "top_p", None, "Nucleus of p(x0 | z_t).")
    d(flags.DEFINE_integer, "top_k", None, "Most probable tokens of p(x0 | z_t); 0 = all.")
    flags.DEFINE_enum(
        "latent",
        "carry",
        ["carry", "off", "frozen"],
        "The latent between steps.",
        flag_values=values,
    )
    d(flags.DEFINE_integer, "reset_every", None, "Put h = 0 every k steps; 0 = never.")
    d(flags.DEFINE_bool, "reset_on_remask", None, "Put h = 0 where a token is masked again.")
    d(flags.DEFINE_string, "label", "", "Class of the samples, of a model trained with classes.")
    d(flags.DEFINE_float, "guidance", None, "Strength of the condition; 1 = none added.")
    d(flags.DEFINE_string, "tail", None, "Last call: sample, greedy or none.")
    d(flags.DEFINE_integer, "length", None, "Tokens of a sample; default: the training length.")
    d(flags.DEFINE_integer, "batch_size", None, "Samples at a time.")
    d(flags.DEFINE_string, "prompt", "", "Text that every sample begins with.")
    d(flags.DEFINE_string, "fill", "", 'Text with gaps, such as "The [MASK][MASK] is".')
    d(flags.DEFINE_integer, "step", None, "Checkpoint; default: the newest.")
    d(flags.DEFINE_bool, "ema", True, "Averaged parameters.")
    d(flags.DEFINE_string, "output", "", "JSON lines file; default: WORKDIR/samples.jsonl.")


def _sampling(values: flags.FlagValues, defaults: Any) -> Any:
    """The config's sampling with the flags laid over it."""
    from ldd_jax.core import registry

    given = lambda **names: {
        field: getattr(values, flag)
        for field, flag in names.items()
        if getattr(values, flag) is not None
    }
    readout = dataclasses.replace(
        defaults.readout, **given(temperature="temperature", top_p="top_p", top_k="top_k")
    )
    latent = dataclasses.replace(
        defaults.latent, **given(reset_every="reset_every", reset_on_remask="reset_on_remask")
    )
    modes: dict[str, dict[str, Any]] = {
        "carry": {},
        "off": {"reset_every": 1},
        "frozen": {"frozen": True},
    }
    latent = dataclasses.replace(latent, **modes[values.latent])
    step = registry.parse("step", values.sampler) if values.sampler else defaults.step
    grid = registry.parse("grid", values.grid) if values.grid else defaults.grid
    blocks = registry.parse("blocks", values.blocks) if values.blocks else defaults.blocks
    require(
        step.clock == "grid" or (values.steps is None and not values.grid),
        "this sampler takes as many steps as its rows need; --steps and --grid do not apply",
    )
    return dataclasses.replace(
        defaults,
        step=step,
        grid=grid,
        blocks=blocks,
        readout=readout,
        latent=latent,
        **given(
            num_samples="num_samples",
            num_steps="steps",
            tail="tail",
            batch_size="batch_size",
            guidance="guidance",
        ),
    )


def _label(experiment: Any, name: str) -> int | None:
    """Number of a class."""
    from ldd_jax.core.checks import nearest

    if not name:
        return None
    classes = experiment.config.data.to_dict().get("classes", ())
    require(bool(classes), "--label: this model was trained without classes")
    require(name in classes, f"--label={name}: no such class; {nearest(name, classes)}")
    return list(classes).index(name)


def _sample(values: flags.FlagValues) -> None:
    workdir = Path(need(values, "workdir"))
    from ldd_jax import generate, loop

    output = values.output or str(workdir / "samples.jsonl")
    require(
        values.length is None or values.length >= 1,
        f"--length={values.length}; it must be at least 1",
    )
    require(
        0 <= values.seed < 2**32, f"--seed={values.seed}; it must lie between 0 and {2**32 - 1}"
    )
    experiment, params, step = loop.load(workdir, ema=values.ema, step=values.step)
    generate.check_output(output)
    try:
        sampling = _sampling(values, experiment.sampling)
    except ValueError as error:
        raise UserError(str(error)) from error
    has_latent = experiment.model.latent
    require(
        has_latent
        or not (values.latent != "carry" or values.reset_every or values.reset_on_remask),
        "this network takes no latent; --latent, --reset_every, --reset_on_remask do not apply",
    )
    length = values.length or experiment.config.data.length
    given = generate.template(experiment, values.prompt, values.fill, length)
    tokens, fixed = given if given is not None else (None, None)
    length = length if tokens is None else len(tokens)
    label = _label(experiment, values.label)
    count, num_steps = sampling.num_samples, sampling.num_steps
    sampling = dataclasses.replace(sampling, batch_size=min(sampling.batch_size, count))
    sampler = generate.Sampler.make(experiment, sampling, length)
    labelled = {"label": values.label} if values.label else {}
    began = time.monotonic()
    records = []
    for record in sampler.records(
        params,
        seed=values.seed,
        count=count,
        num_steps=num_steps,
        fixed_tokens=tokens,
        fixed=fixed,
        label=label,
    ):
        print(record["text"], flush=True)
        records.append({**record, "checkpoint": step, **labelled})
    generate.write_json_lines(output, records)
    print(
        f"{count} samples of {length} tokens, {records[0]['calls']} network calls each, latent "
        f"{values.latent if has_latent else 'none'}, {time.monotonic() - began:.1f} s with "
        f"compilation; written to {output}",
        file=sys.stderr,
    )


SAMPLE = Command("draw samples, fill gaps, continue prompts", _sample_flags, _sample)
