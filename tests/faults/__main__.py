"""All drills, tests of faults and fuzzing, as a table: python -m tests.faults (make faults).

Two lanes, for two cores: the drills here, tests and fuzzing in a process beside.
"""

from __future__ import annotations

import collections
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.faults import drill, fuzz, kills

# In 25 minutes on two cores; the fuzzer gets at least 100,000 inputs in all.
KILLS, STOPS, INPUTS = 20, 6, 6000
HERE = Path(__file__).parent
FILES = {
    "storage": "damaged, full, read-only, shared, outdated storage",
    "numerics": "NaN and Inf",
    "input": "garbage in corpora",
    "hostile": "hostile files",
}


class Counted:
    """A pytest plugin: how many tests of each file had which outcome, and who failed."""

    def __init__(self):
        self.outcomes: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report):
        # A test counts once: when called, or where its preparation failed or skipped it.
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[Path(report.location[0]).stem][report.outcome] += 1
            if report.failed:
                self.failed.append(report.nodeid)


def tests() -> list[drill.Row]:
    """A row for each file of tests; the fuzzer's short form is left out, its long one follows."""
    counted = Counted()
    files = [str(HERE / f"test_{name}.py") for name in FILES]
    status = pytest.main(["-q", "-k", "not test_fuzz", *files], plugins=[counted])
    rows = []
    for name, what in FILES.items():
        found = counted.outcomes[f"test_{name}"]
        said = ", ".join(f"{n} {outcome}" for outcome, n in found.items()) or "nothing ran"
        good = set(found) <= {"passed", "skipped"} and found["passed"]
        skipped = found.pop("skipped", 0)
        rows.append(drill.Row(what, found.total(), said if good else f"FAILED: {said}"))
        if name == "hostile":  # no run, nothing to lose
            rows[-1].lost_steps = rows[-1].lost_examples = None
        if skipped and not found.total():
            rows[-1].outcome = f"FAILED: all {skipped} skipped"
    # What pytest itself complains of (a file that cannot be read) belongs to no test.
    if status and not any(row.failed for row in rows):
        rows.append(drill.Row("tests", 0, f"FAILED: pytest ended with {status!r}"))
    return rows


def fuzzed() -> drill.Row:
    tried = fuzz.everything(INPUTS)
    total, refused = (sum(n) for n in zip(*tried.values()))
    said = f"{refused:,} refused in words, none crashed"
    return drill.Row(f"fuzzed inputs, {len(tried)} readers", total, said, None, None)


Drill = Callable[[], "drill.Row | list[drill.Row]"]


def attempt(name: str, run: Drill) -> list[drill.Row]:
    """What `run` returns; a row that says so where it fails."""
    began = time.monotonic()
    try:
        found = run()
        rows = found if isinstance(found, list) else [found]
    except (Exception, SystemExit) as error:  # whatever it is, the other drills are still run
        rows = [drill.Row(name, 1, f"FAILED: {type(error).__name__}: {str(error)[:2000]}")]
    for row in rows:
        print(row, flush=True)
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return rows


def main() -> int:
    began = time.monotonic()
    rows: list[drill.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(folder) / "compiled")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        beside = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=beside) as lane:
            tested, tried = lane.submit(tests), lane.submit(fuzzed)
            arena = drill.Arena(Path(folder))
            print(f"left alone: {time.monotonic() - began:.0f} s", flush=True)
            drills: dict[str, Drill] = {
                "SIGKILL": lambda: kills.sigkill(arena, KILLS),
                "SIGTERM, SIGINT": lambda: kills.sigterm(arena, STOPS),
                "SIGTERM to one of two processes": lambda: kills.one_of_two(arena, drill.SIGTERM),
                "SIGKILL to one of two processes": lambda: kills.one_of_two(arena, drill.SIGKILL),
                "other numbers of devices": lambda: kills.other_devices(arena),
                "tests": tested.result,
                "fuzzed inputs": tried.result,
            }
            for name, run in drills.items():
                rows += attempt(name, run)
    print("\n| fault | times tried | outcome | lost steps | lost examples |\n|---|---|---|---|---|")
    for r in rows:
        said = " ".join(r.outcome.split())[:300]
        lost = ["-" if n is None else n for n in (r.lost_steps, r.lost_examples)]
        print(f"| {r.fault} | {r.tried:,} | {said} | {lost[0]} | {lost[1]} |")
    failed = sum(row.failed for row in rows)
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
