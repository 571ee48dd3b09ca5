"""Small faults: where they are put, and which tests are asked about them."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from tests.training.processes import ROOT

SOURCE = '''
@wrapped(limit=3)
def f(x: int = 1) -> "a + b":
    """Adds."""
    if x > 2:
        raise ValueError(f"{x + 1} is too much")
    return g(
        x,
        jnp.where(x, 2.0, x),
    )
'''
TESTS = """<testsuites><testsuite>
<testcase classname="tests.core.test_buckets" name="test_quick" time="0.5"/>
<testcase classname="tests.core.test_draws.TestRows" name="test_named[a b]" time="1.2"/>
<testcase classname="tests.core.test_draws" name="test_beside" time="0.1"/>
<testcase classname="tests.core.test_buckets" name="test_long" time="50"/>
<testcase classname="tests.core.test_buckets" name="test_fails" time="0.1"><failure/></testcase>
</testsuite></testsuites>"""
MODULE = Path("ldd_jax/core/draws.py")


@pytest.fixture
def mutants(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    return importlib.import_module("mutants")


@pytest.fixture
def mutate(mutants):
    pytest.importorskip("coverage")
    return importlib.import_module("mutate")


def test_what_computes_is_changed_and_nothing_else(mutants, tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(SOURCE)
    found = mutants.faults(path)
    assert [(f.before, f.after, f.lines) for f in found] == [
        ("1", "2", range(3, 4)),
        ("x > 2", "(x >= 2)", range(5, 6)),
        ("2", "3", range(5, 6)),
        ("jnp.where(x, 2.0, x)", "(2.0)", range(7, 11)),
        ("jnp.where(x, 2.0, x)", "(x)", range(7, 11)),
        ("2.0", "2.2", range(7, 11)),
    ]
    for fault in found:
        ast.parse(fault.applied(SOURCE.encode()))


def test_a_sample_is_that_of_its_seed(mutants):
    one, again, other = (mutants.sample(["core"], 20, seed) for seed in (0, 0, 1))
    assert one == again != other and len(set(one)) == 20


def test_who_is_asked_first(mutate, mutants, tmp_path):
    """By line before by file, files that name the module before others, as long as time lasts."""
    (tmp_path / "tests.xml").write_text(TESTS)
    source = tmp_path / "tree" / MODULE
    source.parent.mkdir(parents=True)
    data = mutate.CoverageData(str(tmp_path / "tree/.coverage"))
    for test in (
        "test_buckets.py::test_quick|run",
        "test_draws.py::TestRows::test_named[a b]|setup",
        "test_buckets.py::test_long|run",
        "test_buckets.py::test_fails|run",
    ):
        data.set_context(f"tests/core/{test}")
        data.add_lines({str(source): [7]})
    data.write()
    tests = mutate.Map.read(tmp_path)
    fault = mutants.Fault(MODULE, 7, range(6, 9), 0, 1, "a", "b")
    named = [f"tests/core/test_draws.py::{n}" for n in ("TestRows::test_named[a b]",)]
    quick = "tests/core/test_buckets.py::test_quick"
    stages = dict(tests.stages(fault, "whole", 10))
    assert stages["by line"] == [*named, quick]  # the long one is left out
    assert stages["by file"] == ["tests/core/test_draws.py::test_beside"]
    assert stages["slow"][:2] == ["-m", "slow"]
    assert "tests/core/test_buckets.py" in stages["slow"]
    assert "slow" not in dict(tests.stages(fault, "fast", 10))


@pytest.mark.parametrize(
    "answers, noticed",
    [
        ([1], ("by line", "FAILED tests/a.py::b")),
        ([124], ("by line", "FAILED tests/a.py::b")),
        ([0, 1], ("slow", "FAILED tests/a.py::b")),
        ([0, 124], ("", "slow tests were not finished")),
        ([0, 0], ("", "")),
    ],
)
def test_slow_tests_that_do_not_end_notice_nothing(
    mutate, mutants, monkeypatch, tmp_path, answers, noticed
):
    tree = tmp_path / "tree"
    (tree / MODULE).parent.mkdir(parents=True)
    (tree / MODULE).write_text("x = 1\n")
    asked = []

    def pytest_(folder, arguments, seconds=None):
        asked.append((folder / MODULE).read_text())
        return answers[len(asked) - 1], "FAILED tests/a.py::b - AssertionError"

    monkeypatch.setattr(mutate, "pytest", pytest_)
    tests = mutate.Map({"t": 1.0}, {MODULE: {1: {"t"}}})
    monkeypatch.setattr(tests.__class__, "stages", lambda *_: [("by line", ["t"]), ("slow", [])])
    fault = mutants.Fault(MODULE, 1, range(1, 2), 4, 5, "1", "2")
    assert mutate.attempt(tree, fault, tests, "whole", 10)[:2] == noticed
    assert asked == ["x = 2\n"] * len(answers) and (tree / MODULE).read_text() == "x = 1\n"


def test_a_copy_has_what_git_knows(mutate, tmp_path):
    tree = mutate.copied(tmp_path / "tree")
    assert (tree / "ldd_jax/recipes").is_symlink()
    assert {p.name for p in ROOT.glob("*.md")} <= {p.name for p in tree.iterdir()}
    assert (tree / MODULE).read_bytes() == (ROOT / MODULE).read_bytes()
