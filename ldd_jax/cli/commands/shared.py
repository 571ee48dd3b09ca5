"""Flags and checks that several commands share."""

from __future__ import annotations

import os
from typing import Any

from absl import flags
from ml_collections import config_flags

from ldd_jax.core.checks import UNFINISHED, UserError, is_whole, require
from ldd_jax.core.console import OUT

# Fields of a config that may name a place in a bucket.
CONFIG_PLACES = (
    "config.data.path",
    "config.data.validation_path",
    "config.data.patches.model",
    "config.data.tokenizer.path",
    "config.data.tokenizer.model",
    "config.training.initial",
)
MET: list[Any] = []  # the company of this process's run, training.company.Company


def workdir_flag(values: flags.FlagValues, text: str) -> None:
    """--workdir."""
    flags.DEFINE_string("workdir", None, text, flag_values=values)


def sampler_flags(values: flags.FlagValues) -> None:
    """Those that say which sampler runs, and how; `--steps` aside."""
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_string, "sampler", None, "Step rule, NAME or NAME:field=value,...; see docs.")
    d(flags.DEFINE_string, "grid", None, "Time grid, as --sampler, or FILE.json of distill.")
    d(
        flags.DEFINE_string,
        "blocks",
        None,
        "whole, fill:size=32, slide:size=32, cached, dual or prefix; see docs.",
    )
    d(flags.DEFINE_float, "temperature", None, "Of p(x0 | z_t); 0 = greedy.")
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
    d(flags.DEFINE_float, "guidance", None, "Strength of the condition; 1 = none added.")
    d(flags.DEFINE_string, "tail", None, "Last call: sample, greedy or none.")
    stop_flag(values)


def stop_flag(values: flags.FlagValues) -> None:
    """--stop."""
    text = "When a row ends early: never, entropy:threshold=0.005, still or chained; see docs."
    flags.DEFINE_string("stop", None, text, flag_values=values)


def stop_of(values: flags.FlagValues) -> Any:
    """What --stop says; None = nothing.

    Raises:
      UserError: for one that does not exist, or a value that does not fit.
    """
    from ldd_jax.core import registry

    try:
        return None if values.stop is None else registry.parse("stop", values.stop)
    except ValueError as error:
        raise UserError(str(error)) from error


def config_flag(values: flags.FlagValues) -> None:
    """--config, with overrides."""
    config_flags.DEFINE_config_file(
        "config", None, "Config file, as FILE or FILE:method=...,size=...", flag_values=values
    )


def distributed_flags(values: flags.FlagValues) -> None:
    """--distributed, --start_limit and --peer_limit."""
    flags.DEFINE_string(
        "distributed",
        "",
        "Many processes: auto (Slurm, MPI, TPU pods), or COORDINATOR:PORT,COUNT,RANK.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "start_limit", 300.0, "Seconds to wait for the other processes.", flag_values=values
    )
    flags.DEFINE_float(
        "peer_limit",
        60.0,
        "Seconds after which a host that does not answer counts as gone.",
        flag_values=values,
    )


def start(values: flags.FlagValues) -> None:
    """Bring all processes together before anything of the run is looked at."""
    if not values.distributed:
        return
    from ldd_jax.training import distributed

    require(values.peer_limit >= 1, f"--peer_limit={values.peer_limit:g}; it must be at least 1")
    met = distributed.start(
        distributed.parse(values.distributed), limit=values.start_limit, silence=values.peer_limit
    )
    MET.extend([met] if met else [])


def part(status: int) -> None:
    """Tell the other processes that this one ends in good order, if it does."""
    while MET:
        company = MET.pop()
        if status in (0, UNFINISHED):
            company.bye()


def leave_if_alone() -> None:
    """End this process where an error came of another process that is gone."""
    for company in MET:
        if company.missed():
            company.leave()


def start_as_one(values: flags.FlagValues) -> None:
    """`start`; process 0 alone prints results and writes --output, the others compute with it."""
    start(values)
    from ldd_jax.training import distributed

    if values.distributed and not distributed.leader():
        OUT.silent = True
        values["output"].value = os.devnull


def on_cpu() -> None:
    """Start no accelerator; a config file has imported JAX already, which reads no variable later.

    Processes that are started from here follow.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    jax.config.update("jax_platforms", "cpu")


def reset_steps(given: str) -> list[int]:
    """--resets: whole numbers k, h = 0 before every k-th step."""
    parts = given.split(",")
    bad = [p for p in parts if not is_whole(p)]
    require(not bad, f"--resets={given}: {bad} are no whole numbers from 0 on")
    return [int(p) for p in parts]


def need(values: flags.FlagValues, name: str) -> Any:
    """The value of a flag that must be given."""
    value = getattr(values, name)
    require(value not in (None, ""), f"--{name} is missing; give --{name}=...")
    return value
