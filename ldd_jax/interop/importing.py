"""A checkpoint of the reference family becomes a workdir."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from ldd_jax.config import experiment as experiments
from ldd_jax.config import plugins, recipes, stored
from ldd_jax.config.methods import ANOTHER, methods
from ldd_jax.config.methods import method as method_of
from ldd_jax.core import writing
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.registry import build, find, parse, section
from ldd_jax.core.storage import local
from ldd_jax.data import MASK_TEXT, IdTokenizer, Tokenizer, find_tokenizer, load_tokenizer
from ldd_jax.denoisers import DiT, padding
from ldd_jax.interop import folders, pretrained, recorded, reference, sources
from ldd_jax.interop.sources import Source
from ldd_jax.training import sharding
from ldd_jax.training.checkpoints import Checkpoints

RECORD, BUFFERS = "import.json", "import_buffers.safetensors"
LENGTH = 1024
SEDD_IDS = 50257
CONDITION_DROPOUT = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """What tensors cannot tell; empty = as the file says, else as the method is published.

    method: a registered one; tokenizer: a file or folder, empty = ids; heads: where no
    rotary buffer tells them; mask: id of the mask, -1 = the last state, or the tokenizer's own
    [MASK]; mask_token: its name in the tokenizer instead; time: "on" or "off"; schedule: as
    NAME:field=value,...; length: tokens of a sample; data: text of `evaluate`; recording: an .npz
    of recorded outputs (`interop.recorded`).
    """

    method: str = ""
    tokenizer: str = ""
    heads: int = 0
    mask: int = -1
    mask_token: str = ""
    time: str = ""
    schedule: str = ""
    length: int = 0
    data: str = ""
    recording: str = ""

    def check(self) -> None:
        """Refuse what is wrong whatever the checkpoint holds, before it is read.

        Raises:
          UserError: for an unknown method or schedule, or a file that is not there.
        """
        if self.method:
            find("method", self.method)
        if self.schedule:
            parse("schedule", self.schedule)
        if self.tokenizer:
            find_tokenizer(self.tokenizer)
        if self.recording:
            found = Path(self.recording).is_file()
            require(found, f"cannot read the recording {self.recording}: no such file")

    def resolved(self, tokenizer: Tokenizer) -> Choices:
        """With the id of the mask in the place of its name.

        Raises:
          UserError: if the tokenizer has no such token.
        """
        if not self.mask_token:
            return self
        found = tokenizer.id_of(self.mask_token)
        require(found is not None, f"--mask={self.mask_token}: the tokenizer has no such token")
        assert found is not None
        return dataclasses.replace(self, mask=found, mask_token="")


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
    if source.own is not None:
        config, tokenizer = _own_config(source, choices, path), _own_tokenizer(path, choices)
    else:
        method = _method(source, choices)
        tokenizer = _tokenizer(source, choices, method)
        choices = choices.resolved(tokenizer)
        config = _config(source, choices, method, tokenizer)
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


def _own_config(source: Source, choices: Choices, path: Path) -> ConfigDict:
    """The config of an export, with the length and the data of the user's choice.

    Raises:
      UserError: for a choice that the config does not leave open.
    """
    config = ConfigDict(stored.as_config(source.own, f"the config in {path}").to_dict())
    fits = recipes.methods_of(config)
    require(
        choices.method in ("", *fits),
        f"method {choices.method!r}: the config in {path} says otherwise; "
        f"{nearest(choices.method, fits)}",
    )
    open_ = Choices(
        **{n: getattr(choices, n) for n in ("method", "tokenizer", "length", "data", "recording")}
    )
    fixed = [
        f"--{f.name.removesuffix('_token')}"
        for f in dataclasses.fields(choices)
        if getattr(choices, f.name) != getattr(open_, f.name)
    ]
    require(
        not fixed, f"{', '.join(fixed)}: the config in {path} tells it; edit the config instead"
    )
    for name, value in (("length", choices.length), ("path", choices.data)):
        if value:
            require(name in config.data, f"the data of {path} have no {name} to change")
            config.data[name] = value
    return config.lock()


def _method(source: Source, choices: Choices) -> str:
    """The method given or said, if the tensors allow it."""
    sizes = reference.sizes(source.tensors, heads=choices.heads or source.said.get("heads", 0))
    method = choices.method or source.said.get("method") or ("ar" if sizes["causal"] else "")
    if not method and source.said.get("code") == "sedd":
        method = _graph(reference.states(source.tensors), choices)
    fits = [
        n
        for n, m in methods().items()
        if m.model.registered == DiT.registered  # type: ignore[attr-defined]
        and not m.process.points
        and m.latent == sizes["latent"]
        and m.network.get("causal", False) == sizes["causal"]
        and not ANOTHER & m.network.keys()
    ]
    require(
        bool(method),
        f"the file does not say what process it was trained for; give --method; allowed: "
        f"{', '.join(fits)}",
    )
    if method not in fits:
        kind = "causal" if sizes["causal"] else "bidirectional"
        latent = "with" if sizes["latent"] else "without"
        raise UserError(
            f"method {method!r} does not fit a {kind} network {latent} a latent "
            f"(layer_norm.weight); {nearest(method, fits)}"
        )
    return method


def _graph(states: int, choices: Choices) -> str:
    """SEDD's graph by the number of states: only the absorbing one has a state beyond the ids.

    Its code has GPT-2's ids and no others.
    """
    ids = find_tokenizer(choices.tokenizer).size if choices.tokenizer else SEDD_IDS
    method = {ids: "sedd_uniform", ids + 1: "sedd"}.get(states, "")
    require(
        bool(method),
        f"this is a checkpoint of SEDD without its Hydra config, and {states} states are neither "
        f"{ids} ids nor one more; give --method; allowed: sedd, sedd_uniform",
    )
    return method


def _tokenizer(source: Source, choices: Choices, method: str) -> Tokenizer:
    """The user's, or one of ids, of which the mask is none if it is the last state."""
    if choices.tokenizer:
        return find_tokenizer(choices.tokenizer)
    states = reference.states(source.tensors)
    _, mask = method_of(method).process.token_space_size(states - 1)
    last = mask is not None and choices.mask in (-1, states - 1)
    return IdTokenizer(states - 1 if last else states)


