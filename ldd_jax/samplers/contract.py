"""The contract of every step rule as a table, read from the rules themselves."""

from __future__ import annotations

from ldd_jax.core.registry import find, names
from ldd_jax.samplers.base import Step

CARRIES = {
    "native": "carried, as in training",
    "untrained": "carried, untrained regime",
    "refused": "refused",
}


def table() -> str:
    """Markdown: rule, processes, clock, network calls of a step, and what happens to h."""
    lines = ["| sampler | processes | steps | calls a step | latent h |", "|---|---|---|---|---|"]
    for name in names("step"):
        cls = find("step", name)
        if not cls.__module__.startswith(__package__ or ""):
            continue  # a user's own rule
        step: Step = cls()
        kinds = step.processes or ("masked" if step.one_way else "masked, uniform")
        clock = "on a grid" if step.clock == "grid" else "its own"
        lines.append(f"| {name} | {kinds} | {clock} | {step.calls} | {CARRIES[step.latent]} |")
    return "\n".join(lines)
