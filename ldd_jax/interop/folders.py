"""Model folders in the Hugging Face layout: config.json, and tensors in one file or in shards."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, require
from ldd_jax.core.tensors import sizes
from ldd_jax.denoisers.described import KINDS
from ldd_jax.interop.sources import ANCHOR, FOLDER_FILE, is_own

INDEX = FOLDER_FILE + ".index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def fields(folder: Path) -> dict[str, Any]:
    """Those of its config.json; none where there is no such file.

    Raises:
      UserError: for a file that is no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        found = reading.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    require(isinstance(found, dict), f"{path} holds no JSON object")
    return found


def is_published(path: Path) -> bool:
    """Whether a folder holds a network of transformers, or claims to: by content.

    Folders of this library, and of the LDDM, MDLM, Duo and SEDD code, are read elsewhere.
    """
    if not path.is_dir():
        return False
    said = fields(path)
    if said.get("model_type") in KINDS:
        return True
    if is_own(said) or not {"model_type", "auto_map", "architectures"} & set(said):
        return False
    file = path / FOLDER_FILE
    return not (file.is_file() and any(n.endswith(ANCHOR) for n in sizes(file)))


@dataclasses.dataclass(frozen=True)
class Shards:
    """Tensors of a folder, each read when it is asked for.

    place: name -> (file, shape, type).
    """

    place: Mapping[str, tuple[Path, tuple[int, ...], str]]

    def get(self, name: str) -> np.ndarray:
        """One tensor, as it is stored.

        Raises:
          UserError: for a damaged file.
        """
        import safetensors

        path = self.place[name][0]
        try:
            with safetensors.safe_open(path, "numpy") as file:
                return file.get_tensor(name)
        except (safetensors.SafetensorError, TypeError, ValueError, OSError) as error:
            raise UserError(f"{path} is a damaged safetensors file: {error}") from error

    @property
    def files(self) -> list[Path]:
        """All files."""
        return sorted({path for path, _, _ in self.place.values()})

    def digest(self) -> str:
        """SHA-256 of the files, one after the other."""
        found = hashlib.sha256()
        for path in self.files:
            with reading.opened(path) as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    found.update(block)
        return found.hexdigest()


def shards(folder: Path) -> Shards:
    """The tensors of a folder: model.safetensors, or those that its index lists.

    Raises:
      UserError: for a folder of pickles, a shard that is missing, or one that does not hold what
        the index says.
    """
    if (folder / FOLDER_FILE).is_file():
        path = folder / FOLDER_FILE
        return Shards({n: (path, *found) for n, found in sizes(path).items()})
    pickles = [p.name for pattern in PICKLES for p in sorted(folder.glob(pattern))]
    require(
        (folder / INDEX).is_file(),
        f"{folder} holds {pickles[0]}, a pickle, which is not read; convert it to safetensors"
        if pickles
        else f"{folder} holds neither {FOLDER_FILE} nor {INDEX}",
    )
    path = folder / INDEX
    try:
        index = reading.read_json(path)
        listed = dict(index["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no index of tensors: {error}") from error
    bad = [f for f in listed.values() if type(f) is not str or Path(f).name != f]
    require(not bad, f"{path} names a file outside its folder: {bad[:1]}")
    place: dict[str, tuple[Path, tuple[int, ...], str]] = {}
    for name in sorted(set(listed.values())):
        require((folder / name).is_file(), f"{path} lists {name}, which is not there")
        place |= {n: (folder / name, *found) for n, found in sizes(folder / name).items()}
    other = [n for n, f in listed.items() if n not in place or place[n][0].name != f]
    extra = [n for n in place if n not in listed]
    require(
        not other and not extra,
        f"{path} and its shards differ: not where it says {other[:4] or 'none'}; not listed "
        f"{extra[:4] or 'none'}",
    )
    return Shards(place)
