"""The table of latencies: ratios within a block, and that its calls exist."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import ldd_jax

FILE = Path(__file__).parents[2] / "launch" / "latency.py"


@pytest.fixture(scope="module")
def latency():
    spec = importlib.util.spec_from_file_location("latency", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ratios_are_those_to_the_first_line_of_a_block(latency):
    calls = [("first", 2.0, None), ("later", 0.5, None)]
    processes = [("nothing kept", 4.0, 3.0), ("the second", 2.0, 1.0)]
    assert latency.table([calls, processes]).splitlines()[2:] == [
        "| first | 2.000 |  | 1.0 |",
        "| later | 0.500 |  | 4.0 |",
        "| nothing kept | 4.000 | 3.00 | 1.0 (1.0) |",
        "| the second | 2.000 | 1.00 | 2.0 (3.0) |",
    ]


def test_calls_are_timed_one_by_one(latency, monkeypatch):
    asked = []

    class Model:
        def sample(self, count, **options):
            asked.append(("sample", count, options))

        def fill(self, text, count, **options):
            asked.append(("fill", text, options))

        def nll(self, text):
            asked.append(("nll", text))

    monkeypatch.setattr(ldd_jax, "load", lambda workdir: Model())
    blocks = latency.calls("nowhere", repeats=2)
    assert [len(b) for b in blocks] == [2, 2, 2] and len(asked) == 9
    assert asked[0] == ("sample", 2, {"steps": 8, "seed": 0})
    assert all(text.count("[MASK]") == 2 and len(text) == 21 for _, text, _ in asked[3:6])
