"""Solver counts, verifiers against the solver and against mutations, splits that share nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldd_jax.tasks import Countdown, Game24, Sudoku, arithmetic, game24, sudoku

TASKS = {
    "countdown3": (Countdown(numbers=3, largest=12), 300),
    "countdown4": (Countdown(numbers=4), 300),
    "countdown5": (Countdown(numbers=5), 100),
    "game24": (Game24(largest=6), 60),
    "sudoku4": (Sudoku(size=4, givens=6), 100),
    "sudoku9": (Sudoku(size=9), 5),
}


def test_game_of_24_counts():
    hands = list(game24.hands())
    assert len(hands) == 1820
    assert sum(1 for h in hands if next(arithmetic.solve(h, 24), None)) == 1346


@pytest.mark.slow
def test_game_of_24_counts_with_fractions():
    assert sum(arithmetic.solvable_with_fractions(h, 24) for h in game24.hands()) == 1362


@pytest.mark.parametrize("name", TASKS)
def test_problems_are_solved_distinct_and_split(name):
    task, count = TASKS[name]
    train, held = (list(task.problems(s, count, 0)) for s in ("train", "validation"))
    assert len(train) > count // 2 and held
    for problem, solution in train + held:
        assert task.strict(problem, solution) and task.legacy(problem, solution)
        assert len(problem) + len(solution) <= task.longest
        assert set(problem + solution) <= set(task.symbols)
    both = [p for p, _ in train + held]
    assert len(set(both)) == len(both)
    assert train == list(task.problems("train", count, 0))  # a function of the seed
    assert train != list(task.problems("train", count, 1))


def test_held_out_targets_and_grids_are_new():
    task = Countdown(numbers=3, largest=12)
    last = lambda problem: int(problem.split(",")[-1])
    train, held = ({last(p) for p, _ in task.problems(s, 400, 3)} for s in ("train", "validation"))
    assert not train & held and held <= set(task.targets("validation", 3))
    grids = [
        {s for _, s in Sudoku(size=4, givens=6).problems(x, 400, 3)}
        for x in ("train", "validation")
    ]
    assert grids[1] and not grids[0] & grids[1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 13), min_size=2, max_size=4), st.integers(0, 30))
def test_every_chain_of_the_solver_passes(numbers, target):
    problem = ",".join(map(str, (*numbers, target)))
    for chain, _ in zip(arithmetic.solve(numbers, target), range(40), strict=False):
        text = ",".join(map(str, chain))
        assert arithmetic.strict(problem, text) and arithmetic.legacy(problem, text)


def means(problem, solution):
    """An independent reading: replay on a list, with Python's own integers."""
    *numbers, target = map(int, problem.split(","))
    for part in solution.split(","):
        left, _, right = part.partition("=")
        at = next((i for i, c in enumerate(left) if c in "+-*/" and i), None)
        if at is None or not right.isascii() or not right.isdigit():
            return False
        a, op, b = left[:at], left[at], left[at + 1 :]
        if not (a.isdigit() and b.isdigit()) or any(str(int(x)) != x for x in (a, b, right)):
            return False
        a, b, right = int(a), int(b), int(right)
        for n in (a, b):
            if n not in numbers:
                return False
            numbers.remove(n)
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[op]
        if value != right:
            return False
        numbers.append(right)
    return numbers == [target]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_character_passes_only_if_it_means_a_solution(data):
    task = Countdown(numbers=3, largest=20)
    problem, solution = data.draw(st.sampled_from(POOL))
    at = data.draw(st.integers(0, len(solution) - 1))
    new = data.draw(st.sampled_from(task.symbols + " .x"))
    changed = solution[:at] + new + solution[at + 1 :]
    assert task.strict(problem, changed) == means(problem, changed)


POOL = list(Countdown(numbers=3, largest=20).problems("train", 50, 0))


@pytest.mark.parametrize(
    ("problem", "solution", "strict", "legacy"),
    [
        ("57,97,40,97,96", "97-40=57,57/57=1,97-1=96", True, True),  # a number given twice
        ("4,6,24", "4*6=24", True, True),
        ("1,2,24", "48/2=24", False, True),  # operands from nowhere
        ("4,6,24", "4*6=24,4*6=24", False, True),  # an operand used again
        ("4,6,2,24", "4*6=24", False, True),  # a number left over
        ("4,6,25", "4*6=24", False, False),
        ("8,0,8", "8/0=8", False, False),
        ("5,2,2", "5/2=2", False, False),
        ("5,2,1,3", "5/2=2.5,2.5+1=3", False, False),
        ("4,6,24", "4*6=24 ", False, False),
        ("4,6,24", "4*6=24,", False, False),
        ("4,6,24", "04*6=24", False, False),
        ("4,6,24", "-4*-6=24", False, False),
        ("4,6,24", "4*6=24=24", False, False),
        ("4,6,24", "", False, False),
        ("4,6,24", "\uff14*6=24", False, False),
        ("", "4*6=24", False, False),
        ("4,6,24", "9" * 9999 + "*1=24", False, False),
        ("4,6,24", "4*6=" + "9" * 9999, False, False),
    ],
)
def test_verdicts(problem, solution, strict, legacy):
    assert arithmetic.strict(problem, solution) is strict
    assert arithmetic.legacy(problem, solution) is legacy


def test_sudoku_verdicts():
    task = Sudoku(size=4, givens=6)
    puzzle, solved = next(task.problems("train", 1, 0))
    assert len(list(sudoku.solutions([int(c) for c in puzzle], 4))) == 1
    swapped = solved.translate(str.maketrans("12", "21"))
    assert not task.strict(puzzle, swapped) and not task.legacy(puzzle, swapped)
    assert task.strict("0" * 16, swapped)  # a grid by itself
    for bad in (solved[:-1], solved + "1", solved.replace("1", "0"), "", "x" * 16):
        assert not task.strict(puzzle, bad) and not task.legacy(puzzle, bad)
    assert not task.legacy("1" * 16, solved)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Countdown(numbers=1),
        lambda: Countdown(lowest_target=9, highest_target=9),
        lambda: Countdown(held_out=0.0),
        lambda: Game24(largest=2),
        lambda: Sudoku(size=6),
        lambda: Sudoku(size=4, givens=16),
    ],
)
def test_what_cannot_be_is_refused(make):
    with pytest.raises(ValueError, match="="):
        make()
