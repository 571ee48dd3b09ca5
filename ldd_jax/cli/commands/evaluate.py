"""The `evaluate` command."""

from __future__ import annotations

import itertools
from typing import Any

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import (
    distributed_flags,
    need,
    sampler_flags,
    start_as_one,
    workdir_flag,
)
from ldd_jax.core.checks import is_whole, nearest, require
from ldd_jax.core.console import say
from ldd_jax.core.storage import at


def _evaluate_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "Folder of a trained run.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_string, "split", "validation", "train or validation.")
    d(flags.DEFINE_string, "passes", "", "Network passes per bound, such as 1,2; default: config.")
    d(flags.DEFINE_integer, "draws", None, "Times drawn per sequence; default: the config's.")
    text = "Rows scored at most, spread over the split; 0: all; default: the config's."
    d(flags.DEFINE_integer, "max_sequences", None, text)
    text = "Instead of --passes: carried, the bound of the sampler that the flags below describe."
    d(flags.DEFINE_string, "bound", "", text)
    d(flags.DEFINE_integer, "trajectories", None, "Paths of --bound=carried per row; default: 4.")
    d(
        flags.DEFINE_string,
        "steps",
        None,
        "Of --bound=carried, such as 4,16; default: config.",
    )
    sampler_flags(values)
    d(flags.DEFINE_string, "estimator", "nelbo", "nelbo, k_form, time_free, lambda; or several.")
    d(flags.DEFINE_integer, "prompt_tokens", 0, "First tokens of each row, given and not scored.")
    d(flags.DEFINE_integer, "step", None, "Checkpoint; default: the newest.")
    d(flags.DEFINE_bool, "ema", True, "Averaged parameters.")
    d(flags.DEFINE_string, "output", "", "JSON lines file to write as well.")
    d(flags.DEFINE_string, "data", "", "Another text than the run's, as data.path; scored whole.")
    d(flags.DEFINE_string, "data_split", "", "Its documents: file, line or paragraph.")
    d(flags.DEFINE_string, "data_field", "", "JSON key or column that holds its text.")
    d(flags.DEFINE_string, "zero_shot", "", "Manifest of data sets to score instead; see docs.")
    distributed_flags(values)


def _evaluate(values: flags.FlagValues) -> None:
    workdir = at(need(values, "workdir"))
    start_as_one(values)
    from ldd_jax.config.experiment import name_files
    from ldd_jax.config.stored import fingerprint
    from ldd_jax.core import outputs, registry
    from ldd_jax.data import Corpus, zero_shot
    from ldd_jax.inference import json_lines, loading

    warn = lambda text: say(text, error=True)
    draws = values.draws
    require(draws is None or draws >= 1, f"--draws={draws}; it must be at least 1")
    output = outputs.place(values.output) if values.output else None
    require(
        values.max_sequences is None or values.max_sequences >= 0,
        f"--max_sequences={values.max_sequences}; it must be 0 (all) or more",
    )
    require(
        not values.zero_shot or not (values.data or values.data_split or values.data_field),
        "--zero_shot names its own data; --data, --data_split and --data_field do not apply",
    )
    datasets = zero_shot.read_manifest(at(values.zero_shot)) if values.zero_shot else []
    experiment, params, step = loading.load_trained(workdir, ema=values.ema, step=values.step)
    passes = [experiment.evaluation.passes]
    if values.passes:
        parts = values.passes.split(",")
        bad = [p for p in parts if not is_whole(p, 1)]
        require(not bad, f"--passes={values.passes}: {bad} are not positive whole numbers")
        passes = [int(p) for p in parts]
    require(
        experiment.model.latent or max(passes) == 1,
        f"--passes={max(passes)}: this network takes no latent, so it has one pass",
    )
    length = experiment.config.data.length
    require(
        0 <= values.prompt_tokens < length,
        f"--prompt_tokens={values.prompt_tokens}; rows have {length} tokens",
    )
    splits = ("train", "validation")
    require(values.split in splits, f"split {values.split!r}; {nearest(values.split, splits)}")
    asked = _asked(values)
    if values.bound:
        score = _carried(values, experiment.of_tokens, asked, warn)
    else:
        score = _passes(values, experiment, passes, draws, warn)
    told: list[tuple[Corpus, dict[str, Any]]] = []
    if datasets:
        for dataset in datasets:
            corpus = dataset.load(experiment.tokenizer, length)
            told.append(
                (corpus, dataset.record(corpus) | {"config": fingerprint(experiment.config)})
            )
    else:
        data = experiment.config.data.to_dict()
        if values.data:
            own = registry.find("data", data["name"]).of_path  # type: ignore[attr-defined]
            data |= {**own, "path": values.data}
        reading = {"split": values.data_split, "field": values.data_field}
        data |= {k: v for k, v in reading.items() if v}
        name_files(data)
        chosen = registry.build("data", data)
        read = chosen.whole if values.data else chosen.load
        told = [
            (
                read(experiment.tokenizer),
                {"split": values.split, "data": data.get("path", data["name"])},
            )
        ]
    say(f"checkpoint {step}, {'averaged' if values.ema else 'raw'} parameters")
    records = []
    for corpus, about in told:
        said = [_about(about), *corpus.warnings()] if datasets else [corpus.describe()]
        say(*said)
        for found in score(corpus, params):
            say(f"{found}\n  {found.meaning}")
            records.append(found.record() | about | {"step": step})
    if output:
        json_lines.write(output, records)


