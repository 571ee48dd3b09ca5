"""The model card of an export: facts of the run, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldd_jax import __version__
from ldd_jax.core.checks import parse_json
from ldd_jax.experiment import Experiment, fingerprint

BACK = (
    "`python -m ldd_jax import FOLDER --workdir=DIR` makes a workdir that samples, evaluates and "
    "trains on; config and tokenizer are in this folder."
)
HOW = {
    "own": BACK,
    "reference": f"Tensors bear the names of the LDDM, MDLM, Duo and SEDD code. {BACK}",
}


def _json(path: Path) -> dict[str, Any]:
    return parse_json(path.read_text()) if path.is_file() else {}


def updates(workdir: Path, step: int) -> int:
    """Updates behind the parameters: of an import's step 0 those of its source, where told."""
    before = _json(workdir / "import.json").get("updates", 0)
    return step or (before if isinstance(before, int) else 0)


def text(experiment: Experiment, workdir: Path, *, step: int, ema: bool, names: str) -> str:
    """Markdown with a YAML head, as model hubs expect."""
    model: Any = experiment.model
    config, tokenizer = experiment.config, experiment.tokenizer
    rows = {
        "recipe": config.recipe,
        "process": config.process.name,
        "states": f"{experiment.tokens.size}, mask {experiment.tokens.mask}",
        "network": f"width {model.width}, depth {model.depth}, heads {model.heads}"
        + (", causal" if model.causal else ""),
        "latent carried between steps": f"{model.latent_size} channels" if model.latent else "no",
        "told the time": "yes" if model.time_conditioning else "no",
        "classes": model.num_classes or "none",
        "tokenizer": f"{tokenizer.kind}, {tokenizer.size} ids, {tokenizer.digest}",
        "length": config.data.length,
        "updates": updates(workdir, step),
        "parameters": "moving average" if ema else "raw",
        "config fingerprint": fingerprint(config),
    }
    summary, record = _json(workdir / "summary.json"), _json(workdir / "import.json")
    if summary.get("step") == step:
        name = "NLL" if summary["exact"] else "NELBO"
        rows[f"validation {name}, nats a token"] = (
            f"{summary['nelbo_nats_per_token']:.4f} +- {summary['nelbo_se']:.4f} "
            f"({summary['passes']} passes, {summary['tokens']} tokens of {config.data.path})"
        )
    if record:
        rows["imported from"] = f"{record['source']}, SHA-256 {record['sha256']}"
    table = "\n".join(f"| {k} | {v} |" for k, v in rows.items())
    return (
        "---\nlibrary_name: ldd_jax\ntags: [discrete-diffusion, loopholing]\n---\n"
        f"# {config.recipe}\n\nWritten by ldd_jax {__version__}.\n\n| | |\n|---|---|\n{table}\n\n"
        f"{HOW[names]}\n"
    )
