"""What a network gives on recorded inputs, under the names of the recordings.

A recording is an .npz file with `x` [B, L] tokens, `sigma` [B] (absent: a network without time),
`label` [B], and outputs: `logits`, or `logits_i` and `latent_i` of pass i with the latent carried;
a tail `_notime` means sigma = 0: what a module gives that zeroes sigma before its network, as
those of MDLM and LDDM-M do, belongs under `logits_notime`; `logits_cond`, `logits_uncond`,
`logits_nocond` with classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, require
from ldd_jax.core.types import Cond
from ldd_jax.denoisers import DiT

FED = (
    "sigma was fed as recorded, though this model does not tell its network the time; outputs of a "
    "module that zeroes sigma belong under logits_notime"
)
MOST_TOKENS = 1 << 20


def passer(model: DiT, params: Any):
    """(z, sigma, h, label) -> (logits, latent), compiled; sigma is fed as given."""
    timed = dataclasses.replace(model, time_conditioning=model.adaln)

    @jax.jit
    def run(params, z, sigma, h, label):
        denoiser = timed.bind(params)
        trunk = denoiser.trunk(z, Cond(clock=sigma if model.adaln else None, label=label), h)
        return denoiser.head(trunk.features), trunk.latent

    return lambda z, sigma, h=None, label=None: run(params, z, sigma, h, label)


def outputs(
    model: DiT, params: Any, arrays: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, jax.Array]]:
    """(name, our value) for every output among `arrays` that this network has.

    Args:
      model: config of the network.
      params: its parameters.
      arrays: tokens x [B, L], sigma and label [B] where it has them, and what was put out.

    Raises:
      UserError: where the tokens do not fit the network.
    """
    require("x" in arrays, "the recording has no array x (tokens [B, L])")
    plain = {n: a.dtype.kind for n, a in arrays.items()}
    odd = sorted(n for n, kind in plain.items() if kind not in "fiub")
    require(not odd, f"the recording's {odd[:3]} are no real numbers")
    x = np.asarray(arrays["x"])
    require(
        x.ndim == 2
        and 0 < x.size <= MOST_TOKENS
        and plain["x"] in "iu"
        and x.min() >= 0
        and x.max() < model.tokens.size,
        f"recorded tokens of shape {x.shape} do not fit {model.tokens.size} states, or are over "
        f"{MOST_TOKENS:,}",
    )
    sigma = np.asarray(arrays.get("sigma", np.zeros(x.shape[0])), np.float32)
    label = np.asarray(arrays.get("label", np.zeros(x.shape[0], np.int32)))
    good = label.dtype.kind in "iu" and bool(np.all((label >= 0) & (label <= model.num_classes)))
    require(
        sigma.shape == label.shape == x.shape[:1] and good,
        f"the recording has sigma {sigma.shape} and label {label.shape} for tokens {x.shape}, or "
        f"labels that are not of {model.num_classes} classes",
    )
    run = passer(model, params)
    for tail, clock in (("", sigma), ("_notime", np.zeros_like(sigma))):
        if f"logits{tail}" in arrays:
            yield f"logits{tail}", run(x, clock)[0]
        if not model.latent:
            continue
        h, i = None, 0
        while f"logits_{i}{tail}" in arrays or f"latent_{i}{tail}" in arrays:
            logits, h = run(x, clock, h)
            yield f"logits_{i}{tail}", logits
            yield f"latent_{i}{tail}", h
            i += 1
    if model.num_classes and "label" in arrays:
        none = np.full_like(label, model.num_classes)
        for name, given in (("cond", label), ("uncond", none), ("nocond", None)):
            if f"logits_{name}" in arrays:
                yield f"logits_{name}", run(x, sigma, None, given)[0]


def compare(model: DiT, params: Any, path: str | Path) -> dict[str, Any]:
    """Largest difference of every recorded output, absolute and as a share of its largest entry.

    Args:
      model: config of the network.
      params: its parameters.
      path: the recording, a .npz file.

    Raises:
      UserError: for a file that cannot be read or holds nothing to compare.
    """
    try:
        arrays = reading.read_npz(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the recording {path}: {error}") from error
    found: dict[str, Any] = {}
    for name, ours in outputs(model, params, arrays):
        if name not in arrays:
            continue
        theirs = np.asarray(arrays[name], np.float64)
        require(
            theirs.shape == ours.shape,
            f"{path}: {name} is {theirs.shape}, this network gives {ours.shape}",
        )
        gap = float(np.max(np.abs(np.asarray(ours, np.float64) - theirs)))
        scale = float(np.max(np.abs(theirs)))
        found[name] = {"largest_difference": gap, "largest_entry": scale}
    require(bool(found), f"{path} holds no output of this network (logits, logits_0 ...)")
    worst = max(v["largest_difference"] / max(1.0, v["largest_entry"]) for v in found.values())
    timed = "sigma" in arrays and bool(np.any(arrays["sigma"]))
    if timed and not model.time_conditioning and any(not n.endswith("_notime") for n in found):
        note = {"note": FED}
    else:
        note = {}
    return {"file": Path(path).name, "worst": worst, "arrays": found, **note}
