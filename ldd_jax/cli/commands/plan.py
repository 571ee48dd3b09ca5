"""The `plan` and `lab` commands: what is known before anything is run."""

from __future__ import annotations

import json
import os
from typing import Any

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import CONFIG_PLACES, config_flag, need, on_cpu
from ldd_jax.core.checks import UserError, require
from ldd_jax.core.console import say

# GPT-2's, which most published recipes use.
ASSUMED = 50257


def _plan_flags(values: flags.FlagValues) -> None:
    config_flag(values)
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_string, "topology", "", "Slice, such as v5e:4x4 or v5p:8x8x4.")
    flags.DEFINE_enum(
        "what",
        "train",
        ["train", "sample", "flops", "parameters"],
        "What to plan.",
        flag_values=values,
    )
    d(flags.DEFINE_integer, "per_chip", 8, "Sequences a chip.")
    d(
        flags.DEFINE_integer,
        "vocabulary",
        None,
        "Tokens of the vocabulary, mask not counted; default: the most that the config's tokenizer "
        f"may have, or {ASSUMED} where its file is not there.",
    )
    d(flags.DEFINE_bool, "search", False, "Find the largest batch, for each remat policy.")
    d(flags.DEFINE_string, "policies", "", "Of the search, as remat:chunks,...; default: several.")
    d(flags.DEFINE_bool, "json", False, "Print JSON.")


def _plan(values: flags.FlagValues) -> None:
    config = need(values, "config")
    on_cpu()  # planning never starts an accelerator
    quiet = {  # libtpu asks for a slice's name and hosts, though none is there
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-16",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    os.environ.update({k: os.environ.get(k, v) for k, v in quiet.items()})
    from ldd_jax.planning import fitting, plan, search

    require(values.per_chip >= 1, f"--per_chip={values.per_chip}; it must be at least 1")
    given = values.vocabulary
    require(given is None or given >= 1, f"--vocabulary={given}; it must be at least 1")
    require(
        values.what in ("flops", "parameters") or bool(values.topology),
        f"--topology is missing; --what={values.what} needs one, such as --topology=v5e:4x4",
    )
    size, source = (given, "given") if given else vocabulary(config)
    if values.what == "parameters":
        text = plan.parameters(config, size)
        say(json.dumps({"parameters": text.splitlines()}, indent=2) if values.json else text)
        return
    if values.what == "flops":
        record = plan.flops(config, size)
    elif values.search:
        policies = search.policies(values.policies)
        record = search.search(config, size, values.topology, values.per_chip, policies)
    else:
        make = {"train": plan.train, "sample": plan.sample}[values.what]
        record = make(config, size, values.topology, values.per_chip)
    record = {"vocabulary": size, "vocabulary_from": source} | record
    say(json.dumps(record, indent=2) if values.json else plan.table(record))
    why = fitting.unfit(record)
    require(not why, why)


def vocabulary(config: Any) -> tuple[int, str]:
    """Ids of the config's tokenizer, and where the number comes from; no data is read."""
    from ldd_jax.config import experiment  # noqa: F401  (its components register)
    from ldd_jax.core import registry

    try:
        most = registry.build("data", config.data).most_ids()
    except UserError as error:
        return ASSUMED, f"assumed, give --vocabulary: {error}"
    return most, "the most that the config's tokenizer may have"


def _lab_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_enum(
        "law",
        "toy",
        ["toy", "chain"],
        "toy: two letters in three places, exact laws; chain: 64 places, samples.",
        flag_values=values,
    )
    flags.DEFINE_bool("json", False, "Print JSON.", flag_values=values)
    flags.DEFINE_string("plot", "", "PNG file of KL against calls.", flag_values=values)


def _lab(values: flags.FlagValues) -> None:
    on_cpu()  # float64
    from ldd_jax.core import compilation, outputs
    from ldd_jax.oracle import chain, report

    require(not values.plot or values.law == "toy", "--plot shows the exact laws of --law=toy")
    compilation.apply()
    plot = outputs.place(values.plot, flag="plot") if values.plot else None
    if values.law == "chain":
        rules = ((case.name, case.step) for case in report.LONG)
        samples = list(chain.Bench().run(rules))
        records = [m.record() for m in samples]
        say(json.dumps(records, indent=1) if values.json else chain.table(samples))
        return
    found = list(report.run())
    if plot:
        report.plot(found, plot)
    say(json.dumps([m.record() for m in found], indent=1) if values.json else report.table(found))


PLAN = Command(
    "memory, operations and time on a slice, before it is rented",
    _plan_flags,
    _plan,
    buckets=CONFIG_PLACES,
)
LAB = Command("exact laws of all samplers on a small law", _lab_flags, _lab, plugins=False)
