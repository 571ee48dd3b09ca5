"""Relatives of loopholing as methods: what is carried, where it enters, whose states it saw."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ldd_jax.config.methods import LddmM, LddmU, Method, of
from ldd_jax.core.registry import register
from ldd_jax.denoisers import EntropyMix, SoftFfn, SoftMask
from ldd_jax.objectives import ExampleGate, PseudoContext, Rollout, Unrolled
from ldd_jax.processes import Uniform


@register("method", "lddm_unrolled")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmUnrolled(LddmM):
    """LDDM-M with h from the four states of a trajectory before the scored one."""

    context: Any = dataclasses.field(default_factory=lambda: Unrolled(passes=4))


@register("method", "lddm_u_unrolled")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmUUnrolled(LddmU):
    """LDDM-U with h from the four states of a trajectory before the scored one."""

    context: Any = dataclasses.field(default_factory=lambda: Unrolled(passes=4))


@register("method", "lddm_rollout")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmRollout(LddmM):
    """LDDM-M with h of trajectories that go on from update to update, at the price of MDLM."""

    context: Any = dataclasses.field(default_factory=Rollout)


@register("method", "lddm_u_rollout")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmURollout(LddmU):
    """LDDM-U with h of trajectories that go on from update to update, at the price of UDLM."""

    context: Any = dataclasses.field(default_factory=Rollout)


@register("method", "relay")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Relay(Method):
    """h at masked positions, from a trajectory, with gradient through two of its states (RELAY)."""

    context: Any = dataclasses.field(default_factory=lambda: Rollout(passes=1, gradient=1))
    network: Mapping[str, Any] = of(carry_at="masked")


@register("method", "soft_masking")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftMasking(Method):
    """Masks mixed with the three likeliest tokens of a first pass (soft masking, ICLR 2026)."""

    context: Any = dataclasses.field(default_factory=lambda: PseudoContext(p=0.8))
    network: Mapping[str, Any] = of(carry=SoftMask, carry_at="masked")


@register("method", "rcd")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Rcd(Method):
    """Masks mixed with the mean embedding, by entropy (RCD, arXiv 2601.22954)."""

    context: Any = dataclasses.field(default_factory=lambda: PseudoContext(p=1.0))
    network: Mapping[str, Any] = of(carry=EntropyMix, carry_at="masked")


@register("method", "self_conditioning")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfConditioning(Method):
    """A prediction's mean embedding through an MLP, half of the time (as DiffusionGemma does)."""

    context: Any = dataclasses.field(
        default_factory=lambda: PseudoContext(p=0.5, gate=ExampleGate())
    )
    network: Mapping[str, Any] = of(carry=SoftFfn)


@register("method", "self_conditioning_u")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfConditioningU(SelfConditioning):
    """The same with uniform diffusion, which DiffusionGemma has."""

    process: Any = Uniform
    time_conditioning: bool = True


@register("method", "looped")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Looped(Method):
    """Nothing carried: up to three loops through the blocks inside a call (LoopMDM, 2605.26106)."""

    network: Mapping[str, Any] = of(loops=3)
    scored: Mapping[str, Any] = of(draw_loops=True)
