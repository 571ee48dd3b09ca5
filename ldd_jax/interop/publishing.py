"""A workdir as a folder for a model hub: what an export holds, and nothing of the machine."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ml_collections import ConfigDict

from ldd_jax import __version__
from ldd_jax.config import plugins
from ldd_jax.config.experiment import Experiment
from ldd_jax.core.checks import require
from ldd_jax.core.storage import is_url
from ldd_jax.core.writing import check_new_folder
from ldd_jax.inference import loading
from ldd_jax.interop import card, exporting, retyped
from ldd_jax.planning import cost
from ldd_jax.training.metrics import SAMPLES, read_metrics

LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
UNKNOWN = "unknown"  # the hub's word
NAMES = {"own": "our own names", "reference": "the names of the LDDM, MDLM, Duo and SEDD code"}
# Fields that name a file or folder, wherever they stand.
FILES = ("path", "validation_path", "initial", "model")
DATA_SET = re.compile(r"tfds:\w+(/[\w.-]+)?(:[\d.*]+)?")


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the author says of a model, besides the facts of the run.

    license: the hub's word for it, such as apache-2.0; samples: of the last sampling in training
    that the card shows, as they may repeat the corpus; title: of the card, "" = the recipe.
    """

    license: str = ""
    samples: int = 0
    title: str = ""

    def check(self) -> None:
        """Refuse what no card holds.

        Raises:
          UserError: saying what is allowed.
        """
        bad = self.license and not LICENSE.fullmatch(self.license)
        require(not bad, f"--license={self.license}; the hub's word for it, such as apache-2.0")
        require(self.samples >= 0, f"--samples={self.samples}; it must be at least 0")


def save(workdir: Path, output: Path, choices: Choices, *, step: int | None = None) -> Path:
    """Write the folder; the parameters are the moving average, which a run evaluates.

    Args:
      workdir: of a run or an import.
      output: a new folder: model.safetensors, config.json, tokenizer, README.md.
      choices: what the author says.
      step: of the checkpoint; None = the newest.

    Raises:
      UserError: for a folder in use, or one that is no workdir.
    """
    check_new_folder(output, "output")
    choices.check()
    run, params, step = loading.load_trained(workdir, step=step)
    host = exporting.plain(run, params)
    shown = dataclasses.replace(run, config=without_folders(run.config))
    names = "own" if exporting.has_reference(run) else "reference"
    tensors = exporting.tensors_of(run, host, workdir, names=names)
    text = page(shown, workdir, choices, step=step, names=names)
    updates = card.updates(workdir, step)
    exporting.write(output, shown, tensors, text, names=names, updates=updates)
    return output


def without_folders(config: ConfigDict) -> ConfigDict:
    """The config with names of files in the place of paths, which tell of a machine.

    Args:
      config: of a run.
    """
    return ConfigDict(_bare(config.to_dict())).lock()


def _bare(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _without(name, value) for name, value in tree.items()}


def _without(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return _bare(value)
    if not isinstance(value, str) or DATA_SET.fullmatch(value):
        return value
    if name == "recipe":
        parts = [part.partition("=") for part in value.split(",")]
        return ",".join(key + equals + _last(given) for key, equals, given in parts)
    return (
        _last(value)
        if name in FILES or is_url(value) or value.startswith(("/", "~", "./", "../"))
        else value
    )


def _last(text: str) -> str:
    """The last name of a path, with the scheme before it."""
    name = text.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return "tfds:" * (text.startswith("tfds:") and not name.startswith("tfds:")) + name


def page(run: Experiment, workdir: Path, choices: Choices, *, step: int, names: str) -> str:
    """README.md: a head for the hub, the bound and whose it is, facts, how to use and to train.

    Args:
      run: with the config that is shown.
      workdir: its summary, record of import and samples are read.
      choices: what the author says.
      step: of the checkpoint.
      names: of the tensors.
    """
    title, updates = choices.title or run.config.recipe, card.updates(workdir, step)
    summary = card.measured(workdir, step)
    head: dict[str, Any] = {
        "library_name": "ldd_jax",
        "license": choices.license or UNKNOWN,
        "pipeline_tag": "text-generation",
        "tags": ["discrete-diffusion", "loopholing", "jax"],
    }
    if summary:
        head["model-index"] = [{"name": title, "results": [_result(run, summary)]}]
    rows = card.facts(run, workdir, step=step, ema=True)
    if updates:
        tokens = updates * run.training.batch_size * run.config.data.length
        rows["tokens trained on"] = f"{tokens:,}"
        operations = cost.model_operations(run, float(tokens))
        rows["training, model FLOPs"] = f"{operations:.3g} (an update is counted once)"
    for source in plugins.used(run.config):
        rows["needs a file of its author's"] = f"{card.code(source.name)}, SHA-256 {source.sha256}"
    typed = retyped.command(run.config)
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=False)}---",
        f"# {card.code(title)}",
        f"Written by ldd_jax {__version__}.",
        "## How good it is",
        _meaning(run, summary),
        "## What it is",
        card.table(rows).rstrip(),
        "## Use it",
        "```bash\npython -m ldd_jax import FOLDER --workdir=DIR\n"
        "python -m ldd_jax sample --workdir=DIR\n```",
        f"FOLDER is this folder. Tensors bear {NAMES[names]}.",
        "## Train it",
        f"```bash\n{typed}\n```" if typed else "`config.json` holds every setting.",
        "Paths are names of files here; nothing of the training text is in this folder but the "
        "tokenizer's vocabulary. Samples may repeat it.",
        *_samples(workdir, choices.samples),
    ]
    return "\n\n".join(parts) + "\n"


def _data(run: Experiment) -> str:
    return str(run.config.data.get("path") or run.config.data.name)


def _result(run: Experiment, summary: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the hub's `model-index`."""
    whose = str(summary.get("bounds") or "")
    kind = card.kind(dict(summary))
    name = f"{kind}, nats per token" + (f"; an upper bound for {whose}" if whose else "")
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": _data(run), "type": "text", "split": "validation"},
        "metrics": [
            {
                "type": "nelbo_nats_per_token",
                "value": round(summary["nelbo_nats_per_token"], 6),
                "name": name,
            }
        ],
    }


def _meaning(run: Experiment, summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return "No bound is known of this checkpoint."
    shown = card.spread(summary["nelbo_nats_per_token"], summary.get("nelbo_se"), 4)
    kind, whose = card.kind(dict(summary)), str(summary.get("bounds") or "")
    says = {
        "NLL": "The exact likelihood of the model's own left-to-right sampler.",
        "mean loss": "No bound of any sampler.",
    }
    meaning = says.get(kind, f"An upper bound for {card.code(whose)} and no other sampler.")
    return (
        f"{kind} {shown} nats a token on held-out text of {card.code(_data(run))}, "
        f"{summary['passes']} passes, {summary['tokens']} tokens. {meaning}"
    )


def _samples(workdir: Path, count: int) -> list[str]:
    """The first of the last sampling, each as code; nothing unless asked for."""
    path = workdir / SAMPLES
    drawn = read_metrics(path) if count and path.is_file() else []
    last = [r for r in drawn if r["step"] == drawn[-1]["step"] and isinstance(r.get("text"), str)]
    require(not count or bool(last), f"--samples={count}: {workdir} has no {SAMPLES}")
    return ["## Samples", *(card.code(r["text"]) for r in last[:count])] if count else []
