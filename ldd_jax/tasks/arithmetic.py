"""Equations over non-negative integers: grammar, exact verifiers, exhaustive solver.

Format of arXiv 2410.14157: `86+28=114,31-13=18,114-18=96`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

OPERATORS = "+-*/"
# Up to 15 digits: more are no answer to any problem, and reading them would take long.
_INTEGER = r"(0|[1-9][0-9]{0,14})"
_EQUATION = re.compile(rf"{_INTEGER}([-+*/]){_INTEGER}={_INTEGER}")
_LEFT = re.compile(rf"{_INTEGER}([-+*/]){_INTEGER}")


class Equation(NamedTuple):
    """left operator right = result."""

    left: int
    operator: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left}{self.operator}{self.right}={self.result}"


def apply(operator: str, left: int, right: int) -> int | None:
    """The result, None where it is no non-negative integer.

    Of `left` and `right`, by an `operator` + - * or /.
    """
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right if left >= right else None
    if operator == "*":
        return left * right
    return left // right if right and left % right == 0 else None


def parse(solution: str) -> list[Equation] | None:
    """The equations of a chain; None unless every part is INT op INT = INT, with no sign, space
    or leading zero.
    """
    found = []
    for part in solution.split(","):
        match = _EQUATION.fullmatch(part)
        if match is None:
            return None
        left, operator, right, result = match.groups()
        found.append(Equation(int(left), operator, int(right), int(result)))
    return found


def parse_problem(problem: str) -> tuple[list[int], int] | None:
    """Numbers and target of `86,28,13,31,96`; None for anything else."""
    parts = problem.split(",")
    if len(parts) < 3 or not all(re.fullmatch(_INTEGER, p) for p in parts):
        return None
    *numbers, target = map(int, parts)
    return numbers, target


def reads(problem: str) -> bool:
    """Whether a text is numbers and a target."""
    return parse_problem(problem) is not None


def lines(solution: str) -> list[str]:
    """One equation a line."""
    return solution.split(",")


def strict(problem: str, solution: str) -> bool:
    """Whether the chain uses every number once and ends in the target.

    A pool begins as the multiset of the numbers. Each of the n - 1 equations must hold exactly
    in non-negative integers, take its two operands from the pool and put its result there; the
    pool must end as the target alone.
    """
    given, chain = parse_problem(problem), parse(solution)
    if given is None or chain is None or len(chain) != len(given[0]) - 1:
        return False
    numbers, target = given
    pool = Counter(numbers)
    for left, operator, right, result in chain:
        pool[left] -= 1
        pool[right] -= 1
        if min(pool[left], pool[right]) < 0 or apply(operator, left, right) != result:
            return False
        pool[result] += 1
    return list(pool.elements()) == [target]


def legacy(problem: str, solution: str) -> bool:
    """The check of the published code: every equation holds and the last gives the target.

    It asks neither where the operands come from nor how many equations there are, and divides as
    real numbers.
    """
    given = parse_problem(problem)
    if given is None:
        return False
    last = ""
    for part in solution.split(","):
        left, equals, last = part.partition("=")
        match = _LEFT.fullmatch(left)
        if match is None or not equals or not re.fullmatch(r"[0-9]{1,16}(\.[0-9]{1,16})?", last):
            return False
        a, operator, b = int(match.group(1)), match.group(2), int(match.group(3))
        if operator == "/" and b == 0:
            return False
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else 0}[operator]
        if value != float(last):
            return False
    return last == str(given[1])


def solve(numbers: Sequence[int], target: int) -> Iterator[list[Equation]]:
    """Every chain of integer equations that makes the target, by exhaustion; + and * once."""
    yield from _chains(tuple(sorted(numbers, reverse=True)), target, [])


def _chains(pool: tuple[int, ...], target: int, chain: list[Equation]) -> Iterator[list[Equation]]:
    if len(pool) == 1:
        if pool[0] == target:
            yield list(chain)
        return
    tried = set()
    for i, left in enumerate(pool):
        for j, right in enumerate(pool):
            if i == j or (left, right) in tried:
                continue
            tried.add((left, right))
            rest = [n for k, n in enumerate(pool) if k not in (i, j)]
            for operator in OPERATORS:
                result = apply(operator, left, right)
                if result is None or (operator in "+*" and left < right):
                    continue
                chain.append(Equation(left, operator, right, result))
                yield from _chains(tuple(sorted([*rest, result], reverse=True)), target, chain)
                chain.pop()


def solvable_with_fractions(numbers: Sequence[int], target: int) -> bool:
    """Whether any chain over the rationals makes the target."""
    return _reaches(tuple(map(Fraction, numbers)), Fraction(target))


def _reaches(pool: tuple[Fraction, ...], target: Fraction) -> bool:
    if len(pool) == 1:
        return pool[0] == target
    for i in range(len(pool)):
        for j in range(i):
            a, b = pool[i], pool[j]
            rest = tuple(n for k, n in enumerate(pool) if k not in (i, j))
            results = {a + b, a * b, a - b, b - a}
            results |= {a / b} if b else set()
            results |= {b / a} if a else set()
            if any(_reaches((*rest, r), target) for r in results):
                return True
    return False
