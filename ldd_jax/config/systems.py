"""Methods of other systems: byte patches, samplers of a target, joint flows, latent diffusion."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ldd_jax.config.methods import Ar, Method, of
from ldd_jax.core.registry import register
from ldd_jax.denoisers import Blt, Compressor, SignalDiT
from ldd_jax.objectives import (
    Autoencoder,
    GivenSignal,
    JointNelbo,
    LatentNelbo,
    LogVariance,
    NoContext,
    PatchNelbo,
    PseudoContext,
    Wdce,
)
from ldd_jax.processes import (
    Gaussian,
    Joint,
)
from ldd_jax.samplers import (
    FirstHitting,
    JointFlow,
    PatchAncestral,
)


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


@register("method", "autoencoder")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderMethod(Method):
    """Texts to vectors and back: what latent diffusion begins with (arXiv 2212.09462)."""

    process: Any = Gaussian
    objective: Any = Autoencoder
    model: Any = Compressor
    time_conditioning: bool = True


@register("method", "latent_diffusion")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentDiffusion(AutoencoderMethod):
    """Diffusion of a text's vectors with self-conditioning (arXiv 2212.09462)."""

    objective: Any = LatentNelbo
    context: Any = PseudoContext
    network: Mapping[str, Any] = of(carried="estimate")


@register("method", "lddm_latent_diffusion")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LddmLatentDiffusion(LatentDiffusion):
    """The same with loopholing: estimate and hidden state are carried."""

    network: Mapping[str, Any] = of(carried="both")


@register("method", "plain_latent_diffusion")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainLatentDiffusion(LatentDiffusion):
    """The same with nothing carried."""

    context: Any = NoContext
    network: Mapping[str, Any] = of()
