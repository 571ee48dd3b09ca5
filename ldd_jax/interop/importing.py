"""A checkpoint of the reference family becomes a workdir."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from ldd_jax.config import experiment as experiments
from ldd_jax.config import plugins, stored
from ldd_jax.core import writing
from ldd_jax.core.checks import UserError
from ldd_jax.core.storage import local
from ldd_jax.denoisers import padding
from ldd_jax.interop import deduced, folders, pretrained, recorded, reference, sources
from ldd_jax.interop.choices import Choices
from ldd_jax.training import sharding
from ldd_jax.training.checkpoints import Checkpoints

RECORD, BUFFERS = "import.json", "import_buffers.safetensors"


def load(path: Path, workdir: Path, choices: Choices) -> dict[str, Any]:
    """Write `workdir` from the checkpoint at `path`; returns the record kept in import.json.

    Args:
      path: the checkpoint, a file or a folder.
      workdir: a folder that is not there yet.
      choices: what the user says of it, and what the file does not tell.

    Raises:
      UserError: whatever does not fit, before anything is written.
    """
    writing.check_new_folder(workdir, "workdir")
    choices.check()
    path = local(path)
    if folders.is_published(path):
        found = pretrained.read(path, choices)
        _write(workdir, found.experiment, found.params, None, {}, found.record)
        return found.record
    source = sources.read(path)
    config, tokenizer = deduced.config_and_tokenizer(source, choices, path)
    experiment = experiments.build(config, tokenizer, experiments.fitting_mesh(config))
    model: Any = experiment.model
    shapes = padding.plain_shapes(model)
    convert = reference.from_own if source.own_names else reference.from_reference
    raw = convert(source.tensors, shapes)
    averaged = None if source.averaged is None else convert(source.averaged, shapes)
    buffers = {n: source.tensors[n] for n in reference.BUFFERS if n in source.tensors}
    record = {
        "source": path.name,
        "sha256": _digest(path),
        "tensors": len(source.tensors),
        "prefix": source.prefix,
        "dtypes": {n: str(a.dtype) for n, a in source.tensors.items()},
        "averaged": averaged is not None,
        "parameters": sum(a.size for a in jax.tree.leaves(raw)),
        "said_by_file": source.said,
        "round_trip": round_trip(source.tensors, raw, buffers, own=source.own_names),
        "own_names": source.own_names,
        "step": 0,
        "updates": source.updates,
    }
    params = raw if averaged is None else averaged
    if choices.recording:
        whole = jax.eval_shape(model.init, jax.random.key(0))
        on_device = padding.within(params, model.axes(), whole)
        record["recorded"] = recorded.compare(model, on_device, choices.recording)
    _write(workdir, experiment, raw, averaged, buffers, record)
    return record


def round_trip(
    tensors: dict[str, np.ndarray], params: Any, buffers: dict[str, np.ndarray], *, own: bool
) -> dict[str, int]:
    """How many tensors an export of these parameters would give back byte for byte.

    Args:
      tensors: as they were read.
      params: made of them.
      buffers: tensors that are no parameters.
      own: whether the names are ours, not the reference's.
    """
    again = (reference.to_own if own else reference.to_reference)(params) | buffers
    same = sum(
        again[n].astype(a.dtype).tobytes() == np.ascontiguousarray(a).tobytes()
        for n, a in tensors.items()
    )
    return {"identical_tensors": same, "tensors": len(tensors)}


def _digest(path: Path) -> str:
    """SHA-256 of the checkpoint file."""
    file = path / "model.safetensors" if path.is_dir() else path
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(
    workdir: Path,
    experiment: experiments.Experiment,
    raw: Any,
    averaged: Any,
    buffers: dict[str, np.ndarray],
    record: dict[str, Any],
) -> None:
    """The whole workdir or none: it is made beside its place and moved there."""
    try:
        with writing.new_folder(workdir) as draft:
            plugins.record(draft, experiment.config, workdir)
            stored.save_config(experiment.config, draft)
            experiment.tokenizer.save(draft / "tokenizer")
            if buffers:
                save_file({n: np.ascontiguousarray(a) for n, a in buffers.items()}, draft / BUFFERS)
            writing.write(draft / RECORD, json.dumps(record, indent=1) + "\n")
            placed = sharding.parameters(experiment.mesh, experiment.model.axes())
            checkpoints = Checkpoints(draft, keep=1)
            meta = {
                "step": 0,
                "config": experiment.config.to_dict(),
                "tokenizer": experiment.tokenizer.digest,
                "imported": record["sha256"],
            }
            whole, axes = experiment.abstract().params, experiment.model.axes()
            place = lambda tree: jax.device_put(padding.within(tree, axes, whole), placed)
            ema = None if averaged is None else place(averaged)
            checkpoints.save_parameters(0, place(raw), ema, meta)
            checkpoints.close()
    except OSError as error:
        raise UserError(f"cannot write --workdir={workdir}: {error.strerror or error}") from error
