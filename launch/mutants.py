"""Small faults of a file: one expression changed, for `mutate.py`."""

from __future__ import annotations

import ast
import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

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
    lines: range  # of the statement, or of the expression in the head of a longer one
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


def expressions(node: ast.AST, lines: range) -> Iterator[tuple[ast.expr, range]]:
    """Those that compute, with their lines; no annotations, decorators, messages, base classes."""
    if isinstance(node, ast.stmt) and not hasattr(node, "body"):
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    if isinstance(node, ast.expr):
        lines = lines or range(node.lineno, (node.end_lineno or node.lineno) + 1)
        yield node, lines
    skipped = {"annotation", "returns", "decorator_list", "bases"}
    for name, value in ast.iter_fields(node):
        if name in skipped or isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                inside = isinstance(node, ast.expr) or not hasattr(node, "body")
                yield from expressions(child, lines if inside else range(0))


def faults(path: Path) -> list[Fault]:
    """All faults of a file, by place."""
    source = (ROOT / path).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node, lines in expressions(ast.parse(source), range(0)):
        for after in changed(node):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
            before = source[start:end].decode()
            found.append(Fault(path, node.lineno, lines, start, end, before, after))
    return found


def sample(rooms: list[str], count: int, seed: int) -> list[Fault]:
    """So many of all faults of the rooms, in the order of the draw."""
    files = sorted(p for room in rooms for p in (ROOT / "ldd_jax" / room).glob("*.py"))
    found = [fault for p in files for fault in faults(p.relative_to(ROOT))]
    return random.Random(seed).sample(found, min(count, len(found)))
