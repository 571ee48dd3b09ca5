"""Cells of a table of runs: a `train` run in FOLDER/NAME-SEED each; a stopped table resumes."""

from __future__ import annotations

import importlib.util
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ldd_jax.config import experiment as experiments
from ldd_jax.config import packaged
from ldd_jax.core import writing
from ldd_jax.planning import cost


def config_of(file: str, argument: str, **changed: Any) -> Any:
    """The config that `train --config=FILE:ARGUMENT --config.NAME=VALUE ...` begins with.

    Args:
      file: a recipe's name.
      argument: what stands behind the colon.
      changed: values by dotted names of fields.
    """
    spec = importlib.util.spec_from_file_location(f"{file}_recipe", packaged.path(file))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(argument)
    config.update_from_flattened_dict(changed)
    return config


def operations(config: Any, tokenizer: Any) -> float:
    """Of an update, as it is computed.

    Args:
      config: of a run.
      tokenizer: with the run's number of symbols.
    """
    built = experiments.build(config, tokenizer)
    return cost.step_count(built, built.training.batch_size).total


def command(*argv: str) -> list[str]:
    """A command line of this package."""
    return [sys.executable, "-m", "ldd_jax", *argv]


def finished(workdir: Path) -> bool:
    """Whether the run has come to its end."""
    return (workdir / "summary.json").is_file()


def train(workdir: Path, config: str, method: str, seed: str, flags: Sequence[str] = ()) -> dict:
    """Summary of one run, which is made or continued unless it has come to its end."""
    if not finished(workdir):
        argv = command("train", f"--config={config}:method={method}", f"--config.seed={seed}",
                       f"--workdir={workdir}", *flags)  # fmt: skip
        logged(workdir, argv)
    return json.loads((workdir / "summary.json").read_text())


def logged(workdir: Path, argv: list[str]) -> None:
    """Run a command with what it prints in NAME-SEED.log beside the workdir."""
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with workdir.with_name(f"{workdir.name}.log").open("a") as log:
        subprocess.run(argv, check=True, stdout=log, stderr=log)


def judged(workdir: Path, judge: Path | str, samples: int, steps: int) -> dict:
    """What `gen-ppl` says of samples of a run, which are made unless they are there.

    Args:
      workdir: of the run.
      judge: another run, or ngram, fitted to the run's training text.
      samples: number of them.
      steps: of the sampler.
    """
    made, output = workdir / "judged.jsonl", workdir / "judged.json"
    if not output.is_file():
        logged(workdir, command("sample", f"--workdir={workdir}", f"--num_samples={samples}",
                                f"--steps={steps}", f"--output={made}"))  # fmt: skip
        text = [f"--workdir={workdir}"] if judge == "ngram" else []
        logged(workdir, command("gen-ppl", str(made), f"--judge={judge}", *text,
                                f"--output={output}"))  # fmt: skip
    return json.loads(output.read_text().splitlines()[-1])


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds, and its standard error s / sqrt(n); NaN for one seed."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.mean(values), error


def paired(name: str, values: Sequence[float], base: str, others: Sequence[float]) -> str:
    """A line: the mean difference of two cells by seed, and its standard error.

    Args:
      name: of the first.
      values: of it, by seed.
      base: of the second.
      others: of it, for the same seeds.
    """
    mean, error = mean_and_error([a - b for a, b in zip(values, others, strict=True)])
    return f"{name} - {base}: {mean:+.4f} +- {error:.4f}"


def save_bounds(figure: Any, path: Path, **legend: Any) -> None:
    """Finish a row of panels of validation bounds, and write it whole or not at all."""
    first = figure.axes[0]
    first.set_ylabel("validation bound, nats a character")
    first.legend(**legend)
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a picture whole or not at all."""
    figure.tight_layout()
    with writing.replacing(path, binary=True) as stream:
        figure.savefig(stream, format="png")
