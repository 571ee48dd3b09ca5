"""Checkpoint files of the reference family, recognised by their content, never by their name."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, parse_json, require
from ldd_jax.core.storage import at
from ldd_jax.core.tensors import LONGEST_HEADER, read_safetensors
from ldd_jax.interop.said import facts

ANCHOR = "vocab_embed.embedding"
FORMAT, UPDATES = "ldd_jax", "ldd_jax.updates"
FOLDER_FILE = "model.safetensors"
LARGEST_YAML = 1 << 20  # its reader is slow


class Source(NamedTuple):
    """What a checkpoint file holds.

    tensors: name -> array as stored, wrapper's prefix removed, buffers included, in file order.
    averaged: the same names from the list of moving averages, buffers not included; None = no list.
    said: what the file says of itself besides tensors (see `facts`).
    own: the config of a file or folder that this library wrote, else None.
    own_names: whether the tensors bear our names; else those of the references.
    updates: of training, where an export of ours says so.
    """

    tensors: dict[str, np.ndarray]
    averaged: dict[str, np.ndarray] | None
    said: dict[str, Any]
    prefix: str = ""
    own: dict[str, Any] | None = None
    own_names: bool = False
    updates: int = 0


def read(path: str | Path) -> Source:
    """Read a safetensors file, a PyTorch archive (Lightning or plain), or a folder with one.

    Raises:
      UserError: for what cannot be read, in one line.
    """
    path = at(path)
    beside: dict[str, Any] = {}
    if path.is_dir():
        inside = path / FOLDER_FILE
        require(
            inside.is_file(),
            f"{path} is a folder without {FOLDER_FILE}; give the checkpoint file",
        )
        path = inside
    if path.name == FOLDER_FILE:
        beside = _beside(path.parent / "config.json")
    try:
        with reading.opened(path) as file:
            head = file.read(16)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    require(len(head) > 8, f"{path} is no checkpoint: it has {len(head)} bytes")
    for recognise, reader in READERS:
        if recognise(head, size):
            found = reader(path)
            if found.own is None and is_own(beside):
                return found._replace(own=beside)
            return found._replace(said=facts(beside) | found.said)
    raise UserError(
        f"{path} is neither a safetensors file nor a PyTorch archive (it begins {head[:8]!r})"
    )


def _beside(path: Path) -> dict[str, Any]:
    """The config.json of a model folder, if there is one."""
    if not path.is_file():
        return {}
    try:
        found = reading.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def is_own(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of ours: a recipe and named components."""
    named = (config.get(n) for n in ("process", "objective", "model"))
    return "recipe" in config and all(isinstance(n, Mapping) and "name" in n for n in named)


def strip(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """Tensors without the prefix that a wrapper puts before every name, and that prefix.

    Raises:
      UserError: where no name, or more than one, ends in that of the token table.
    """
    prefixes = [n.removesuffix(ANCHOR) for n in tensors if n.endswith(ANCHOR)]
    if len(prefixes) != 1:
        raise UserError(
            f"{len(prefixes)} of the {len(tensors)} tensors are named ...{ANCHOR}, expected one; "
            f"this is no checkpoint of the LDDM, MDLM, UDLM, Duo or SEDD family (it has "
            f"{_few(tensors)})"
        )
    prefix = prefixes[0]
    return {n.removeprefix(prefix): a for n, a in tensors.items()}, prefix


def _few(names) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")


def _is_safetensors(head: bytes, size: int) -> bool:
    length = struct.unpack("<Q", head[:8])[0]
    return head[8:9] == b"{" and length <= min(LONGEST_HEADER, size - 8)


def _read_safetensors(path: Path) -> Source:
    tensors, metadata = read_safetensors(path)
    updates = metadata.get(UPDATES, "")
    updates = int(updates) if updates.isdecimal() and len(updates) < 16 else 0
    if metadata.get("format") == FORMAT:
        try:
            own = parse_json(metadata["config"])
        except (KeyError, ValueError) as error:
            raise UserError(f"{path} lacks the config that this library writes") from error
        require(isinstance(own, dict), f"{path} holds a config that is no table")
        return Source(tensors, None, {}, own=own, own_names=True, updates=updates)
    tensors, prefix = strip(tensors)
    return Source(tensors, None, {}, prefix, updates=updates)


def _is_torch(head: bytes, size: int) -> bool:
    del size
    return head[:4] == b"PK\x03\x04" or head[:2] in (b"\x80\x02", b"\x80\x04")


def _read_torch(path: Path) -> Source:
    from ldd_jax.interop import archive

    content = archive.load(path)
    tensors, prefix = strip(archive.state_dict(content, path))
    shadow = archive.shadow(content, path)
    averaged = None if shadow is None else by_order(tensors, shadow)
    said = facts(archive.config(content))
    if archive.is_sedd(content):
        said = {"code": "sedd"} | facts(_hydra(path)) | said
    return Source(tensors, averaged, said, prefix)


def _hydra(path: Path) -> dict[str, Any]:
    """The config that Hydra left beside SEDD's checkpoints, RUN/.hydra/config.yaml, if any."""
    import yaml

    for folder in (path.parent, path.parent.parent):
        file = folder / ".hydra" / "config.yaml"
        if file.is_file():
            try:
                found = yaml.safe_load(reading.read_text(file, LARGEST_YAML))
            except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
                raise UserError(f"{file} is not valid YAML: {error}") from error
            return found if isinstance(found, dict) else {}
    return {}


def by_order(tensors: Mapping[str, np.ndarray], shadow: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Names for a bare list of moving averages: parameters in file order, buffers not among them.

    Raises:
      UserError: listing both sides, where numbers or shapes differ.
    """
    from ldd_jax.interop.reference import BUFFERS

    names = [n for n in tensors if n not in BUFFERS]
    require(
        len(names) == len(shadow),
        f"the list of moving averages has {len(shadow)} tensors, the network {len(names)}",
    )
    wrong = [
        f"{n} is {tensors[n].shape}, its average {a.shape}"
        for n, a in zip(names, shadow)
        if tensors[n].shape != a.shape
    ]
    require(not wrong, f"the list of moving averages is in another order: {'; '.join(wrong[:4])}")
    return dict(zip(names, shadow))


READERS: list[tuple[Callable[[bytes, int], bool], Callable[[Path], Source]]] = [
    (_is_safetensors, _read_safetensors),  # first: a header of 640 bytes begins like a pickle
    (_is_torch, _read_torch),
]
