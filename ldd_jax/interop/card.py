"""The model card of an export: facts of the run, nothing else."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from ldd_jax import __version__
from ldd_jax.config.experiment import Experiment
from ldd_jax.config.stored import fingerprint
from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, is_number, spread
from ldd_jax.core.console import harmless

BACK = (
    "`python -m ldd_jax import FOLDER --workdir=DIR` makes a workdir that samples, evaluates and "
    "trains on; config and tokenizer are in this folder."
)
LONGEST = 300  # characters of a text that the card quotes
HOW = {
    "transformers": "Layout of transformers.",
    "own": BACK,
    "reference": f"Tensors bear the names of the LDDM, MDLM, Duo and SEDD code. {BACK}",
}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = reading.read_json(path) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def code(text: Any) -> str:
    """A text of a file as Markdown code in one line, which holds no links, tags or table cells."""
    shown = harmless(" ".join(str(text).split()))[:LONGEST] or " "
    return "`" + shown.replace("`", "'").replace("|", "\\|") + "`"


def updates(workdir: Path, step: int) -> int:
    """Updates behind the parameters: of an import's step 0 those of its source, where told."""
    before = _json(workdir / "import.json").get("updates", 0)
    return step or (before if isinstance(before, int) else 0)


@functools.lru_cache(maxsize=8)  # a trace of the network
def _channels(model: Any) -> str:
    """How wide the latent of a network is, in words."""
    shapes = jax.eval_shape(lambda key: model.bind(model.init(key)).latent(1, 1), jax.random.key(0))
    return ", ".join(f"{a.shape[-1]} channels" for a in jax.tree.leaves(shapes)) or "no"


def measured(workdir: Path, step: int) -> dict[str, Any] | None:
    """The run's last evaluation, if it is of this checkpoint and whole.

    Args:
      workdir: its summary is read.
      step: of the checkpoint.
    """
    summary = _json(workdir / "summary.json")
    # A single sequence tells no error.
    good = all(is_number(summary.get(n)) for n in ("nelbo_nats_per_token", "passes", "tokens"))
    good &= summary.get("nelbo_se") is None or is_number(summary["nelbo_se"])
    return summary if good and summary.get("step") == step else None


def kind(summary: dict[str, Any]) -> str:
    """What an evaluation is: NLL, NELBO, or a mean loss."""
    bound = "mean loss" if summary.get("bound") is False else "NELBO"
    return "NLL" if summary.get("exact") is True else bound


def facts(experiment: Experiment, workdir: Path, *, step: int, ema: bool) -> dict[str, Any]:
    """The table of the card: name and value, which is Markdown.

    Args:
      experiment: the run's.
      workdir: its summary and record of import are read.
      step: of the checkpoint.
      ema: whether the parameters are the moving average.
    """
    model: Any = experiment.model
    config, tokenizer = experiment.config, experiment.tokenizer
    rows = {
        "recipe": code(config.recipe),
        "process": config.process.name,
        "states": f"{experiment.tokens.size}, mask {experiment.tokens.mask}",
        "network": code(", ".join(f"{n} {v}" for n, v in sorted(config.model.items()))),
        "latent carried between steps": _channels(model),
        "told the time": "yes" if model.time_conditioning else "no",
        "classes": model.num_classes or "none",
        "tokenizer": f"{tokenizer.kind}, {tokenizer.size} ids, {tokenizer.digest}",
        "length": config.data.length,
        "updates": updates(workdir, step),
        "parameters": "moving average" if ema else "raw",
        "config fingerprint": fingerprint(config),
    }
    summary = measured(workdir, step) if ema else None  # the average is what a run evaluates
    if summary:
        nats, passes, tokens = (summary[n] for n in ("nelbo_nats_per_token", "passes", "tokens"))
        rows[f"validation {kind(summary)}, nats a token"] = (
            f"{spread(nats, summary.get('nelbo_se'), 4)} ({passes} passes, {tokens} tokens of "
            f"{code(config.data.get('path') or config.data.name)})"
        )
    if record := _json(workdir / "import.json"):
        source, digest = code(record.get("source")), code(record.get("sha256"))
        rows["imported from"] = f"{source}, SHA-256 {digest}"
    return rows


def table(rows: Mapping[str, Any]) -> str:
    """Rows of two cells, without a head."""
    return "| | |\n|---|---|\n" + "".join(f"| {k} | {v} |\n" for k, v in rows.items())


def text(experiment: Experiment, workdir: Path, *, step: int, ema: bool, names: str) -> str:
    """Markdown with a YAML head, as model hubs expect.

    Args:
      experiment: the run's.
      workdir: its summary and record of import are read.
      step: of the checkpoint.
      ema: whether the parameters are the moving average.
      names: of the tensors, a key of `HOW`.
    """
    rows = facts(experiment, workdir, step=step, ema=ema)
    return (
        "---\nlibrary_name: ldd_jax\ntags: [discrete-diffusion, loopholing]\n---\n"
        f"# {code(experiment.config.recipe)}\n\nWritten by ldd_jax {__version__}.\n\n"
        f"{table(rows)}\n"
        f"{HOW[names]}\n"
    )
