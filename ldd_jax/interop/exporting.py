"""Parameters of a workdir as safetensors, with a card that says what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from ldd_jax.config import stored
from ldd_jax.config.experiment import Experiment
from ldd_jax.core import reading, writing
from ldd_jax.core.checks import UserError, parse_json, require
from ldd_jax.core.storage import local
from ldd_jax.denoisers import DiT, padding
from ldd_jax.inference import loading
from ldd_jax.interop import card, reference, to_transformers
from ldd_jax.interop.importing import BUFFERS, RECORD
from ldd_jax.interop.sources import FORMAT, UPDATES

NAMES = ("reference", "own", "transformers")


def save(
    workdir: Path,
    output: Path,
    *,
    names: str = "reference",
    prefix: str = "",
    ema: bool = True,
    step: int | None = None,
) -> dict[str, int]:
    """Write the folder `output`: model.safetensors, README.md, config.json and the tokenizer.

    Args:
      workdir: of a run or an import.
      output: a new folder.
      names: "reference" (LDDM, MDLM, Duo, SEDD) or "own", which `import` reads back whole, or
        "transformers", a folder that AutoModelForCausalLM loads.
      prefix: before every name of the reference, such as "backbone." for Lightning and Hugging
        Face models.
      ema: averaged parameters.
      step: None = the newest.

    Returns:
      Numbers of tensors and parameters.

    Raises:
      UserError: for a folder in use, or a network that has no reference.
    """
    writing.check_new_folder(output, "output")
    require(not prefix or names == "reference", "--prefix belongs to --names=reference")
    experiment, params, step = loading.load_trained(workdir, ema=ema, step=step)
    host = plain(experiment, params)
    if names == "transformers":
        return _transformers(experiment, host, workdir, output, step=step, ema=ema)
    tensors = tensors_of(experiment, host, workdir, names=names, prefix=prefix)
    text = card.text(experiment, workdir, step=step, ema=ema, names=names)
    write(output, experiment, tensors, text, names=names, updates=card.updates(workdir, step))
    return {"tensors": len(tensors), "parameters": sum(a.size for a in jax.tree.leaves(host))}


def plain(experiment: Experiment, params: Any) -> Any:
    """Parameters on the host, without the zeros behind the vocabulary.

    Args:
      experiment: of a workdir.
      params: its parameters.
    """
    axes = experiment.model.axes()
    return padding.without(jax.device_get(params), axes, experiment.tokens.size)


def has_reference(experiment: Experiment) -> str:
    """Why the references' code knows no such network; "" = it does."""
    if not isinstance(experiment.model, DiT):
        return f"the reference knows no network {experiment.config.model.name!r}"
    model = experiment.model
    if model.torus:
        return "the reference knows no positions on a torus"
    if model.carry.soft or model.carry_at != "all" or model.loops > 1:
        return (
            "the reference carries h to all positions and goes through its blocks once, unlike "
            "this network (model.carry, carry_at, loops)"
        )
    return ""


def tensors_of(
    experiment: Experiment, host: Any, workdir: Path, *, names: str, prefix: str = ""
) -> dict[str, np.ndarray]:
    """Tensors under the reference's names or our own.

    Args:
      experiment: of the workdir.
      host: its parameters, on the host.
      workdir: where an import keeps what is no parameter.
      names: "reference" or "own".
      prefix: before every name of the reference.

    Raises:
      UserError: for a network that has no reference.
    """
    if names == "own":
        return reference.to_own(host)
    why = has_reference(experiment)
    require(not why, f"{why}; give --names=own")
    tensors = _as_stored(reference.to_reference(host), workdir, experiment.model)
    return {prefix + n: a for n, a in tensors.items()}


def write(
    output: Path,
    experiment: Experiment,
    tensors: dict[str, np.ndarray],
    text: str,
    *,
    names: str,
    updates: int,
) -> None:
    """The folder that `import` reads back whole, or nothing.

    Args:
      output: a new folder.
      experiment: its config and tokenizer are written.
      tensors: of `tensors_of`.
      text: of README.md.
      names: as for `tensors_of`.
      updates: of training.

    Raises:
      UserError: if it cannot be written.
    """
    metadata = {"format": "pt", UPDATES: str(updates)}
    if names == "own":
        metadata |= {"format": FORMAT, "config": json.dumps(experiment.config.to_dict())}
    try:
        with writing.new_folder(output) as draft:
            save_file(tensors, draft / "model.safetensors", metadata)
            writing.write(draft / "README.md", text)
            experiment.tokenizer.save(draft / "tokenizer")
            stored.save_config(experiment.config, draft)
    except OSError as error:
        raise UserError(f"cannot write --output={output}: {error.strerror or error}") from error


def _transformers(
    experiment: Experiment, host: Any, workdir: Path, output: Path, *, step: int, ema: bool
) -> dict[str, int]:
    """`save` in the layout of transformers, shape and names of the import that it began with."""
    record = to_transformers.record_of(workdir, RECORD)
    config, tensors, own = to_transformers.layout(experiment, host, record)
    text = card.text(experiment, workdir, step=step, ema=ema, names="transformers")
    text += to_transformers.how(experiment, record) + "\n"
    try:
        with writing.new_folder(output) as draft:
            save_file(tensors, draft / "model.safetensors", {"format": "pt"})
            if own:
                save_file(own, draft / to_transformers.LATENT, {"format": FORMAT})
            writing.write(draft / "config.json", json.dumps(config, indent=2) + "\n")
            writing.write(draft / "README.md", text)
            for name, data in experiment.tokenizer.shared().items():
                writing.write(draft / name, data)
    except OSError as error:
        raise UserError(f"cannot write --output={output}: {error.strerror or error}") from error
    return {"tensors": len(tensors), "parameters": sum(a.size for a in tensors.values())}


def _as_stored(tensors: dict[str, np.ndarray], workdir: Path, model: Any) -> dict[str, np.ndarray]:
    """With the references' buffer; of an import with its own and in its types, byte for byte."""
    file = workdir / RECORD
    record: dict[str, Any] = (
        parse_json(reading.read_text(file)) if file.is_file() else {"own_names": True}
    )
    if record.get("own_names"):
        return tensors | {reference.ROTARY: reference.rotary(model.width, model.heads)}
    if (workdir / BUFFERS).is_file():
        tensors = tensors | load_file(local(workdir / BUFFERS))
    return {n: a.astype(np.dtype(_dtype(record, n))) for n, a in tensors.items()}


def _dtype(record: dict[str, Any], name: str) -> Any:
    import ml_dtypes  # noqa: F401  (gives numpy the name bfloat16)

    return record["dtypes"].get(name, "float32")
