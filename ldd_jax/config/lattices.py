"""Recipes of lattice targets: what `configs/ising.py` and `configs/potts.py` share."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from ldd_jax.config.methods import method as method_of
from ldd_jax.config.recipes import make
from ldd_jax.core.checks import UserError, is_whole, require
from ldd_jax.core.registry import build, section
from ldd_jax.data import TargetData
from ldd_jax.objectives import Stages, Wdce


def lattice(chosen: dict[str, str], target: type, **fields: Any) -> ConfigDict:
    """A config of a method on a lattice; minutes of a core at size=tiny and side=4.

    Args:
      chosen: method and size, and side, beta and warmup (betas of equal stages of the first half
        of the run, such as 0.28:0.4) as text.
      target: its class.
      **fields: of the target.

    Raises:
      UserError: for an argument that is no number, or no lattice.
    """
    require(is_whole(chosen["side"], 2), f"side={chosen['side']}; it must be 2 or more")
    side, beta = int(chosen["side"]), _number("beta", chosen["beta"])
    hot = [_number("warmup", b) for b in filter(None, chosen["warmup"].split(":"))]
    method, small = method_of(chosen["method"]), chosen["size"] == "tiny"
    lattice = section(target, side=side, beta=beta, **fields)
    build("target", lattice)
    steps = 1500 if method.objective is Wdce else 600  # one along a path costs as many calls
    warmup = section(Stages, factors=tuple(b / beta for b in hot), updates=steps // 2 * bool(hot))
    scored: dict[str, Any] = {"warmup": warmup} if method.objective.needs_target else {}
    if method.objective is Wdce:
        scored |= dict(replicates=4)
    # Channels of a head: two for every wave round the border, in either direction.
    tiny = dict(width=max(32, 4 * side), depth=2, heads=2, unroll=2) if small else {}
    return make(
        chosen,
        source=TargetData,
        data=dict(target=lattice, length=side**2),
        model=dict(adaln=False, torus=side, **tiny),
        objective=scored,
        optim=dict(lr=2e-3, warmup_steps=50, decay="cosine", b2=0.99),
        training=dict(
            num_steps=steps,
            batch_size=128,
            ema_decay=0.99,
            log_every=100,
            checkpoint_every=500,
        ),
        evaluation=dict(batch_size=256),
        sampling=dict(num_samples=4, batch_size=4),
    )


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{name}={text}: expected a number") from error
