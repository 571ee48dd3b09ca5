"""Checkpoint files of the reference family, recognised by their content, never by their name."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ldd_jax.core.checks import UserError, parse_json, require

ANCHOR = "vocab_embed.embedding"
FORMAT = "ldd_jax"
LONGEST_HEADER = 100 * 2**20


class Source(NamedTuple):
    """What a checkpoint file holds.

    tensors: name -> array as stored, wrapper's prefix removed, buffers included, in file order.
    averaged: the same names from the list of moving averages, buffers not included; None = no list.
    said: what the file says of itself besides tensors (see `SAID`).
    own: the config of a file that this library wrote, else None.
    """

    tensors: dict[str, np.ndarray]
    averaged: dict[str, np.ndarray] | None
    said: dict[str, Any]
    prefix: str = ""
    own: dict[str, Any] | None = None


def read(path: str | Path) -> Source:
    """Read a safetensors file, a PyTorch archive (Lightning or plain), or a folder with one.

    Raises:
      UserError: for what cannot be read, in one line.
    """
    path = Path(path)
    beside: dict[str, Any] = {}
    if path.is_dir():
        inside = path / "model.safetensors"
        require(
            inside.is_file(),
            f"{path} is a folder without model.safetensors; give the checkpoint file",
        )
        beside = _beside(path / "config.json")
        path = inside
    try:
        with path.open("rb") as file:
            head = file.read(16)
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    require(len(head) > 8, f"{path} is no checkpoint: it has {len(head)} bytes")
    for recognise, reader in READERS:
        if recognise(head, size):
            found = reader(path)
            return found._replace(said=_facts(beside) | found.said)
    raise UserError(
        f"{path} is neither a safetensors file nor a PyTorch archive (it begins {head[:8]!r})"
    )


def _beside(path: Path) -> dict[str, Any]:
    """The config.json of a model folder, if there is one."""
    if not path.is_file():
        return {}
    try:
        found = parse_json(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    return found if isinstance(found, dict) else {}


# Names of the reference's algorithms -> names of our methods.
METHOD_OF = {
    "mdlm": "mdlm",
    "lddm_m": "lddm_m",
    "udlm": "udlm",
    "duo": "udlm",
    "duo_base": "udlm",
    "lddm_u": "lddm_u",
    "ar": "ar",
    "sedd": "sedd",
}
# mdlm and discrete-diffusion-guidance: (parameterization, diffusion) -> method.
PAIR_OF: dict[tuple[str | None, str | None], str] = {
    ("subs", "absorbing_state"): "mdlm",
    ("subs", None): "mdlm",
    ("ar", "absorbing_state"): "ar",
    ("ar", None): "ar",
    ("sedd", "absorbing_state"): "sedd",
    ("sedd", None): "sedd",
    ("d3pm", "uniform"): "udlm",
}
# SEDD's own config names the graph.
GRAPH_OF = {"absorb": "sedd", "uniform": "sedd_uniform"}
SAID = ("method", "heads", "length", "time_conditioning")


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """`SAID` from a reference's config, as far as it is there and readable."""

    def get(*path: str) -> Any:
        node: Any = config
        for name in path:
            node = node.get(name) if isinstance(node, Mapping) else None
        return node

    def first(kind: type, *paths: tuple[str, ...]) -> Any:
        return next((v for v in (get(*p) for p in paths) if type(v) is kind), None)

    name = first(str, ("algo", "name"), ("model_type",)) or ""
    graph = first(str, ("graph", "type")) or ""
    pair = first(str, ("parameterization",)), first(str, ("diffusion",))
    found = {
        "method": METHOD_OF.get(name.lower()) or PAIR_OF.get(pair) or GRAPH_OF.get(graph),
        "heads": first(int, ("model", "n_heads"), ("n_heads",)),
        "length": first(int, ("model", "length"), ("model_length",)),
        "time_conditioning": first(bool, ("algo", "time_conditioning"), ("time_conditioning",)),
    }
    return {k: v for k, v in found.items() if v is not None}


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


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of a file under the names it gives them, and its metadata.

    Raises:
      UserError: for a damaged file.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, "numpy") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (safetensors.SafetensorError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path} is a damaged safetensors file: {error}") from error


def _read_safetensors(path: Path) -> Source:
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") == FORMAT:
        try:
            own = parse_json(metadata["config"])
        except (KeyError, ValueError) as error:
            raise UserError(f"{path} lacks the config that this library writes") from error
        return Source(tensors, None, {}, own=own)
    tensors, prefix = strip(tensors)
    return Source(tensors, None, {}, prefix)


def _is_torch(head: bytes, size: int) -> bool:
    del size
    return head[:4] == b"PK\x03\x04" or head[:2] in (b"\x80\x02", b"\x80\x04")


def _read_torch(path: Path) -> Source:
    from ldd_jax.interop import archive

    content = archive.load(path)
    tensors, prefix = strip(archive.state_dict(content, path))
    shadow = archive.shadow(content)
    averaged = None if shadow is None else by_order(tensors, shadow)
    return Source(tensors, averaged, _facts(archive.config(content)), prefix)


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
