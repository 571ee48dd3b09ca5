"""A real English corpus that needs no download: the documentation of the running Python.

The help topics (`pydoc_data.topics`) and the docstrings of the standard library, whose source is
parsed and never imported. About 1.3 MB of prose, in the same order every time; it differs a little
from one Python version to the next, which is what the corpus fingerprint is for.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import importlib
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from ldd_jax.core.checks import UserError

_SKIPPED = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "pydoc_data",
    "encodings",
    "ensurepip",
} | {"site-packages", "dist-packages", "__pycache__"}
_ASCII = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2013": "-",
        "\u2014": "-",
        "\u2212": "-",
        "\u2026": "...",
        "\u2022": "*",
        "\u00a0": " ",
    }
)
_CODE = re.compile(
    r">>>|::=|^\s*[-+|=~^*#]{3,}|[{}\\]|^\s*\$|\w\(self\b|^\s*(?:def|class|import) ", re.M
)
_ROLE = re.compile(r":[\w:+-]+:`~?([^`]*)`")
_QUOTED = re.compile(r"(``|`|\*\*|\*)(\S(?:[^`*]*\S)?)\1")
_BULLET = re.compile(r"^(?:[*\-+o] +|\d+[.)] +|:\w+[^:]*: +)")
_SPACE = re.compile(r"\s+")
_BLANK = re.compile(r"\n[ \t]*\n")
_MINIMUM = 40


def _paragraphs(text: str, seen: set[str]) -> Iterator[str]:
    """The paragraphs of `text` that read as prose and were not seen before, one line each."""
    for block in _BLANK.split(text.translate(_ASCII)):
        if len(block) < _MINIMUM or _CODE.search(block):
            continue
        line = _SPACE.sub(" ", block).strip()
        line = _QUOTED.sub(r"\2", _ROLE.sub(r"\1", line)).replace("``", "").replace("::", ":")
        line = _BULLET.sub("", line)
        if _is_prose(line) and line not in seen:
            seen.add(line)
            yield line


def _is_prose(line: str) -> bool:
    """Mostly letters and spaces, some words long, and it ends like a sentence."""
    if len(line) < _MINIMUM or not line.isascii() or line.count(" ") < 6:
        return False
    if not line[0].isalpha() or line[-1] not in ".:!?)":
        return False
    letters = sum(map(str.isalpha, line)) + line.count(" ")
    return letters >= 0.85 * len(line)


def _sources(library: Path) -> list[Path]:
    """The library's Python files, in a fixed order."""
    found = []
    for folder, below, files in os.walk(library):
        below[:] = [n for n in below if n not in _SKIPPED and not n.startswith("config-")]
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return sorted(found)


def _docstrings(path: Path) -> Iterator[str]:
    """Docstrings of a module, its classes and functions, in source order."""
    source = path.read_bytes()
    if b'"""' not in source and b"'''" not in source:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stack: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError):  # a file for another Python is no documentation
        return
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield inspect.cleandoc(first.value.value)
            stack.extend(reversed(node.body))
        elif isinstance(node, ast.If | ast.Try):
            stack.extend(reversed(node.body))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the cyclic garbage collector: it takes half the time of parsing and frees nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@functools.lru_cache(maxsize=1)
def python_docs() -> tuple[str, ...]:
    """The corpus: one document for each help topic and each module, paragraphs one a line.

    Returns:
      ASCII documents, topics first, then modules by path; no paragraph occurs twice.

    Raises:
      UserError: if this Python carries neither its help topics nor its library's source.
    """
    seen: set[str] = set()
    documents = []
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions ship it in a package of its own
        topics = {}
    for _, text in sorted(topics.items()):
        documents.append("\n".join(_paragraphs(text, seen)))
    with _no_collection():
        for path in _sources(Path(sysconfig.get_path("stdlib"))):
            text = "\n".join(p for d in _docstrings(path) for p in _paragraphs(d, seen))
            documents.append(text)
    documents = [d for d in documents if d]
    if not documents:
        raise UserError(
            "python-docs found no documentation in this Python installation; give data.path a "
            "text file instead"
        )
    return tuple(documents)
