"""How much the tests notice: a sample of small faults is put into the code, one after the other.

    python launch/mutate.py [--mutants=100] [--seed=0] [--rooms=core,processes,objectives,samplers]
                            [--until=fast] [--seconds=300] [--map=runs/mutants] [--jobs=2]
                            [--list] [--only=NUMBER,...]

A fault is one expression changed (an operator, a comparison, a number, a condition, a call that
falls away); annotations, messages and decorators are left alone. The sample is drawn from all of
them with the seed. First the fast tests run once, and which of them comes by which line is written
down, with their seconds (`--map`; made again when a source changes). Then each fault is tried in a
copy of the repository until a test fails: the tests that come by its line, shortest first and those
whose file names the module before others (`by line`); the other fast tests of these files and of
files that name the module (`by file`); slow tests of the same files (`slow`, with `--until=whole`).
A stage ends after `--seconds` of tests. Prints a line per fault, then the score and the survivors;
whoever reads it says which of those change no result.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from coverage import CoverageData
from mutants import ROOT, Fault, sample

SOURCES = ("ldd_jax", "tests", "configs")
STAGES = ("by line", "by file", "slow")
QUICK = ["-m", "not slow"]
HUNG = "no end in time"
# A test of a file that names the module is tried before one of another that takes a third as long.
NAMED = 3


def pytest(folder: Path, arguments: list[str], seconds: float | None = None) -> tuple[int, str]:
    """(exit status, what it printed) of pytest in a copy of the repository; 124: no end in time."""
    flags = re.search(r"QUICK = \((.*?)\)", (ROOT / "tests/conftest.py").read_text(), re.DOTALL)
    assert flags is not None
    env = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "TEST_PROGRAMS": str(folder.parent / "programs"),  # most of a faulty tree's are those kept
        "XLA_FLAGS": ast.literal_eval(f"({flags[1]})"),
    }
    command = [sys.executable, "-m", "pytest", "-o", "addopts=--strict-markers", "-q", "--tb=no"]
    command += ["-p", "no:cacheprovider", *arguments]
    kept = dict(cwd=folder, env=env, capture_output=True, text=True)
    try:
        done = subprocess.run(command, timeout=seconds, **kept)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired:
        return 124, ""
    return done.returncode, done.stdout


def copied(folder: Path) -> Path:
    """A copy of the repository: what git knows or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, found.split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@dataclasses.dataclass(frozen=True)
class Map:
    """Fast tests that pass: seconds of each, and those that come by a line of a file."""

    seconds: dict[str, float]
    lines: dict[Path, dict[int, set[str]]]

    @classmethod
    def made(cls, folder: Path, jobs: int) -> Map:
        """Read from `folder`, where it is of these sources; else by a run of the fast tests."""
        digest = hashlib.sha256()
        for path in sorted(
            p for d in ("ldd_jax", "tests", "configs") for p in (ROOT / d).rglob("*.py")
        ):
            digest.update(path.read_bytes())
        said = folder / "sources"
        if not (said.is_file() and said.read_text() == digest.hexdigest()):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            tree = copied(folder / "tree")
            each = ["-n", str(jobs), "--dist", "loadfile", f"--junitxml={folder / 'tests.xml'}"]
            each += [f"--cov={tree / 'ldd_jax'}", "--cov-context=test", "--cov-report="]
            status, out = pytest(tree, [*QUICK, *each])
            if status not in (0, 1):  # 1: some failed; those are not asked
                raise SystemExit(f"the fast tests do not run: {out[-2000:]}")
            said.write_text(digest.hexdigest())
        return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> Map:
        """Of a finished run."""
        seconds = {}
        for case in ElementTree.parse(folder / "tests.xml").iter("testcase"):
            if not len(case):  # neither failed nor skipped
                module, _, inside = case.attrib["classname"].partition(".Test")
                names = [f"Test{inside}"] * bool(inside) + [case.attrib["name"]]
                test = "::".join([module.replace(".", "/") + ".py", *names])
                seconds[test] = float(case.attrib["time"])
        data, tree = CoverageData(str(folder / "tree/.coverage")), folder.resolve() / "tree"
        data.read()
        lines = {
            Path(file).relative_to(tree): {
                line: {c.rpartition("|")[0] for c in contexts} & seconds.keys()
                for line, contexts in data.contexts_by_lineno(file).items()
            }
            for file in data.measured_files()
        }
        return cls(seconds, lines)

    def stages(self, fault: Fault, until: str, limit: float) -> Iterator[tuple[str, list[str]]]:
        """(name, arguments of pytest) of every stage, what is nearest first."""
        words = [fault.path.stem] + [
            node.name
            for node in ast.parse((ROOT / fault.path).read_bytes()).body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
        ]
        files = sorted(p.relative_to(ROOT) for p in (ROOT / "tests").rglob("test_*.py"))
        told = {
            str(f)
            for f in files
            if any(re.search(rf"\b{w}\b", (ROOT / f).read_text()) for w in words)
        }
        of = lambda test: test.partition("::")[0]
        cost = lambda test: self.seconds[test] / (NAMED if of(test) in told else 1)
        by_line: set[str] = set()
        for line in fault.lines:
            by_line |= self.lines.get(fault.path, {}).get(line, set())
        nearest = {of(test) for test in by_line} | told
        by_file = {t for t in self.seconds if of(t) in nearest} - by_line
        for name, tests in ((STAGES[0], by_line), (STAGES[1], by_file)):
            chosen, spent = [], 0.0
            for test in sorted(tests, key=cost):
                spent += self.seconds[test]
                chosen += [test] if spent <= limit or not chosen else []
            if chosen:
                yield name, chosen
        if until == "whole":
            order = sorted(nearest, key=lambda file: (file not in told, file))
            yield STAGES[2], ["-m", "slow", *order]


