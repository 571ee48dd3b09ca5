"""The `train`, `replay` and `prepare` commands; what they run is imported when they run."""

from __future__ import annotations

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import (
    CONFIG_PLACES,
    config_flag,
    distributed_flags,
    need,
    start,
    workdir_flag,
)
from ldd_jax.core.checks import Unfinished, require
from ldd_jax.core.console import say
from ldd_jax.core.storage import at


def _train_flags(values: flags.FlagValues) -> None:
    config_flag(values)
    workdir_flag(values, "Folder of the run; running again with the same config resumes it.")
    flags.DEFINE_integer(
        "profile", 0, "Trace so many steps, the third on, in WORKDIR/profile.", flag_values=values
    )
    flags.DEFINE_float(
        "stall_limit",
        30.0,
        "Minutes without progress until each process says where it stands; 0 = never.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "stall_exit", False, "End the process then, with exit status 75.", flag_values=values
    )
    distributed_flags(values)


def _train(values: flags.FlagValues) -> None:
    config, workdir = need(values, "config"), need(values, "workdir")
    require(values.profile >= 0, f"--profile={values.profile}; it must be 0 (off) or more")
    start(values)
    from ldd_jax.config import stored
    from ldd_jax.runs import train
    from ldd_jax.runs.stalls import Stalls

    stored.check_sections(config, "the config file")
    stalls = Stalls(values.stall_limit, values.stall_exit)
    if train.train(config, at(workdir), values.profile, stalls).get("stopped"):
        raise Unfinished


def _replay_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "Folder of the run.")
    flags.DEFINE_integer("step", None, "The skipped update.", flag_values=values)


def _replay(values: flags.FlagValues) -> None:
    workdir, step = at(need(values, "workdir")), need(values, "step")
    from ldd_jax.runs import replay

    say(replay.describe(replay.replay(workdir, step)))


def _prepare_flags(values: flags.FlagValues) -> None:
    config_flag(values)
    flags.DEFINE_string("output", None, "New folder for the shards.", flag_values=values)
    flags.DEFINE_integer("shards", 4, "Training shards.", flag_values=values)
    flags.DEFINE_enum(
        "engine",
        "local",
        ["local", "beam"],
        "Who encodes: all cores here, or a pipeline of Apache Beam (extra beam).",
        flag_values=values,
    )
    flags.DEFINE_string(
        "beam_options", "", "Of Beam, such as '--runner=DataflowRunner ...'.", flag_values=values
    )


def _prepare(values: flags.FlagValues) -> None:
    config, output = need(values, "config"), need(values, "output")
    from ldd_jax.config import stored
    from ldd_jax.core import registry
    from ldd_jax.data import prepare
    from ldd_jax.inference import entropies

    stored.check_sections(config, "the config file")
    data = registry.build("data", config.data)
    data.check()
    data.most_ids()  # reads the tokenizer's file, if it has one
    told = entropies.of(data) if "patches" in config.data else None
    how = dict(shards=values.shards, engine=values.engine, options=values.beam_options)
    say(prepare(data, output, entropies=told, **how).describe())


TRAIN = Command(
    "train a model in a workdir, or resume it",
    _train_flags,
    _train,
    buckets=("workdir", *CONFIG_PLACES),
)
REPLAY = Command(
    "run a skipped update again and say what is not finite",
    _replay_flags,
    _replay,
    buckets=("workdir",),
)
PREPARE = Command(
    "tokenise a corpus into hashed shards",
    _prepare_flags,
    _prepare,
    buckets=("output", *CONFIG_PLACES),
)
