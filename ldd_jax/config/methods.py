"""Methods: what belongs together in a recipe, by name; a file of one's own registers more."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ldd_jax.core import registry
from ldd_jax.core.registry import register
from ldd_jax.denoisers import GPT2, Blt, DiT, Hollow, Linear, Llama, SignalDiT
from ldd_jax.objectives import (
    CrossEntropyTimes,
    EventTimes,
    GivenSignal,
    GridTimes,
    JointNelbo,
    LogVariance,
    Mgdm,
    Nelbo,
    NextToken,
    NoContext,
    PatchNelbo,
    PseudoContext,
    Sic,
    Wdce,
)
from ldd_jax.processes import (
    Joint,
    LeftToRight,
    Masked,
    MaskedMean,
    MaskedScore,
    Scud,
    Sphere,
    Uniform,
    UniformScore,
)
from ldd_jax.samplers import (
    Analytic,
    Ancestral,
    EasyFirst,
    Events,
    FirstHitting,
    Geodesic,
    JointFlow,
    PatchAncestral,
)
from ldd_jax.samplers import NextToken as NextTokenStep

# Networks that stand in the place of the DiT: they differ in what they hold, not in what they do.
DECODERS: dict[str, type] = {"llama": Llama, "gpt2": GPT2}


def of(**fields: Any) -> Any:
    """A field of a method that is a mapping."""
    return dataclasses.field(default_factory=lambda: dict(fields))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """What a recipe starts from. Parts are registered classes, or instances where fields differ.

    Attributes:
      process: the forward side.
      context: where the latent comes from; `NoContext` = a network without one.
      objective: the loss.
      step: the rule that samples by default.
      model: the network.
      time_conditioning: whether the network is told the time.
      network: further fields of the network.
      scored: further fields of the objective.
    """

    process: Any = Masked
    context: Any = NoContext
    objective: Any = Nelbo
    step: Any = Ancestral
    model: Any = DiT
    time_conditioning: bool = False
    network: Mapping[str, Any] = of()
    scored: Mapping[str, Any] = of()

    def takes(self, model: str) -> bool:
        """Whether a network of that name may stand in the place of the method's own."""
        own = self.model.registered[1]
        return model == own or (own == DiT.registered[1] and model in DECODERS)  # type: ignore[attr-defined]

    @property
    def latent(self) -> bool:
        """Whether the network takes a latent."""
        return self.context.registered != NoContext.registered  # type: ignore[attr-defined]


def method(name: str) -> Method:
    """The method of that name.

    Raises:
      UserError: for an unknown one.
    """
    made: Any = registry.find("method", name)
    return made()


def methods() -> dict[str, Method]:
    """All of them by name."""
    return {name: method(name) for name in registry.names("method")}


