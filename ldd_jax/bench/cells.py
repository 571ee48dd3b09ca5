"""What a bench is made of: sampler choices from text, cells, and the file they are kept in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_type_hints

import jax

from ldd_jax.config import learned
from ldd_jax.config.sections import Sampling
from ldd_jax.core import reading, registry, writing
from ldd_jax.core.checks import UserError, nearest, parse_json, require
from ldd_jax.training import distributed
from ldd_jax.training.metrics import finite

DEFAULT = "default"
GRID = "grid"
PARTS = ("stop", "blocks")  # components of the sampling, their own fields after a dot
NO_LATENT = "none"
# What tells one cell from another.
KEY = ("workdir", "config", "checkpoint", "sampler", "steps", "temperature", "latent", "seed")


def parse_sampler(text: str, defaults: Sampling) -> Sampling:
    """`NAME[:field=value]...` over a workdir's own sampling; NAME "default" keeps its step.

    Fields are those of the step, of the read-out (temperature, top_k, top_p), `tail`, `grid`: a
    name, or a file that `distill` writes; `stop` and `blocks`, whose own fields follow a dot
    (`stop=still:stop.steps=2`).

    Raises:
      UserError: for an unknown name or field, or a value that does not fit.
    """
    name, *options = text.split(":")
    parts, options = _parts(text, options)
    own = name in ("", DEFAULT)
    cls = type(defaults.step) if own else registry.find("step", name)
    plain = lambda cls: {
        f.name
        for f in dataclasses.fields(cls)
        if not f.metadata.get("component") and not f.metadata.get("runtime")
    }
    readout = type(defaults.readout)
    tables: dict[str, tuple[type, set[str]]] = {
        "step": (cls, plain(cls)),
        "readout": (readout, plain(readout)),
        "sampling": (Sampling, {"tail", GRID}),
    }
    given: dict[str, dict[str, Any]] = {kind: {} for kind in tables}
    learned_step = None
    for option in options:
        field, equals, value = option.partition("=")
        require(bool(equals), f"sampler {text!r}: {option!r} is not field=value")
        kinds = [k for k, (_, fields) in tables.items() if field in fields]
        known = {f for _, fields in tables.values() for f in fields}
        require(bool(kinds), f"sampler {text!r} has no field {field!r}; {nearest(field, known)}")
        hint = get_type_hints(tables[kinds[0]][0])[field]
        if field == GRID:
            found = learned.grid(value)
            given["sampling"][GRID] = found.grid
            learned_step = found.step
            if found.temperatures:
                given["readout"]["temperatures"] = found.temperatures
        else:
            given[kinds[0]][field] = _typed(text, field, value, hint)
    try:
        base = (learned_step or defaults.step) if own else registry.build("step", {"name": name})
        return dataclasses.replace(
            defaults,
            step=dataclasses.replace(base, **given["step"]),
            readout=dataclasses.replace(defaults.readout, **given["readout"]),
            **given["sampling"],
            **{part: registry.parse(part, of) for part, of in parts.items()},
        )
    except ValueError as error:
        raise UserError(f"sampler {text!r}: {error}") from error


def _parts(sampler: str, options: list[str]) -> tuple[dict[str, str], list[str]]:
    """The components among options, as `registry.parse` takes them, and the other options."""
    own: dict[str, list[str]] = {}
    rest = []
    for option in options:
        part, dot, field = option.partition("=")[0].partition(".")
        if part not in PARTS:
            rest.append(option)
        elif not dot:
            own[part] = [option.partition("=")[2]]
        else:
            require(part in own, f"sampler {sampler!r}: give {part}=NAME before {option}")
            own[part].append(option.partition(".")[2])
    return {part: f"{name}:{','.join(fields)}" for part, (name, *fields) in own.items()}, rest


def told(text: str) -> list[str]:
    """The options of `NAME[:field=value]...` as cells name them: files by what they hold."""
    named = lambda field, value: learned.label(value) if field == GRID else value
    parts = [option.partition("=") for option in text.split(":")[1:]]
    return [f"{field}={named(field, value)}" for field, _, value in parts]


def _typed(sampler: str, field: str, value: str, hint: Any) -> Any:
    words = {"true": True, "false": False}
    try:
        if hint is bool:
            return words[value.lower()]
        return {int: int, float: float, str: str}[hint](value)
    except (KeyError, ValueError) as error:
        kind = getattr(hint, "__name__", "component")
        raise UserError(
            f"sampler {sampler!r}: {field}={value} is no {kind} that can be written here"
        ) from error


def numbers(flag: str, text: str, kind: type = int, least: float = 1) -> list[Any]:
    """A list such as 4,8,16, without repeats.

    Args:
      flag: its name, for the message.
      text: what was given.
      kind: int or float.
      least: none may be smaller.

    Raises:
      UserError: naming the flag.
    """
    out: list[Any] = []
    for part in text.split(","):
        try:
            value = kind(part)
        except ValueError as error:
            raise UserError(f"--{flag}={text}: {part!r} is no {kind.__name__}") from error
        require(value >= least, f"--{flag}={text}: {part} is below {least}")
        if value not in out:
            out.append(value)
    return out


def choices(flag: str, text: str, allowed: Any) -> list[str]:
    """A list of names, without repeats.

    Args:
      flag: its name, for the message.
      text: what was given.
      allowed: names that there are.

    Raises:
      UserError: naming the flag.
    """
    parts = list(dict.fromkeys(text.split(",")))
    for part in parts:
        require(part in allowed, f"--{flag}={text}: unknown {part!r}; {nearest(part, allowed)}")
    return parts


class Store:
    """`cells.jsonl` of a bench folder: every finished cell is on disk, whole or not at all.

    `bench.json` holds what all cells must share to be comparable. Of several processes the first
    writes; all know the same cells.
    """

    def __init__(self, folder: Path, shared: dict[str, Any]):
        self.folder, self.path = folder, folder / "cells.jsonl"
        self.claim, self.shared = folder / "bench.json", shared
        try:
            self._check(shared)
            self.cells = self._read()
        except OSError as error:
            raise UserError(f"--output={folder}: {error.strerror or error}") from error
        self.known = {self.key(cell) for cell in self.cells}
        there = distributed.agreed(len(self.cells))
        require(
            there == len(self.cells),
            f"--output={folder}: process {jax.process_index()} sees {len(self.cells)} cells, the "
            f"first one {there}; give a folder that all of them share",
        )

    def _check(self, shared: dict[str, Any]) -> None:
        """Whether the folder is ours to write in."""
        if not self.claim.exists():
            found = self.folder.iterdir() if self.folder.exists() else iter(())
            foreign = sorted(f.name for f in found if not writing.is_draft(f))
            require(
                not foreign,
                f"--output={self.folder} holds other files ({', '.join(foreign[:3])}); "
                "give a new or empty folder",
            )
            return
        there = read_json(self.claim)
        changed = [k for k in shared | there if there.get(k) != shared.get(k)]
        shown = "; ".join(f"{k}: {there.get(k)!r} there, {shared.get(k)!r} given" for k in changed)
        require(
            not changed, f"--output={self.folder} holds another bench ({shown}); give a new folder"
        )

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        out = []
        for number, line in enumerate(reading.read_text(self.path).split("\n")[:-1], 1):
            try:
                cell = parse_json(line)
                self.key(cell)
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"{self.path} line {number} is no cell of a bench") from error
            out.append(cell)
        return out

    @staticmethod
    def key(cell: dict[str, Any]) -> tuple:
        """What tells a cell from the others."""
        return tuple(cell[name] for name in KEY)

    def __contains__(self, cell: dict[str, Any]) -> bool:
        return self.key(cell) in self.known

    def add(self, cell: dict[str, Any]) -> None:
        """Write a finished cell; the first one claims the folder."""
        self.cells.append(finite(cell))
        self.known.add(self.key(cell))
        if not distributed.leader():
            return
        text = "".join(json.dumps(c, ensure_ascii=False) + "\n" for c in self.cells)
        try:
            if not self.claim.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                writing.write(self.claim, json.dumps(self.shared, indent=2) + "\n")
            writing.write(self.path, text)
        except OSError as error:
            raise UserError(f"--output={self.folder}: {error.strerror or error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: if it is none.
    """
    try:
        found = reading.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    require(isinstance(found, dict), f"{path} holds no JSON object")
    return found
