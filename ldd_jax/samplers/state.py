"""What sampling carries from step to step, and the conditions that it starts from."""

from __future__ import annotations

from typing import Any, NamedTuple

from ldd_jax.core.types import Array


class Clamp(NamedTuple):
    """Conditions: tokens [B, L] fixed where `fixed` [B, L]; `segment` [B, L] 0 marks padding.

    `prompt` [B, L]: what of the fixed is the condition, and not text made before or noise still
    ahead; None = all of it.
    """

    tokens: Any
    fixed: Array
    segment: Array | None = None
    prompt: Array | None = None


class SampleState(NamedTuple):
    """What sampling carries from step to step.

    z: tokens [B, L], or a tree of [B, L, ...]; clock: where the reverse process stands, [B] for a
    time a row, [B, L] or a tree where positions have their own; h: opaque latent; free [B, L]:
    neither clamped nor padding; calls [B]: network passes of each row.
    memory: what a step keeps for itself (confidences, caches), from `Step.init`;
    its leaves have a leading B. prompt [B, L]: the condition (`Clamp`); None = all that is not
    free. lawless [B]: rows that were to be drawn from no law (`core.draws.NO_LAW`); their tokens
    mean nothing.
    """

    z: Any
    clock: Any
    h: Any
    free: Array
    calls: Array
    memory: Any = ()
    prompt: Array | None = None
    lawless: Array | None = None