def _asked(values: flags.FlagValues) -> dict[str, Any]:
    """What is said of the sampler, for its own bound only.

    Raises:
      UserError: where flags of one kind of bound are given with the other.
    """
    from ldd_jax.inference.settings import HOW

    asked = {n: getattr(values, n) for n in HOW if n in values and values[n].present}
    bounds = ("carried",)
    require(
        not values.bound or values.bound in bounds,
        f"--bound={values.bound}: {nearest(values.bound, bounds)}",
    )
    if values.bound:
        others = [n for n in ("passes", "draws", "estimator") if values[n].present]
        require(
            not others,
            f"--{others[0] if others else ''} does not go with --bound=carried; it takes --steps "
            "and --trajectories",
        )
        m = values.trajectories
        require(m is None or m >= 1, f"--trajectories={m}; it must be at least 1")
        return asked
    more = [*asked, *(["trajectories"] if values.trajectories is not None else [])]
    require(not more, f"--{more[0] if more else ''} is about a sampler; add --bound=carried")
    return {}


def _passes(values: flags.FlagValues, experiment: Any, passes: Any, draws: Any, warn: Any) -> Any:
    """(corpus, params) -> the bounds of so many passes, one after the other."""
    from ldd_jax.inference import evaluate
    from ldd_jax.training import metrics

    evaluate.check_prompt(experiment, values.prompt_tokens)
    asked = list(itertools.product(passes, values.estimator.split(",")))
    compiled = {(k, name): evaluate.program(experiment, k, name) for k, name in asked}

    def score(corpus: Any, params: Any) -> Any:
        for k, estimator in asked:
            yield evaluate.evaluate_split(
                experiment,
                corpus,
                params,
                split=values.split,
                passes=k,
                draws=draws,
                estimator=estimator,
                prompt=values.prompt_tokens,
                sequences=values.max_sequences,
                compiled=compiled,
                report=metrics.Ticker(f"{estimator}, passes {k}", warn),
            )

    return score


def _carried(values: flags.FlagValues, experiment: Any, asked: Any, warn: Any) -> Any:
    """(corpus, params) -> the bound of the sampler's own."""
    from ldd_jax.inference import carried, own_law
    from ldd_jax.training import metrics

    steps: list[int | None] = [None]
    if asked.get("steps") is not None:
        parts = asked["steps"].split(",")
        bad = [p for p in parts if not is_whole(p, 1)]
        require(not bad, f"--steps={asked['steps']}: {bad} are not positive whole numbers")
        steps = [int(p) for p in parts]
    some = [own_law.settings(experiment, **(asked | {"steps": n})) for n in steps]
    run = carried.program(experiment, some[0])  # of any number of steps

    def score(corpus: Any, params: Any) -> Any:
        for sampling in some:
            yield carried.evaluate_split(
                experiment,
                corpus,
                params,
                sampling,
                run=run,
                trajectories=values.trajectories or carried.TRAJECTORIES,
                split=values.split,
                prompt=values.prompt_tokens,
                sequences=values.max_sequences,
                report=metrics.Ticker(f"carried, {sampling.num_steps} steps", warn),
            )

    return score


def _about(about: dict[str, Any]) -> str:
    """A data set and how it was read, in a line."""
    ends = "+".join(n for n in ("bos", "eos") if about[n]) or "no bos, no eos"
    return (
        f"{about['dataset']}: {about['documents']:,} documents, {about['dropped_tokens']:,} tokens "
        f"left over; detokenizer {about['detokenizer']} {about['detokenizer_version']}, packing "
        f"{about['packing']}, {ends}, SHA-256 {about['sha256'][:16]} ({about['data_fingerprint']})"
    )


EVALUATE = Command(
    "bound the likelihood of a split",
    _evaluate_flags,
    _evaluate,
    buckets=("workdir", "output", "data", "grid"),
)