def attempt(
    tree: Path, fault: Fault, tests: Map, until: str, limit: float
) -> tuple[str, str, float]:
    """(stage, test) that noticed a fault, no stage if none did, and the seconds."""
    path, began = tree / fault.path, time.monotonic()
    source, chosen = path.read_bytes(), tree.parent / f"{tree.name}.tests"
    path.write_bytes(fault.applied(source))
    try:
        for stage, arguments in tests.stages(fault, until, limit):
            chosen.write_text("\n".join(arguments))
            status, out = pytest(tree, ["-x", f"@{chosen}"], 4 * limit + 300)
            if status in (0, 5):  # 5: no test was chosen
                continue
            if status == 124 and stage == STAGES[2]:  # as many as there are: no wonder
                return "", "slow tests were not finished", time.monotonic() - began
            lines = [s for s in out.splitlines() if s.startswith(("FAILED", "ERROR"))]
            said = HUNG if status == 124 else f"pytest ended with {status}"
            return stage, lines[0].split(" - ")[0] if lines else said, time.monotonic() - began
    finally:
        path.write_bytes(source)
    return "", "", time.monotonic() - began


def failing(tree: Path, said: set[str]) -> set[str]:
    """Those of the tests that noticed something which fail in a sound tree as well."""
    chosen = tree.parent / f"{tree.name}.tests"
    chosen.write_text("\n".join(s.removeprefix("FAILED ") for s in said if s.startswith("FAILED")))
    out = pytest(tree, [f"@{chosen}"])[1] if chosen.read_text() else ""
    return said & {line.split(" - ")[0] for line in out.splitlines()}


def main() -> None:
    """Try the sample, print the score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", default="core,processes,objectives,samplers")
    parser.add_argument("--until", choices=("fast", "whole"), default="fast")
    parser.add_argument("--seconds", type=float, default=300, help="of tests in a stage")
    parser.add_argument("--map", type=Path, default=ROOT / "runs/mutants")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="numbers of the sample")
    parser.add_argument("--list", action="store_true", help="print the sample, try nothing")
    given = parser.parse_args()
    drawn = list(enumerate(sample(given.rooms.split(","), given.mutants, given.seed)))
    if given.only:
        drawn = [drawn[int(number)] for number in given.only.split(",")]
    if given.list:
        print("\n".join(f"{number:3} {fault}" for number, fault in drawn))
        return
    tests = Map.made(given.map.absolute(), given.jobs)
    print(f"{len(tests.seconds)} fast tests, {sum(tests.seconds.values()):.0f} s", flush=True)
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        free = [copied(Path(folder) / str(job)) for job in range(given.jobs)]

        def tried(fault):
            tree = free.pop()
            try:
                return attempt(tree, fault, tests, given.until, given.seconds)
            finally:
                free.append(tree)

        with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
            for number, fault, done in [(n, f, pool.submit(tried, f)) for n, f in drawn]:
                stage, test, seconds = done.result()
                outcomes.append((number, fault, test if stage else ""))
                said = f"{stage}: {test}" if stage else f"NOT NOTICED {test}".rstrip()
                print(f"{number:3} {fault}\n    {said} ({seconds:.0f} s)", flush=True)
        unsound = failing(free[0], {test for _, _, test in outcomes})
    survived = [(n, fault) for n, fault, test in outcomes if not test or test in unsound]
    noticed = len(drawn) - len(survived)
    print(f"{noticed} of {len(drawn)} noticed ({noticed / len(drawn):.0%})")
    for test in sorted(unsound):
        print(f"fails without a fault: {test}")
    for number, fault in survived:
        print(f"survived: {number:3} {fault}")


if __name__ == "__main__":
    main()
