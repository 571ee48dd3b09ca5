"""The readers' fuzz targets under atheris, which keeps inputs that reach new lines of ldd_jax.

    pip install atheris; python -m tests.faults.guided [--seconds=20] [--only=NAME]

Each target runs in a process of its own, since libFuzzer ends its process; exit status 1 and the
input are shown where one raises anything but UserError. atheris is not a dependency.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def fuzz_one(name: str, seconds: int) -> None:
    """Never returns."""
    import atheris

    with atheris.instrument_imports(include=["ldd_jax", "json", "gzip"]):
        from ldd_jax.core.checks import UserError
        from tests.faults.fuzz import Fuzzer

    folder = Path(tempfile.mkdtemp())
    target, seeds = Fuzzer(folder / "files").targets[name]
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)

    def one(data: bytes) -> None:
        try:
            target(data)
        except UserError as error:
            assert str(error).strip()

    limits = [f"-max_total_time={seconds}", "-max_len=2000", "-timeout=60"]
    places = [f"-artifact_prefix={folder}/", "-print_final_stats=1", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *places], one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=20, help="for each target")
    parser.add_argument("--only", help="a target; all if not given")
    parser.add_argument("--here", action="store_true", help="in this process, which it ends")
    chosen = parser.parse_args()
    if chosen.here:
        fuzz_one(chosen.only, chosen.seconds)
    from tests.faults.fuzz import Fuzzer  # not before: what is imported is not instrumented

    total, failed = 0, 0
    for name in (chosen.only,) if chosen.only else Fuzzer.NAMES:
        command = [sys.executable, "-m", "tests.faults.guided", "--here", f"--only={name}"]
        out = subprocess.run(
            [*command, f"--seconds={chosen.seconds}"], capture_output=True, text=True
        )
        found = re.search(r"number_of_executed_units: (\d+)", out.stderr)
        lines = re.findall(r"cov: (\d+)", out.stderr)
        good = found is not None and bool(lines) and not out.returncode
        count = int(found[1]) if found else 0
        total, failed = total + count, failed + (not good)
        print(f"{name}: {count:,} inputs, coverage {lines[-1] if lines else 0}", flush=True)
        if not good:
            print(out.stdout[-2000:] + out.stderr[-4000:], flush=True)
    print(f"{total:,} inputs, {failed} targets failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