def _own_tokenizer(path: Path, choices: Choices) -> Tokenizer:
    if choices.tokenizer:
        return find_tokenizer(choices.tokenizer)
    folder = (path if path.is_dir() else path.parent) / "tokenizer"
    return load_tokenizer(folder)


def _config(source: Source, choices: Choices, method: str, tokenizer: Tokenizer) -> ConfigDict:
    said = source.said
    sizes = reference.sizes(source.tensors, heads=choices.heads or said.get("heads", 0))
    network = sizes | ({} if sizes["adaln"] else {"time_conditioning": False})
    if sizes["adaln"] and (choices.time or "time_conditioning" in said):
        network["time_conditioning"] = (
            choices.time == "on" if choices.time else said["time_conditioning"]
        )
    data: dict[str, Any] = {
        "length": choices.length or said.get("length") or LENGTH,
        "eos": tokenizer.eos is not None,
        "tokenizer": section(find("tokenizer", tokenizer.kind)),
    }
    if choices.data:
        data["path"] = choices.data
    config = recipes.make(
        {"method": method, "size": "tiny"},
        data=data,
        model=network,
        process=_process(source, choices, method, tokenizer),
        objective=_objective(said, sizes),
    )
    with config.unlocked():
        config.recipe = f"import,method={method}"
    return config


def _objective(said: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """Where the file tells, the finite T and how often the class was dropped in training.

    A table of classes has one more entry, for none: such a network was trained to be guided.
    """
    found: dict[str, Any] = {}
    if said.get("steps", 0) > 0:
        found["times"] = section(find("times", "grid"), steps=said["steps"])
    if sizes.get("num_classes"):
        found["condition_dropout"] = said.get("condition_dropout", CONDITION_DROPOUT)
    return found


def _process(source: Source, choices: Choices, method: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """States and mask of the process, where they are not the tokenizer's ids and one more."""
    states = reference.states(source.tensors)
    kind: Any = method_of(method).process
    usual, mask = kind.token_space_size(tokenizer.size)
    require(
        states >= tokenizer.size,
        f"the checkpoint has {states} token states, the tokenizer {tokenizer.size} ids; it belongs "
        "to another tokenizer",
    )
    found: dict[str, Any] = {} if states == usual else {"states": states}
    timed = "schedule" in {f.name for f in dataclasses.fields(kind)}
    if choices.schedule:
        found["schedule"] = section(parse("schedule", choices.schedule))
    elif timed and "schedule" in source.said:
        found["schedule"] = section(build("schedule", source.said["schedule"]))
    if mask is not None and choices.mask >= 0:
        found |= {"states": states, "mask": choices.mask}
    elif mask is not None and states == tokenizer.size:
        own = tokenizer.id_of(MASK_TEXT)
        require(
            own is not None,
            f"the checkpoint has as many token states as the tokenizer has ids ({states}), and the "
            f"tokenizer has no {MASK_TEXT}; give --mask=ID",
        )
        found["mask"] = own
    elif mask is not None and states > usual:
        raise UserError(
            f"the checkpoint has {states} token states, the tokenizer {tokenizer.size} ids: the "
            "mask may be any of the others; give --mask=ID"
        )
    begin = tokenizer.eos if tokenizer.bos is None else tokenizer.bos
    if "begin" in {f.name for f in dataclasses.fields(kind)} and begin is not None:
        found["begin"] = begin
    return found


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
