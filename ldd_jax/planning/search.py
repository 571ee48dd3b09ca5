"""The largest batch that fits, and how little has to be kept for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from ldd_jax.core.checks import is_whole, require
from ldd_jax.denoisers.stack import REMAT
from ldd_jax.planning import chips
from ldd_jax.planning.fitting import DoesNotFit
from ldd_jax.planning.plan import train, with_fields

# Remat policy and chunks, from what keeps most to what keeps least.
SAVING = (("none", 1), ("dots", 1), ("full", 1), ("full", 4), ("full", 16))


def policies(text: str) -> tuple[tuple[str, int], ...]:
    """Parse `full:4,full:16`; "" = `SAVING`.

    Raises:
      UserError: for anything else.
    """
    pairs = [item.partition(":") for item in filter(None, text.split(","))]
    good = all(remat in REMAT and is_whole(chunks, 1) for remat, _, chunks in pairs)
    require(good, f"--policies={text} is not remat:chunks,...; remat is one of {', '.join(REMAT)}")
    return tuple((remat, int(chunks)) for remat, _, chunks in pairs) or SAVING


def search(
    config: ConfigDict, vocabulary: int, topology: str, start: int, policies: tuple = SAVING
) -> dict[str, Any]:
    """The largest batch a chip that fits, and the remat policy and chunks that allow it.

    `config`, `vocabulary` and `topology` are those of `plan.on_slice`. Each of the `policies`,
    (remat, chunks), begins at `start` sequences a chip; see `largest`.
    """
    best: dict[str, Any] = {}
    tried: list[dict[str, Any]] = []
    for remat, chunks in policies:
        chosen = with_fields(config, model__remat=remat, model__chunks=chunks)

        def attempt(per_chip: int, chosen=chosen, remat=remat, chunks=chunks) -> float | None:
            nonlocal best
            entry = {"remat": remat, "chunks": chunks, "sequences_per_chip": per_chip}
            tried.append(entry)
            try:
                found = train(chosen, vocabulary, topology, per_chip)
            except DoesNotFit:
                entry["peak"] = None
                entry["fits"] = False
                return None
            entry["peak"] = found["gib_per_device"]["peak"]
            if not found["fits"]:
                return None
            if per_chip > best.get("sequences_per_chip", 0):
                best = found
            return entry["peak"]

        chip = chips.chip(topology)
        largest(attempt, start, chip.memory_gib / chip.cores)
    return {"best": best, "tried": tried}


def largest(attempt: Callable[[int], float | None], start: int, capacity: float) -> int:
    """The largest size with a peak, to within an eighth; 0 if there is none.

    Doubles `start` once, then goes where the line through the last two peaks meets the `capacity`;
    `attempt` makes a size a peak in its unit, or None where it does not fit.
    """
    fits: list[tuple[int, float]] = []
    over, size = 0, start
    for _ in range(8):
        peak = attempt(size)
        if peak is None:
            over = size
        else:
            fits.append((size, peak))
        low = fits[-1][0] if fits else 0
        step = max(1, 2 ** (low.bit_length() - 4))
        if over and over - low <= step:
            break
        size = 2 * low if fits else size // 2
        if len(fits) > 1 and fits[-1][1] > fits[-2][1]:
            (a, pa), (b, pb) = fits[-2:]
            reach = b + int((capacity - pb) * (b - a) / (pb - pa)) // step * step
            size = min(max(reach, b + step), 8 * b)
        if over and size >= over:
            size = (low + over) // 2 // step * step
        if size <= low:
            break
    return fits[-1][0] if fits else 0
