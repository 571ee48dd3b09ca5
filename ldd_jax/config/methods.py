"""Methods: what belongs together in a recipe, by name; a file of one's own registers more."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ldd_jax.core import registry
from ldd_jax.core.registry import register
from ldd_jax.denoisers import GPT2, DiT, Hollow, Linear, Llama
from ldd_jax.objectives import (
    BlockNelbo,
    CrossEntropyTimes,
    EventTimes,
    GridTimes,
    Mgdm,
    Nelbo,
    NextToken,
    NoContext,
    PseudoContext,
    Sic,
)
from ldd_jax.processes import (
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
    Cached,
    EasyFirst,
    Events,
    Geodesic,
    Whole,
)
from ldd_jax.samplers import NextToken as NextTokenStep

# Networks that stand in the place of the DiT: they differ in what they hold, not in what they do.
DECODERS: dict[str, type] = {"llama": Llama, "gpt2": GPT2}
# Fields of a method's network that make it another than that of the references' checkpoints.
ANOTHER = frozenset({"carry", "carry_at", "loops"})
# Of these, what only a DiT has.
OF_DIT = frozenset({"loops"})


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
      blocks: how it goes over a row.
      model: the network.
      time_conditioning: whether the network is told the time.
      network: further fields of the network.
      scored: further fields of the objective.
    """

    process: Any = Masked
    context: Any = NoContext
    objective: Any = Nelbo
    step: Any = Ancestral
    blocks: Any = Whole
    model: Any = DiT
    time_conditioning: bool = False
    network: Mapping[str, Any] = of()
    scored: Mapping[str, Any] = of()

    def takes(self, model: str) -> bool:
        """Whether a network of that name may stand in the place of the method's own."""
        own = self.model.registered[1]
        plain = own == DiT.registered[1] and not OF_DIT & self.network.keys()  # type: ignore[attr-defined]
        return model == own or (plain and model in DECODERS)

    @property
    def latent(self) -> bool:
        """Whether the network takes a latent."""
        return self.context.carries


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


@register("method", "block")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Block(Method):
    """Left to right by blocks, masked diffusion within one (BD3-LM, arXiv 2503.09573)."""

    objective: Any = BlockNelbo
    blocks: Any = Cached
    network: Mapping[str, Any] = of(block=16)


@register("method", "lddm_block")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmBlock(Block):
    """The same with loopholing: the latent lives in the block at work, finished ones have none."""

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
