"""Options of the `sample` command and of its Python twin: names, types, and what they set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ldd_jax.config import learned
from ldd_jax.config.sections import Sampling
from ldd_jax.core import registry
from ldd_jax.core.checks import UserError, nearest, require, typed

LATENTS: dict[str, dict[str, Any]] = {
    "carry": {},
    "off": {"reset_every": 1},
    "frozen": {"frozen": True},
}


# What the `sample` command's flags are called, and what they take; `steps` aside, `overlaid` knows
# those that do not say what is asked for, but how it is drawn.
HOW: dict[str, type] = {
    "num_samples": int,
    "steps": int,
    "batch_size": int,
    "sampler": str,
    "grid": str,
    "blocks": str,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "latent": str,
    "reset_every": int,
    "reset_on_remask": bool,
    "guidance": float,
    "tail": str,
    "stop": str,
    "compact": int,
}


WHAT: dict[str, type] = {
    "prompt": str,
    "fill": str,
    "seed": int,
    "length": int,
    "label": str,
    "given": str,
}


def given(allowed: Mapping[str, type], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, each of its type; None = not given.

    Raises:
      UserError: for an unknown option, or a value of another type.
    """
    for name in options:
        require(name in allowed, f"unknown option {name!r}; {nearest(name, allowed)}")
    return {n: typed(n, v, allowed[n]) for n, v in options.items() if v is not None}


def check_latent(takes: bool, options: Mapping[str, Any]) -> None:
    """Refuse options about the latent where the network has none.

    Args:
      takes: whether the network takes one.
      options: those that were given, by name.

    Raises:
      UserError: for one that says something of it.
    """
    asked = options.get("latent") not in (None, "carry")
    asked |= bool(options.get("reset_every") or options.get("reset_on_remask"))
    require(
        takes or not asked,
        "this network takes no latent; --latent, --reset_every, --reset_on_remask do not apply",
    )


def overlaid(defaults: Sampling, **options: Any) -> Sampling:
    """The config's sampling with options (`HOW`) laid over it; None = the config's.

    Raises:
      UserError: for an unknown option or a value that does not fit.
    """
    left = given(HOW, options)
    take = lambda *names: {n: left.pop(n) for n in names if n in left}
    try:
        readout = dataclasses.replace(defaults.readout, **take("temperature", "top_p", "top_k"))
        latent = dataclasses.replace(defaults.latent, **take("reset_every", "reset_on_remask"))
        mode = left.pop("latent", "carry")
        require(mode in LATENTS, f"latent {mode!r}; {nearest(mode, LATENTS)}")
        latent = dataclasses.replace(latent, **LATENTS[mode])
        stepped = "steps" in left or "grid" in left
        parts = {
            name: registry.parse(name, left.pop(key)) if key in left else getattr(defaults, name)
            for name, key in (("step", "sampler"), ("blocks", "blocks"), ("stop", "stop"))
        }
        own = "sampler" not in options or options["sampler"] is None
        if "grid" in left:
            found = learned.grid(left.pop("grid"))
            parts["grid"], readout = found.grid, found.over(readout)
            parts |= {"step": found.step} if found.step and own else {}
            left |= {"steps": found.steps} if found.steps and "steps" not in left else {}
        require(
            parts["step"].counts_steps or not stepped,
            "this sampler takes as many steps as its rows need; --steps and --grid do not apply",
        )
        if "steps" in left:
            left["num_steps"] = left.pop("steps")
        return dataclasses.replace(defaults, readout=readout, latent=latent, **parts, **left)
    except ValueError as error:
        raise UserError(str(error)) from error
