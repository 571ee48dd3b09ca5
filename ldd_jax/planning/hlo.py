"""What a compiled program's text says: collectives and how often they run, large arrays."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Mapping

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f64": 8, "s64": 8, "u64": 8}

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(r"= (.*?) (" + "|".join(KINDS) + r")(-start)?\(")
_CALLED = re.compile(r"\b(?:calls|to_apply|called_computations)=\{?%?([\w.\-]+)")
_WHILE = re.compile(r"\bcondition=%?([\w.\-]+), body=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_LIMIT = re.compile(r"= s32\[\][^=]* constant\((\d+)\)")
_SCOPE = re.compile(r'op_name="([^"]*)"')
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


def _bytes(result: str, start: bool) -> int:
    """Bytes of a result; a started gather names its operand too, so the larger one counts."""
    sizes = [
        WIDTHS.get(dtype, 4) * math.prod(int(s) for s in filter(None, shape.split(",")))
        for dtype, shape in _SHAPE.findall(result)
    ]
    return max(sizes) if start else sum(sizes)


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations of a program and how often each runs.

    times: expected runs of a computation; open: those in a loop over rows, whose length depends on
    the data (one that `expected` names and whose trips the text does not tell).
    """

    lines: Mapping[str, list[str]]
    times: Mapping[str, float]
    open: frozenset[str]

    @classmethod
    def read(cls, text: str, expected: Mapping[str, float] | None = None) -> Program:
        """Parse; `expected` maps a scope's name to trips of a loop or probability of a branch."""
        lines: dict[str, list[str]] = {}
        entry = here = ""
        for line in text.splitlines():
            if header := _HEADER.match(line):
                here = header.group(2)
                lines[here] = []
                entry = here if header.group(1) else entry
            elif here:
                lines[here].append(line)
        times: dict[str, float] = defaultdict(float, {entry: 1.0})
        open_: set[str] = set()
        for name in reversed(lines):  # callers stand after those they call
            for line in lines[name]:
                for callee, factor, data_dependent in _calls(line, lines, expected or {}):
                    times[callee] += times[name] * factor
                    if data_dependent or name in open_:
                        open_.add(callee)
        return cls(lines, dict(times), frozenset(open_))

    def sites(self) -> list[tuple[str, int, float, bool]]:
        """Kind, bytes, runs and whether in a data-dependent loop, of every collective.

        One that the compiler spreads over several fusions keeps its channel and counts once.
        """
        found: dict[str, tuple[str, int, float, bool]] = {}
        for name, body in self.lines.items():
            for number, line in enumerate(body):
                if not (match := _COLLECTIVE.search(line)):
                    continue
                channel = re.search(r"channel_id=(\d+)", line)
                key = channel.group(1) if channel else f"{name}:{number}"
                kind, start = match.group(2), bool(match.group(3))
                size = _bytes(match.group(1), start and kind in ("all-gather", KINDS[4]))
                site = (kind, size, self.times.get(name, 0.0), name in self.open)
                found[key] = max(found.get(key, site), site)
        return list(found.values())

    def collectives(self) -> dict[str, dict[str, float]]:
        """By kind: sites, runs and bytes of their results in one run of the program."""
        out: dict[str, dict[str, float]] = {}
        for kind, size, runs, _ in self.sites():
            entry = out.setdefault(kind, {"sites": 0, "runs": 0.0, "bytes": 0.0})
            entry["sites"] += 1
            entry["runs"] += runs
            entry["bytes"] += runs * size
        return out


def _calls(line: str, lines: Mapping, expected: Mapping[str, float]) -> list:
    """(computation, runs per run of this line, whether that depends on the data)."""
    scope = match.group(1) if (match := _SCOPE.search(line)) else ""
    stated = next((v for k, v in expected.items() if k in scope), None)
    if match := _WHILE.search(line):
        if known := _TRIPS.search(line):
            trips: float | None = float(known.group(1))
        else:
            limits = [m.group(1) for m in map(_LIMIT.search, lines.get(match.group(1), ())) if m]
            trips = float(limits[0]) if len(limits) == 1 else None
        runs = trips if trips is not None else 1.0 if stated is None else stated
        return [(name, runs, trips is None and stated is not None) for name in match.groups()]
    if match := _BRANCHES.search(line):
        names = [n.strip().lstrip("%") for n in match.group(1).split(",")]
        if stated is not None and len(names) == 2:
            return [(names[0], 1 - stated, False), (names[1], stated, False)]
        return [(name, 1.0, False) for name in names]
    return [(name, 1.0, False) for name in _CALLED.findall(line)]


def largest_float32(text: str, multiple_of: int = 1) -> int:
    """Elements of the largest float32 array that the program names.

    With a prime vocabulary for `multiple_of`, of those that hold logits.
    """
    shapes = set(re.findall(r"f32\[([\d,]+)\]", text))
    sizes = (math.prod(map(int, shape.split(","))) for shape in shapes)
    return max((size for size in sizes if size % multiple_of == 0), default=0)
