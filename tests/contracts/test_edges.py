"""One way to a file and one to a terminal: nothing else in the package opens either."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "ldd_jax"
WRITERS = {"write_text", "write_bytes", "symlink_to", "savefig"}


def prints(source: str) -> list[str]:
    """Ways to a terminal besides core/console.py."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
            found.append(f"print, line {node.lineno}")
        if isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr"):
            found.append(f"{node.attr}, line {node.lineno}")
    return found


def writes(source: str) -> list[str]:
    """Calls that write a file by its path."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = [a.value for a in node.args if isinstance(a, ast.Constant)]
        given += [k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)]
        modes = {m for m in given if isinstance(m, str) and m and not m.strip("rwxab+t")}
        if name in WRITERS - {"savefig"} or (
            name == "open" and any(set(m) & set("wxa+") for m in modes)
        ):
            found.append(f"{name}, line {node.lineno}")
        if name == "savefig" and getattr(node.args[0], "id", "") != "stream":
            found.append(f"savefig to a path, line {node.lineno}")
    return found


def files():
    return {str(p.relative_to(PACKAGE)): p.read_text() for p in PACKAGE.rglob("*.py")}


def test_only_the_console_prints():
    found = {n: prints(t) for n, t in files().items() if n != "core/console.py"}
    assert {n: where for n, where in found.items() if where} == {}


def test_only_one_module_writes():
    found = {n: writes(t) for n, t in files().items() if n != "core/writing.py"}
    assert {n: where for n, where in found.items() if where} == {}


@pytest.mark.parametrize("line", ["print(1)", "import sys\nsys.stderr.write('x')"])
def test_the_first_scan_can_fail(line):
    assert prints(line)


@pytest.mark.parametrize(
    "line", ["p.write_text('x')", "open(p, 'w')", "p.open('ab')", "p.open(mode='x')",
             "open(p, 'r+b')", "figure.savefig(path)"],
)  # fmt: skip
def test_the_second_scan_can_fail(line):
    assert writes(line)


@pytest.mark.parametrize("line", ["open(p)", "p.open('rb')", "figure.savefig(stream)"])
def test_reading_is_no_writing(line):
    assert not writes(line)
