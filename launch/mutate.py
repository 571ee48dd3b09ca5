"""How much the tests notice: a sample of small faults is put into the code, one after the other.

    python launch/mutate.py [--mutants=100] [--seed=0] [--rooms=core,processes,objectives,samplers]
                            [--until=fast] [--jobs=2] [--list] [--only=NUMBER,...]

A fault is one expression changed (an operator, a comparison, a number, a condition, a call that
falls away); annotations, messages and decorators are left alone. The sample is drawn from all of
them with the seed. Each is tried in a copy of the repository, in stages, until a test fails: the
fast tests of the room that mention the module, the other ones of the room (`near`), those of all
rooms that compute (`rooms`), the whole fast set (`fast`), everything (`whole`). Prints a line per
fault, then the score and the survivors; whoever reads it says which of those change no result.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import dataclasses
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("ldd_jax", "tests", "configs", "docs", "launch", "pyproject.toml", "README.md")
LATE = "no end within"
STAGES = ("near", "rooms", "fast", "whole")
# Where the computing rooms are tried, besides the room itself.
COMPUTING = ("processes", "objectives", "samplers", "core", "denoisers", "evaluation", "oracle")

SWAPPED: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
# Calls whose result has the shape of their first argument: it stands alone in their stead.
DROPPED = (
    "stop_gradient", "exp", "expm1", "log", "log1p", "abs", "sqrt", "cumsum", "maximum", "minimum",
    "clip", "log_softmax", "logaddexp",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Fault:
    """One expression of a file and what stands there instead."""

    path: Path
    line: int
    start: int
    end: int
    before: str
    after: str

    def applied(self, source: bytes) -> bytes:
        """The file with the fault in it."""
        return source[: self.start] + self.after.encode() + source[self.end :]

    def __str__(self):
        short = lambda text: " ".join(text.split())
        return f"{self.path}:{self.line}: {short(self.before)}  ->  {short(self.after)}"


def changed(node: ast.AST) -> Iterator[str]:
    """What may stand instead of an expression."""
    text = ast.unparse
    match node:
        case ast.BinOp(left, op, right) if type(op) in SWAPPED:
            yield f"({text(ast.BinOp(left, SWAPPED[type(op)](), right))})"
        case ast.BoolOp(op, values):
            yield f"({text(ast.BoolOp(SWAPPED[type(op)](), values))})"
        case ast.Compare(left, [op], right) if type(op) in SWAPPED:
            yield f"({text(ast.Compare(left, [SWAPPED[type(op)]()], right))})"
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield f"({text(operand)})"
        case ast.Constant(bool(value)):
            yield str(not value)
        case ast.Constant(int(value)):
            yield str(value + 1)
        case ast.Constant(float(value)):
            yield str(1.1 * value if value else 0.1)
        case ast.IfExp(test, body, orelse):
            yield f"({text(ast.IfExp(test, orelse, body))})"
        case ast.Call(ast.Attribute(_, "where"), [_, one, other]):
            yield f"({text(one)})"
            yield f"({text(other)})"
        case ast.Call(ast.Attribute(_, name), [first, *_]) if name in DROPPED:
            yield f"({text(first)})"


def expressions(node: ast.AST) -> Iterator[ast.AST]:
    """Those that compute: no annotations, decorators, messages of errors or base classes."""
    if isinstance(node, ast.expr):
        yield node
    skipped = {"annotation", "returns", "decorator_list", "bases"}
    for name, value in ast.iter_fields(node):
        if name in skipped or isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from expressions(child)


def faults(path: Path) -> list[Fault]:
    """All faults of a file, by place."""
    source = (ROOT / path).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node in expressions(ast.parse(source)):
        for after in changed(node):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            before = source[start:end].decode()
            found.append(Fault(path, node.lineno, start, end, before, after))
    return found


def stages(path: Path, until: str) -> Iterator[tuple[str, list[str]]]:
    """(name, arguments of pytest) of every stage, what is nearest first."""
    words = [path.stem] + [
        node.name
        for node in ast.parse((ROOT / path).read_bytes()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    ]
    told = lambda file: any(word in (ROOT / file).read_text() for word in words)
    files = sorted(p.relative_to(ROOT) for p in (ROOT / "tests").rglob("test_*.py"))
    own = [f for f in files if f.parts[1] == path.parts[1]]
    near = sorted(own, key=lambda f: not told(f))
    rooms = [f for f in files if f.parts[1] in COMPUTING and f not in own]
    rooms.sort(key=lambda f: not told(f))
    rest = [f for f in files if f not in near + rooms]
    quick = ["-m", "not slow"]
    each = {
        "near": [*map(str, near), *quick],
        "rooms": [*map(str, rooms), *quick],
        "fast": [*map(str, rest), *quick],
        "whole": ["tests", "-m", "slow"],
    }
    for name in STAGES[: STAGES.index(until) + 1]:
        yield name, each[name]


class Copy:
    """A copy of the repository, where one fault at a time is tried."""

    def __init__(self, folder: Path, seconds: float):
        self.folder, self.seconds = folder, seconds
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, folder / name)
        programs = folder.parent / "programs"  # most of a faulty tree's are those of the sound one
        self.env = {**os.environ, "PYTHONPATH": str(folder), "TEST_PROGRAMS": str(programs)}
        self.sound: set[str] = set()

    def pytest(self, arguments: list[str]) -> str:
        """The first test that fails, or why none could; empty where all pass."""
        command = [sys.executable, "-m", "pytest", "-o", "addopts=--strict-markers"]
        command += ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", *arguments]
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=self.env, capture_output=True, text=True,
                timeout=self.seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"{LATE} {self.seconds:g} s"
        if done.returncode in (0, 5):  # 5: no test was chosen
            return ""
        lines = [s for s in done.stdout.splitlines() if s.startswith(("FAILED", "ERROR"))]
        return lines[0].split(" - ")[0] if lines else f"pytest ended with {done.returncode}"

    def attempt(self, fault: Fault, until: str) -> tuple[str, str, float]:
        """(stage, test) that noticed it, both empty if none did, and the seconds."""
        path, began, stage, failed = self.folder / fault.path, time.monotonic(), "", ""
        source = path.read_bytes()
        path.write_bytes(fault.applied(source))
        try:
            for name, arguments in stages(fault.path, until):
                stage = name
                if failed := self.pytest(arguments):
                    break
        finally:
            path.write_bytes(source)
        self.passes(failed)
        return stage if failed else "", failed, time.monotonic() - began

    def passes(self, failed: str) -> None:
        """The test that noticed a fault must pass without it."""
        word, _, test = failed.partition(" ")
        if word == "FAILED" and test not in self.sound:
            if again := self.pytest([test]):
                raise SystemExit(f"without any fault: {again}")
            self.sound.add(test)


def sample(rooms: list[str], count: int, seed: int) -> list[Fault]:
    """So many of all faults of the rooms, in the order of the draw."""
    files = sorted(p for room in rooms for p in (ROOT / "ldd_jax" / room).glob("*.py"))
    found = [fault for p in files for fault in faults(p.relative_to(ROOT))]
    return random.Random(seed).sample(found, min(count, len(found)))


def main() -> None:
    """Try the sample, print the score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", default="core,processes,objectives,samplers")
    parser.add_argument("--until", choices=STAGES, default="fast")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1800, help="a stage that takes longer")
    parser.add_argument("--only", default="", help="numbers of the sample")
    parser.add_argument("--list", action="store_true", help="print the sample, try nothing")
    given = parser.parse_args()
    drawn = list(enumerate(sample(given.rooms.split(","), given.mutants, given.seed)))
    if given.only:
        drawn = [drawn[int(number)] for number in given.only.split(",")]
    if given.list:
        print("\n".join(f"{number:3} {fault}" for number, fault in drawn))
        return
    survived, endless, noticed = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder) / str(job) for job in range(given.jobs)]
        for copy in copies:
            copy.mkdir()
        free = [Copy(copy, given.seconds) for copy in copies]

        def attempt(fault):
            copy = free.pop()
            try:
                return copy.attempt(fault, given.until)
            finally:
                free.append(copy)

        with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
            tried = [(number, fault, pool.submit(attempt, fault)) for number, fault in drawn]
            for number, fault, done in tried:
                stage, test, seconds = done.result()
                late = test.startswith(LATE)
                endless += late
                noticed += bool(stage) and not late
                survived += [] if stage else [(number, fault)]
                said = f"{stage}: {test}" if stage else "NOT NOTICED"
                print(f"{number:3} {fault}\n    {said} ({seconds:.0f} s)", flush=True)
    decided = len(drawn) - endless  # a slow machine is no test
    print(
        f"{noticed} of {decided} noticed ({noticed / max(decided, 1):.0%}); {endless} were too slow"
    )
    for number, fault in survived:
        print(f"survived: {number:3} {fault}")


if __name__ == "__main__":
    main()
