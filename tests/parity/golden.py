"""A folder of golden numbers, and the book that every array in it has to be entered in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import TokenSpace
from ldd_jax.interop import sources


class Case(NamedTuple):
    """One comparison; `note` holds the reason when there is no error to speak of."""

    name: str
    error: float
    tolerance: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """NaN is not within any tolerance."""
        return bool(self.error <= self.tolerance)


class Gap(NamedTuple):
    """An array that no code here can be compared with yet."""

    name: str
    reason: str


class Folder:
    """A golden set: the manifest, its files, and which weight files were used."""

    def __init__(self, path: Path):
        self.path = Path(path)
        manifest = self.path / "manifest.json"
        if not self.path.is_dir():
            raise UserError(f"no folder {self.path}; expected one with a manifest.json")
        try:
            self.manifest = json.loads(manifest.read_text())["files"]
        except OSError as error:
            raise UserError(f"cannot read {manifest}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{manifest} has no readable 'files' table: {error}") from error
        if not isinstance(self.manifest, dict):
            raise UserError(f"{manifest}: 'files' is not a table")
        self.used_weights: set[str] = set()

    def names(self, suffix: str) -> list[str]:
        """Files of this suffix, in the folder or in the manifest."""
        found = {p.name for p in self.path.glob(f"*{suffix}")}
        return sorted(found | {n for n in self.manifest if n.endswith(suffix)})

    def weights(self, name: str) -> dict[str, np.ndarray]:
        """Tensors of one safetensors file, as the importer reads them."""
        self.used_weights.add(name)
        return sources.read_safetensors(self.path / name)[0]


class Golden:
    """One npz file. `given` takes an input, `check` compares, `gap` admits; all enter the book."""

    def __init__(self, folder: Folder, name: str, kind: str):
        self.folder, self.stem, self.kind = folder, name.removesuffix(".npz"), kind
        self.suffix = self.stem.removeprefix(kind)
        self.meta = folder.manifest.get(name, {})
        with np.load(folder.path / name) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.known: set[str] = set()
        self.results: list[Case | Gap] = []

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def given(self, name: str) -> np.ndarray:
        """An input."""
        self.known.add(name)
        return self.arrays[name]

    def meaning(self, name: str) -> str:
        """What the manifest says of an array."""
        return self.meta.get("arrays", {}).get(name, {}).get("meaning", "")

    def config(self) -> dict[str, Any]:
        """Config of the file over that of its weights over the file's own scalars."""
        merged = {k: v for k, v in self.meta.items() if isinstance(v, int | float)}
        for name in [self.weight_file()] + [f"{self.stem}_init.safetensors"]:
            merged |= self.folder.manifest.get(name or "", {}).get("config") or {}
        return merged | (self.meta.get("config") or {})

    def tokens(self, masked: bool = True) -> TokenSpace:
        """The token space: size and mask as the manifest says."""
        c = self.config()
        mask = c.get("mask_index", c.get("mask"))
        return TokenSpace(size=int(c["V"]), mask=int(mask) if masked else None)

    def graph(self) -> TokenSpace:
        """That of SEDD's absorbing graph: its mask is last, whatever the file's own arrays have."""
        size = int(self.config()["V"])
        return TokenSpace(size=size, mask=size - 1)

    def number(self, patterns: list[str], keys: list[str], text: str, default=None) -> float:
        """A number from the config keys, else from the text, else the default."""
        config = self.config()
        for key in keys:
            if key in config:
                return float(config[key])
        for pattern in patterns:
            if found := re.search(pattern, text):
                return float(found.group(1))
        if default is None:
            raise ValueError(f"neither {keys} in the config nor {patterns} in {text!r}")
        return float(default)

    def weight_file(self, part: str = "") -> str | None:
        """Name of the weight file: as the manifest says, else by the stem."""
        said = str(self.meta.get("weights", ""))
        names = []
        for name in re.findall(r"[\w.{},-]+\.safetensors", said):
            if "{" in name:
                head, middle, tail = re.split(r"[{}]", name)
                names += [head + m + tail for m in middle.split(",") if m == part]
            else:
                names.append(name)
        tail = f"_{part}" if part else ""
        names += [f"{self.stem}{tail}.safetensors", f"{self.kind}{tail}{self.suffix}.safetensors"]
        if part:
            names = [n for n in names if part in n]
        return next((n for n in names if (self.folder.path / n).is_file()), None)

    def weights(self, part: str = "") -> dict[str, np.ndarray]:
        """The tensors this file was computed with."""
        name = self.weight_file(part)
        if name is None:
            raise ValueError(f"no weight file for {self.stem} {part}")
        return self.folder.weights(name)

    def enter(self, name: str, error: float, tolerance: float, note: str = "") -> None:
        """A comparison made elsewhere."""
        self.results.append(Case(f"{self.stem}/{name}", float(error), tolerance, note))

    def check(
        self,
        name: str,
        ours: Callable[[], Any],
        tolerance: float,
        *,
        reference: Any = None,
        relative: bool = True,
        where: np.ndarray | None = None,
        prepare: Callable[[np.ndarray], np.ndarray] = lambda a: a,
        each: bool = False,
    ) -> None:
        """Compare `ours()` with array `name` (or `reference`), if the file has it.

        Args:
          name: the array this comparison covers.
          ours: computes our value.
          tolerance: relative to max(1, largest reference entry) if `relative`, else absolute.
          reference: what to compare with when the array itself is known to be off.
          relative: see tolerance.
          where: mask of leading axes; other rows are not compared.
          prepare: applied to both sides first.
          each: errors relative to max(1, |entry|) one by one, for values of many sizes.
        """
        if name not in self.arrays:
            return
        self.known.add(name)
        theirs = self.arrays[name] if reference is None else reference
        try:
            mine = np.asarray(ours())
        except Exception as error:
            self.enter(name, np.inf, 0.0, f"{type(error).__name__}: {error}".splitlines()[0])
            return
        if mine.shape != theirs.shape:
            self.enter(name, np.inf, 0.0, f"shape {mine.shape}, recorded {theirs.shape}")
            return
        mine, theirs = (prepare(np.asarray(a, np.float64)) for a in (mine, theirs))
        if where is not None:
            mine, theirs = mine[where], theirs[where]
        if not mine.size:
            self.enter(name, np.nan, 0.0, "nothing to compare")
            return
        finite = np.isfinite(theirs)
        scale = max(1.0, float(np.max(np.abs(theirs[finite]), initial=0))) if relative else 1.0
        with np.errstate(invalid="ignore"):
            gap = np.where(mine == theirs, 0, np.abs(mine - theirs))
        if each:
            gap, scale = gap / np.maximum(1, np.abs(theirs)), 1.0
        self.enter(name, np.max(gap), tolerance * scale, "relative" if each else "")

    def gap(self, pattern: str, reason: str, inputs: str = "") -> None:
        """Admit every array matching `pattern`; those matching `inputs` are only its inputs."""
        for name in self.arrays:
            if inputs and re.fullmatch(inputs, name):
                self.known.add(name)
            elif name not in self.known and re.fullmatch(pattern, name):
                self.known.add(name)
                self.results.append(Gap(f"{self.stem}/{name}", reason))


def normalise(table: np.ndarray) -> np.ndarray:
    """Rows that sum to one."""
    return table / table.sum(-1, keepdims=True)


def finite_logs(logp: np.ndarray) -> np.ndarray:
    """-inf here and -1e6 there both mean probability 0."""
    return np.where(logp < -1e5, -1e5, logp)
