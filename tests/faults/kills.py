"""Drills with signals; each returns a row of the table and raises AssertionError if it fails."""

from __future__ import annotations

import random
import re
import signal
import time
from pathlib import Path

from tests.faults import drill
from tests.faults.drill import Arena, Row
from tests.training.test_distributed import free_port

# Said in docs/reliability.md for tiny runs on a CPU: from the signal to the end of the process.
LEAVE_WITHIN = 20.0


def sigkill(arena: Arena, times: int, seed: int = 0) -> Row:
    """SIGKILL while starting, between updates, and while a checkpoint is being written."""
    draw, workdir = random.Random(seed), arena.folder / f"killed{seed}"
    hit = {"starting": 0, "training": 0, "writing": 0}
    kinds = [
        ("training", "writing", "writing", "training", "starting")[i % 5] for i in range(times)
    ]
    for kind in kinds:
        running = arena.start(workdir, pause=0.02)
        if kind == "starting":
            time.sleep(draw.uniform(0.1, 6.0))
            ready = lambda: True
        else:
            goal = arena.steps(workdir) + draw.randint(2, 10)
            ready = lambda: arena.steps(workdir) >= goal  # noqa: B023
        assert drill.wait(running, ready), running.communicate()
        if kind == "writing":
            assert drill.wait(running, lambda: drill.writing(workdir), nap=0.0002)
        time.sleep(draw.uniform(0, 0.004))
        ended = drill.strike(running, drill.SIGKILL)
        assert ended.status == -drill.SIGKILL, ended
        hit[kind] += 1
    end = arena.run(workdir)
    assert end.status == 0, end
    drill.same(arena.whole, workdir)
    lost = drill.losses(arena, workdir)
    where = ", ".join(f"{n} {k}" for k, n in hit.items())
    return Row(f"SIGKILL ({where})", times, "same curve and state to the bit", *lost)


def sigterm(arena: Arena, times: int, seed: int = 0) -> Row:
    """SIGTERM and SIGINT at random updates: saved, exit 75, in time; then on to the same end."""
    draw, workdir = random.Random(seed), arena.folder / f"stopped{seed}"
    slowest = 0.0
    for number in range(times):
        running = arena.start(workdir, pause=0.02)
        goal = arena.steps(workdir) + draw.randint(1, 12)
        assert drill.wait(running, lambda: arena.steps(workdir) >= goal), running.communicate()  # noqa: B023
        began = time.monotonic()
        ended = drill.strike(running, (drill.SIGTERM, drill.SIGINT)[number % 2])
        slowest = max(slowest, time.monotonic() - began)
        assert ended.status == 75 and "the same command goes on" in ended.out, ended
        step = int(re.search(r"stopped at step (\d+) of", ended.out)[1])  # type: ignore[index]
        assert (workdir / "checkpoints" / str(step)).is_dir()
        assert step == len(drill.account(arena.ledger(workdir)))  # every update made was saved
    assert slowest < LEAVE_WITHIN
    end = arena.run(workdir)
    assert end.status == 0, end
    drill.same(arena.whole, workdir)
    lost = drill.losses(arena, workdir)
    return Row(
        "SIGTERM, SIGINT", times, f"saved, exit 75, slowest {slowest:.1f} s; same bits", *lost
    )


def other_devices(arena: Arena, counts: tuple[int, ...] = (4, 2, 1)) -> Row:
    """Killed, and continued on another number of devices."""
    workdir = arena.folder / "moved"
    for devices in counts:
        mesh = f"--config.mesh.data={devices}"
        goal = arena.steps(workdir) + 10
        running = arena.start(workdir, mesh, devices=devices, pause=0.02)
        assert drill.wait(running, lambda: arena.steps(workdir) >= goal), running.communicate()  # noqa: B023
        drill.strike(running, drill.SIGKILL)
    end = arena.run(workdir, f"--config.mesh.data={counts[0]}", devices=counts[0])
    assert end.status == 0, end
    drill.same(arena.whole, workdir, within=1e-5)
    lost = drill.losses(arena, workdir)
    names = ", ".join(map(str, (*counts, counts[0])))
    return Row(f"SIGKILL, then {names} devices", len(counts), "equal to 1e-5", *lost)


def pair(arena: Arena, workdir: Path, pause: float = 0.0):
    """Two processes of one run, a device each."""
    port = free_port()
    place = lambda rank: f"--distributed=127.0.0.1:{port},2,{rank}"
    more = ("--config.mesh.data=2", "--start_limit=120")
    return [arena.start(workdir, place(rank), *more, pause=pause) for rank in (0, 1)]


def one_of_two(arena: Arena, number: int = drill.SIGKILL) -> Row:
    """A signal to one of two processes; both end; the same command twice goes on."""
    name = signal.Signals(number).name
    workdir = arena.folder / f"pair-{name}"
    running = pair(arena, workdir, pause=0.05)
    assert drill.wait(running[0], lambda: arena.steps(workdir) >= 10), running[0].communicate()
    began = time.monotonic()
    ended = [drill.strike(running[1], number)]
    out, err = running[0].communicate(timeout=drill.LIMIT)
    ended.append(drill.tools.Result(running[0].returncode, out, err))
    seconds = time.monotonic() - began
    if number == drill.SIGTERM:
        assert [e.status for e in ended] == [75, 75], ended
        assert "the same command goes on" in ended[1].out, ended
        outcome = f"both saved the same step and left with 75 in {seconds:.1f} s"
    else:
        assert [e.status for e in ended] == [-number, 75], ended
        assert "process 1 of 2 is gone" in ended[1].err, ended
        assert "F0000" not in ended[1].err and "Traceback" not in ended[1].err, ended
        outcome = f"the other left in {seconds:.1f} s"
    again = pair(arena, workdir)
    for process in again:
        out, err = process.communicate(timeout=drill.LIMIT)
        assert process.returncode == 0, err[-3000:]
    drill.same(arena.whole, workdir, within=1e-5)
    lost = _of_two(arena, workdir)
    return Row(f"{name} to one of two processes", 1, f"{outcome}; equal to 1e-5", *lost)


def _of_two(arena: Arena, workdir: Path) -> tuple[int, int]:
    """Steps and rows that differ from the run left alone, both shares together."""
    ledger = arena.ledger(workdir)
    shares = [drill.account(ledger, rank) for rank in (0, 1)]
    whole = drill.account(arena.ledger(arena.whole))
    joined = [a + b for a, b in zip(*shares, strict=True)]
    wrong = [(a, b) for a, b in zip(joined, whole) if a != b]
    return abs(len(whole) - len(joined)) + len(wrong), sum(len(set(b) - set(a)) for a, b in wrong)
