"""`python -m tests.parity FOLDER`: compare this code with every array of a golden set."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ldd_jax.core.checks import UserError
from tests.parity.golden import Case, Folder, Gap, Golden

KINDS: dict[str, Callable[[Golden], None]] = {}


def kind(*names: str):
    """Register the function that checks files whose stem starts with one of these names."""

    def wrap(fn):
        KINDS.update(dict.fromkeys(names, fn))
        return fn

    return wrap


def kind_of(stem: str) -> str | None:
    """The longest kind that is the stem, or that the stem continues after an underscore."""
    fits = [k for k in KINDS if stem == k or stem.startswith(k + "_")]
    return max(fits, key=len, default=None)


def _fail(name: str, note: str) -> Case:
    return Case(name, np.inf, 0.0, note)


def run_file(folder: Folder, name: str) -> list[Case | Gap]:
    """All results of one npz file; whatever goes wrong is a failed case."""
    stem = name.removesuffix(".npz")
    found = kind_of(stem)
    if found is None:
        return [_fail(stem, f"unknown kind of file; known: {', '.join(sorted(KINDS))}")]
    try:
        golden = Golden(folder, name, found)
    except Exception as error:
        return [_fail(stem, f"unreadable: {type(error).__name__}: {error}".splitlines()[0])]
    try:
        KINDS[found](golden)
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(line.filename).name}:{line.lineno}"
        note = f"{type(error).__name__}: {error} ({where})".splitlines()[0]
        golden.results.append(_fail(stem, note))
    said = set(golden.meta.get("arrays", golden.arrays))
    strange = [a for a in golden.arrays if a not in golden.known]
    unknown = [_fail(f"{stem}/{a}", "unknown array") for a in strange]
    absent = [_fail(f"{stem}/{a}", "in the manifest only") for a in said - set(golden.arrays)]
    return golden.results + unknown + absent


def unused_weights(folder: Folder) -> list[Case | Gap]:
    """Weight files that no case read."""
    out: list[Case | Gap] = []
    for name in folder.names(".safetensors"):
        if name in folder.used_weights:
            continue
        stem = name.removesuffix(".safetensors")
        if not (folder.path / name).is_file():
            out.append(_fail(stem, "in the manifest only"))
        else:
            out.append(_fail(name, "weights that no case reads"))
    return out


def run(path: Path, say: Callable[[str], None] = print) -> dict[str, int]:
    """Run a folder, say one line per case, and return the counts.

    Raises:
      UserError: for a folder or manifest that cannot be read.
    """
    import tests.parity.cases  # noqa: F401 (registers the kinds)

    folder = Folder(path)
    names = folder.names(".npz")
    if not names:
        raise UserError(f"{path} holds no .npz file")
    counts = {"passed": 0, "failed": 0, "not covered": 0}

    def tell(results: list[Case | Gap]) -> None:
        for result in results:
            if isinstance(result, Gap):
                counts["not covered"] += 1
                say(f"{result.name:44s} not covered: {result.reason}")
                continue
            counts["passed" if result.ok else "failed"] += 1
            word = "ok" if result.ok else "FAIL"
            note = f"  {result.note}" if result.note else ""
            say(f"{result.name:44s} {result.error:9.2e} {result.tolerance:9.2e} {word}{note}")

    for name in names:
        tell(run_file(folder, name))
    tell(unused_weights(folder))
    say(", ".join(f"{n} {word}" for word, n in counts.items()))
    return counts


def main(argv: list[str]) -> int:
    """Exit status: 0 all pass, 1 some fail, 2 nothing could be read."""
    if len(argv) != 1:
        print("usage: python -m tests.parity FOLDER", file=sys.stderr)
        return 2
    try:
        counts = run(Path(argv[0]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if counts["failed"] else 0
