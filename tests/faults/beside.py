"""The tests and the fuzzer as rows of the table, beside the drills in a process of their own."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest

from tests.faults import drill, fuzz

HERE = Path(__file__).parent
FILES = {
    "storage": "damaged, full, read-only, shared, outdated storage",
    "numerics": "NaN and Inf",
    "input": "garbage in corpora",
    "hostile": "hostile files",
    "links": "links in strangers' workdirs",
    "data/test_tfds_folder": "classes that strangers' TFDS folders name",
    "core/test_console": "control characters from files",
    "strangers": "what strangers' workdirs make read, say or publish",
    "bombs": "small files, large bombs",
    "training/test_meeting": "strangers who call the roll",
    "core/test_buckets": "buckets that fail, leases, torn uploads",
    "cli/test_bucket": "runs and shards in buckets that fail",
}
# Nothing to lose.
NO_RUN = (
    *("hostile", "data/test_tfds_folder", "core/test_console", "strangers", "bombs"),
    "training/test_meeting",
)


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


def tested() -> list[drill.Row]:
    """A row for each file of tests; the fuzzer's short form is left out, its long one follows."""
    counted = Counted()
    where = {n: HERE.parent / f"{n}.py" if "/" in n else HERE / f"test_{n}.py" for n in FILES}
    files = [str(path) for path in where.values()]
    status = pytest.main(["-q", "-k", "not test_fuzz", *files], plugins=[counted])
    rows = []
    for name, what in FILES.items():
        found = counted.outcomes[where[name].stem]
        said = ", ".join(f"{n} {outcome}" for outcome, n in found.items()) or "nothing ran"
        good = set(found) <= {"passed", "skipped"} and found["passed"]
        tried = found.total() - found["skipped"]
        rows.append(drill.Row(what, tried, said if good else f"FAILED: {said}"))
        if name in NO_RUN:
            rows[-1].lost_steps = rows[-1].lost_examples = None
    # What pytest itself complains of (a file that cannot be read) belongs to no test.
    if status and not any(row.failed for row in rows):
        rows.append(drill.Row("tests", 0, f"FAILED: pytest ended with {status!r}"))
    return rows


def fuzzed(inputs: int) -> drill.Row:
    """A row for the fuzzer, with `inputs` for each reader."""
    tried = fuzz.everything(inputs)
    total, refused = (sum(n) for n in zip(*tried.values()))
    said = f"{refused:,} refused in words, none crashed"
    return drill.Row(f"fuzzed inputs, {len(tried)} readers", total, said, None, None)
