"""The command line: flags and subcommands. Exit status 0 good, 2 bad input, 1 anything else."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import config_flags

from ldd_jax import __version__
from ldd_jax.bench.commands import BENCH, GEN_PPL
from ldd_jax.command_line import Command, describe, parse
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.memory import keep_freed_memory


def _workdir(values: flags.FlagValues, text: str) -> None:
    flags.DEFINE_string("workdir", None, text, flag_values=values)


def _config(values: flags.FlagValues) -> None:
    config_flags.DEFINE_config_file(
        "config", None, "Config file, as FILE or FILE:method=...,size=...", flag_values=values
    )


def _distributed(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "distributed",
        "",
        "Many processes: auto (Slurm, MPI, TPU pods), or COORDINATOR:PORT,COUNT,RANK.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "start_limit", 300.0, "Seconds to wait for the other processes.", flag_values=values
    )


def _start(values: flags.FlagValues) -> None:
    """Bring all processes together before anything of the run is looked at."""
    if not values.distributed:
        return
    from ldd_jax.training import distributed

    distributed.start(distributed.parse(values.distributed), limit=values.start_limit)


def _need(values: flags.FlagValues, name: str) -> Any:
    value = getattr(values, name)
    require(value not in (None, ""), f"--{name} is missing; give --{name}=...")
    return value


def _train_flags(values: flags.FlagValues) -> None:
    _config(values)
    _workdir(values, "Folder of the run; running again with the same config resumes it.")
    flags.DEFINE_integer(
        "profile", 0, "Trace so many steps, the third on, in WORKDIR/profile.", flag_values=values
    )
    _distributed(values)


def _train(values: flags.FlagValues) -> None:
    config, workdir = _need(values, "config"), _need(values, "workdir")
    require(values.profile >= 0, f"--profile={values.profile}; it must be 0 (off) or more")
    _start(values)
    from ldd_jax import experiment, loop

    experiment.check_sections(config, "the config file")
    loop.train(config, Path(workdir), values.profile)


def _evaluate_flags(values: flags.FlagValues) -> None:
    _workdir(values, "Folder of a trained run.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_string, "split", "validation", "train or validation.")
    d(flags.DEFINE_string, "passes", "", "Network passes per bound, such as 1,2; default: config.")
    d(flags.DEFINE_integer, "draws", 0, "Times drawn per sequence; default: the config's.")
    d(flags.DEFINE_integer, "step", None, "Checkpoint; default: the newest.")
    d(flags.DEFINE_bool, "ema", True, "Averaged parameters.")
    d(flags.DEFINE_string, "output", "", "JSON lines file to write as well.")


def _evaluate(values: flags.FlagValues) -> None:
    workdir = Path(_need(values, "workdir"))
    from ldd_jax import generate, loop
    from ldd_jax.core import registry

    require(values.draws >= 0, f"--draws={values.draws}; it must be at least 1 (0: the config's)")
    if values.output:
        generate.check_output(values.output)
    experiment, params, step = loop.load(workdir, ema=values.ema, step=values.step)
    passes = [experiment.evaluation.passes]
    if values.passes:
        parts = values.passes.split(",")
        bad = [p for p in parts if not p.isdecimal() or int(p) < 1]
        require(not bad, f"--passes={values.passes}: {bad} are not positive whole numbers")
        passes = [int(p) for p in parts]
    require(
        experiment.model.latent or max(passes) == 1,  # type: ignore[attr-defined]
        f"--passes={max(passes)}: this network takes no latent, so it has one pass",
    )
    corpus = registry.build("data", experiment.config.data).load(experiment.tokenizer)
    print(corpus.describe())
    print(f"checkpoint {step}, {'averaged' if values.ema else 'raw'} parameters")
    records = []
    for k in passes:
        found = loop.evaluate(
            experiment, corpus, params, split=values.split, passes=k, draws=values.draws or None
        )
        record = found.record() | {"split": values.split, "step": step}
        print(f"{found}\n  {found.meaning}")
        records.append(record)
    if values.output:
        generate.write_json_lines(values.output, records)


def _sample_flags(values: flags.FlagValues) -> None:
    _workdir(values, "Folder of a trained run.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_integer, "num_samples", None, "Samples; default: the config's.")
    d(flags.DEFINE_integer, "steps", None, "Steps of the sampler; default: the config's.")
    d(flags.DEFINE_string, "sampler", "", "Step rule, NAME or NAME:field=value,...; see docs.")
    d(flags.DEFINE_string, "grid", "", "Time grid: linear, cosine or geometric, as --sampler.")
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
    require(
        step.clock == "grid" or (values.steps is None and not values.grid),
        "this sampler takes as many steps as its rows need; --steps and --grid do not apply",
    )
    return dataclasses.replace(
        defaults,
        step=step,
        grid=grid,
        readout=readout,
        latent=latent,
        **given(num_samples="num_samples", num_steps="steps", tail="tail", batch_size="batch_size"),
    )


def _sample(values: flags.FlagValues) -> None:
    workdir = Path(_need(values, "workdir"))
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
    has_latent = experiment.model.latent  # type: ignore[attr-defined]
    require(
        has_latent
        or not (values.latent != "carry" or values.reset_every or values.reset_on_remask),
        "this network takes no latent; --latent, --reset_every, --reset_on_remask do not apply",
    )
    length = values.length or experiment.config.data.length
    given = generate.template(experiment, values.prompt, values.fill, length)
    tokens, fixed = given if given is not None else (None, None)
    length = length if tokens is None else len(tokens)
    count, num_steps = sampling.num_samples, sampling.num_steps
    sampling = dataclasses.replace(sampling, batch_size=min(sampling.batch_size, count))
    sampler = generate.Sampler.make(experiment, sampling, length)
    began = time.monotonic()
    records = []
    for record in sampler.records(
        params,
        seed=values.seed,
        count=count,
        num_steps=num_steps,
        fixed_tokens=tokens,
        fixed=fixed,
    ):
        print(record["text"], flush=True)
        records.append({**record, "checkpoint": step})
    generate.write_json_lines(output, records)
    print(
        f"{count} samples of {length} tokens, {records[0]['calls']} network calls each, latent "
        f"{values.latent if has_latent else 'none'}, {time.monotonic() - began:.1f} s with "
        f"compilation; written to {output}",
        file=sys.stderr,
    )


def _prepare_flags(values: flags.FlagValues) -> None:
    _config(values)
    flags.DEFINE_string("output", None, "New folder for the shards.", flag_values=values)
    flags.DEFINE_integer("shards", 4, "Training shards.", flag_values=values)


def _prepare(values: flags.FlagValues) -> None:
    config, output = _need(values, "config"), _need(values, "output")
    from ldd_jax import experiment
    from ldd_jax.core import registry
    from ldd_jax.data import prepare

    experiment.check_sections(config, "the config file")
    data = registry.build("data", config.data)
    print(prepare(data, output, shards=values.shards).describe())


def _plan_flags(values: flags.FlagValues) -> None:
    _config(values)
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_string, "topology", "", "Slice, such as v5e:4x4 or v5p:8x8x4.")
    flags.DEFINE_enum(
        "what", "train", ["train", "sample", "flops"], "What to plan.", flag_values=values
    )
    d(flags.DEFINE_integer, "per_chip", 8, "Sequences a chip.")
    d(flags.DEFINE_integer, "vocabulary", 50257, "Tokens of the vocabulary, mask not counted.")
    d(flags.DEFINE_bool, "search", False, "Find the largest batch, for each remat policy.")
    d(flags.DEFINE_string, "policies", "", "Of the search, as remat:chunks,...; default: several.")
    d(flags.DEFINE_bool, "json", False, "Print JSON.")


def _plan(values: flags.FlagValues) -> None:
    config = _need(values, "config")
    os.environ["JAX_PLATFORMS"] = "cpu"  # planning never starts an accelerator
    quiet = {  # libtpu asks for a slice's name and hosts, though none is there
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-16",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    os.environ.update({k: os.environ.get(k, v) for k, v in quiet.items()})
    from ldd_jax.planning import plan

    require(values.per_chip >= 1, f"--per_chip={values.per_chip}; it must be at least 1")
    require(values.vocabulary >= 1, f"--vocabulary={values.vocabulary}; it must be at least 1")
    require(
        values.what == "flops" or bool(values.topology),
        f"--topology is missing; --what={values.what} needs one, such as --topology=v5e:4x4",
    )
    if values.what == "flops":
        record = plan.flops(config, values.vocabulary)
    elif values.search:
        policies = plan.policies(values.policies)
        record = plan.search(config, values.vocabulary, values.topology, values.per_chip, policies)
    else:
        make = {"train": plan.train, "sample": plan.sample}[values.what]
        record = make(config, values.vocabulary, values.topology, values.per_chip)
    print(json.dumps(record, indent=2) if values.json else plan.table(record))


def _lab_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_bool("json", False, "Print JSON.", flag_values=values)
    flags.DEFINE_string("plot", "", "PNG file of KL against calls.", flag_values=values)


def _lab(values: flags.FlagValues) -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"  # float64
    from ldd_jax import generate
    from ldd_jax.evaluation import lab_report

    if values.plot:
        generate.check_output(values.plot)
    found = list(lab_report.run())
    if values.plot:
        lab_report.plot(found, Path(values.plot))
    print(
        json.dumps([m.record() for m in found], indent=1)
        if values.json
        else lab_report.table(found)
    )


COMMANDS = {
    "train": Command("train a model in a workdir, or resume it", _train_flags, _train),
    "evaluate": Command("bound the likelihood of a split", _evaluate_flags, _evaluate),
    "sample": Command("draw samples, fill gaps, continue prompts", _sample_flags, _sample),
    "bench": BENCH,
    "gen-ppl": GEN_PPL,
    "plan": Command(
        "memory, operations and time on a slice, before it is rented", _plan_flags, _plan
    ),
    "lab": Command("exact laws of all samplers on a small law", _lab_flags, _lab),
    "prepare": Command("tokenise a corpus into hashed shards", _prepare_flags, _prepare),
}


def usage() -> str:
    """What `--help` prints."""
    lines = [f"  {name:10s}{command.help}" for name, command in COMMANDS.items()]
    return (
        f"ldd_jax {__version__}\nusage: python -m ldd_jax COMMAND [--flags]; COMMAND --help lists "
        "them\n" + "\n".join(lines)
    )


def main(argv: list[str]) -> int:
    """Run a command line; returns the exit status."""
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(__version__)
        return 0
    try:
        require(argv[0] in COMMANDS, f"unknown command {argv[0]!r}; {nearest(argv[0], COMMANDS)}")
        command = COMMANDS[argv[0]]
        values = parse(argv[0], command, argv[1:])
        if values.help:
            print(describe(argv[0], command, values))
            return 0
        command.execute(values)
    except UserError as error:
        print(f"ldd_jax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ldd_jax: interrupted", file=sys.stderr)
        return 1
    return 0


def run() -> None:
    """Console entry point."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.ERROR)
    keep_freed_memory()
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.exit(status)
