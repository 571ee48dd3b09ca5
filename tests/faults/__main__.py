"""All drills and fuzzing, as a table: python -m tests.faults (make faults)."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.faults import drill, fuzz, kills

# In 25 minutes on two cores; the fuzzer gets at least 100,000 inputs in all.
KILLS, STOPS, INPUTS = 20, 6, 7500


def main() -> int:
    began, failed = time.monotonic(), 0
    rows: list[drill.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(folder) / "compiled")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        arena = drill.Arena(Path(folder))
        drills = {
            "SIGKILL": lambda: kills.sigkill(arena, KILLS),
            "SIGTERM, SIGINT": lambda: kills.sigterm(arena, STOPS),
            "one of two processes stopped": lambda: kills.one_of_two(arena, drill.SIGTERM),
            "one of two processes killed": lambda: kills.one_of_two(arena, drill.SIGKILL),
            "other numbers of devices": lambda: kills.other_devices(arena),
        }
        for name, run in drills.items():
            try:
                rows.append(run())
            except AssertionError as error:
                rows.append(drill.Row(name, 1, f"FAILED: {str(error)[:200]}"))
                failed += 1
            failed += bool(rows[-1].lost_steps or rows[-1].lost_examples)
            print(rows[-1], flush=True)
    tests = Path(__file__).parent
    for name, file in (("storage", "storage"), ("NaN and Inf", "numerics"), ("files", "hostile")):
        status = pytest.main(["-q", str(tests / f"test_{file}.py")])
        failed += status != 0
        rows.append(drill.Row(f"{name}: test_{file}.py", 1, "passed" if not status else "FAILED"))
    try:
        tried = fuzz.everything(INPUTS)
        total, refused = (sum(n) for n in zip(*tried.values()))
        said = f"{refused:,} refused in words, none crashed"
        rows.append(drill.Row(f"fuzzed inputs, {len(tried)} readers", total, said))
    except AssertionError as error:
        failed += 1
        rows.append(drill.Row("fuzzed inputs", INPUTS, f"FAILED: {str(error)[:300]}"))
    print("\n| fault | times tried | outcome | lost steps | lost examples |\n|---|---|---|---|---|")
    for r in rows:
        print(f"| {r.fault} | {r.tried:,} | {r.outcome} | {r.lost_steps} | {r.lost_examples} |")
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
