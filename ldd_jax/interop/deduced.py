"""The config and tokenizer of a checkpoint: from its tensors, what its file says, and the user."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ldd_jax.config import recipes, stored
from ldd_jax.config.methods import ANOTHER, methods
from ldd_jax.config.methods import method as method_of
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.registry import build, find, parse, section
from ldd_jax.data import MASK_TEXT, IdTokenizer, Tokenizer, find_tokenizer, load_tokenizer
from ldd_jax.denoisers import DiT
from ldd_jax.interop import reference
from ldd_jax.interop.choices import Choices
from ldd_jax.interop.sources import Source

LENGTH = 1024
SEDD_IDS = 50257
CONDITION_DROPOUT = 0.1


def config_and_tokenizer(
    source: Source, choices: Choices, path: Path
) -> tuple[ConfigDict, Tokenizer]:
    """The config of the run that a checkpoint is of, and its tokenizer.

    Args:
      source: the checkpoint; an export of this library brings both.
      choices: what the user says of it.
      path: where it lies.

    Raises:
      UserError: for a choice that does not fit, or one that has to be made and is not.
    """
    if source.own is not None:
        return _own_config(source, choices, path), _own_tokenizer(path, choices)
    method = _method(source, choices)
    tokenizer = _tokenizer(source, choices, method)
    return _config(source, choices.resolved(tokenizer), method, tokenizer), tokenizer


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