@register("method", "mdlm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mdlm(Method):
    """Masked diffusion (MDLM, arXiv 2406.07524)."""


@register("method", "hollow")
@dataclasses.dataclass(frozen=True, kw_only=True)
class HollowMdlm(Method):
    """Masked diffusion by a hollow network, which corrector informed needs (arXiv 2407.21243)."""

    model: Any = Hollow


@register("method", "hollow_lddm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class HollowLddm(Method):
    """The same with loopholing, by the mixing stream."""

    context: Any = PseudoContext
    model: Any = Hollow


@register("method", "hollow_sic")
@dataclasses.dataclass(frozen=True, kw_only=True)
class HollowSic(HollowMdlm):
    """The same, trained on tokens that it has just revealed as well (objective sic)."""

    objective: Any = Sic


@register("method", "lddm_m")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmM(Method):
    """Masked diffusion with loopholing (LDDM-M, arXiv 2510.19304)."""

    context: Any = PseudoContext


@register("method", "udlm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Udlm(Method):
    """Uniform diffusion (UDLM, arXiv 2412.10193)."""

    process: Any = Uniform
    time_conditioning: bool = True


@register("method", "lddm_u")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmU(Udlm):
    """Uniform diffusion with loopholing (LDDM-U, arXiv 2510.19304)."""

    context: Any = PseudoContext


@register("method", "sedd")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sedd(Method):
    """Score entropy of masked diffusion (SEDD absorb, arXiv 2310.16834)."""

    process: Any = MaskedScore
    step: Any = Analytic
    time_conditioning: bool = True


@register("method", "lddm_sedd")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmSedd(Sedd):
    """Score entropy of masked diffusion with loopholing."""

    context: Any = PseudoContext


@register("method", "sedd_uniform")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SeddUniform(Sedd):
    """Score entropy of uniform diffusion (SEDD uniform, arXiv 2310.16834)."""

    process: Any = UniformScore


@register("method", "d3pm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class D3pm(Method):
    """Masked diffusion in finitely many steps, with mass on the mask (D3PM, arXiv 2107.03006)."""

    process: Any = MaskedMean
    time_conditioning: bool = True
    scored: Mapping[str, Any] = of(times=GridTimes)


@register("method", "scud")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScudMethod(Method):
    """Diffusion by events that the network counts (SCUD, arXiv 2506.08316)."""

    process: Any = Scud
    step: Any = Events
    time_conditioning: bool = True
    scored: Mapping[str, Any] = of(times=EventTimes)


@register("method", "lddm_scud")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmScud(ScudMethod):
    """SCUD with loopholing, the latent carried from count to count."""

    context: Any = PseudoContext


@register("method", "rdlm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Rdlm(Method):
    """Points that move on a sphere towards its vertices (RDLM, arXiv 2502.11564)."""

    process: Any = Sphere
    step: Any = Geodesic
    time_conditioning: bool = True
    network: Mapping[str, Any] = of(input=Linear)
    scored: Mapping[str, Any] = of(times=CrossEntropyTimes)


@register("method", "lddm_rdlm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmRdlm(Rdlm):
    """RDLM with loopholing, the latent carried from step to step."""

    context: Any = PseudoContext


@register("method", "mgdm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MgdmMethod(Method):
    """Masked diffusion with weights by token and step (MGDM, arXiv 2410.14157)."""

    objective: Any = Mgdm
    step: Any = EasyFirst


@register("method", "lddm_g")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmG(MgdmMethod):
    """MGDM with loopholing."""

    context: Any = PseudoContext


@register("method", "ar")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ar(Method):
    """Left to right, token by token: the autoregressive baseline."""

    process: Any = LeftToRight
    objective: Any = NextToken
    step: Any = NextTokenStep
    network: Mapping[str, Any] = of(causal=True, adaln=False)


@register("method", "patch_mdlm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchMdlm(Method):
    """Masked diffusion over bytes by a network over patches (2412.09871 joined with 2406.07524)."""

    model: Any = Blt


@register("method", "patch_lddm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchLddm(PatchMdlm):
    """The same with loopholing, the latent carried by patch."""

    context: Any = PseudoContext


@register("method", "patch_whole")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchWhole(PatchMdlm):
    """Whole patches masked, the bytes of one from left to right: its bound is exact inside them."""

    objective: Any = PatchNelbo
    step: Any = PatchAncestral
    network: Mapping[str, Any] = of(inner=True)


@register("method", "patch_whole_lddm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchWholeLddm(PatchWhole):
    """The same with loopholing."""

    context: Any = PseudoContext


@register("method", "patch_ar")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchAr(Ar):
    """Left to right over bytes by a network over patches (BLT, arXiv 2412.09871)."""

    model: Any = Blt
    network: Mapping[str, Any] = of(causal=True)


@register("method", "mdns")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mdns(Method):
    """A sampler of a target by weighted cross-entropy (MDNS, arXiv 2508.10684)."""

    objective: Any = Wdce
    step: Any = FirstHitting


@register("method", "lddm_mdns")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmMdns(Mdns):
    """The same with loopholing: h from a first pass where it is trained, carried where it rolls."""

    context: Any = PseudoContext


@register("method", "mdns_lv")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MdnsLv(Mdns):
    """A sampler of a target by the variance of its log-weights along the path."""

    objective: Any = LogVariance


@register("method", "lddm_mdns_lv")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmMdnsLv(MdnsLv):
    """The same with the latent carried along the path, and gradients through it."""

    network: Mapping[str, Any] = of(latent=True)


@register("method", "joint")
@dataclasses.dataclass(frozen=True, kw_only=True)
class JointMethod(Method):
    """Tokens and a signal together, each at its own time (Multi-Flow, arXiv 2402.04997)."""

    process: Any = Joint
    objective: Any = JointNelbo
    step: Any = JointFlow
    model: Any = SignalDiT


@register("method", "lddm_joint")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmJoint(JointMethod):
    """The same with loopholing."""

    context: Any = PseudoContext


@register("method", "given")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Given(Method):
    """Masked diffusion of tokens given a signal: what a joint model teaches a student."""

    objective: Any = GivenSignal
    model: Any = SignalDiT


@register("method", "lddm_given")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmGiven(Given):
    """The same with loopholing."""

    context: Any = PseudoContext
