"""Losses: times, pseudo-context, and the negative evidence lower bound."""

from ldd_jax.objectives.annealing import Stages
from ldd_jax.objectives.base import OfData
from ldd_jax.objectives.block_nelbo import BlockNelbo
from ldd_jax.objectives.buffered import Rollout
from ldd_jax.objectives.context import (
    BatchGate,
    ExampleGate,
    FractionGate,
    NoContext,
    PseudoContext,
)
from ldd_jax.objectives.joint import GivenSignal, JointNelbo
from ldd_jax.objectives.mgdm import Mgdm, StepTimes
from ldd_jax.objectives.nelbo import Nelbo
from ldd_jax.objectives.next_token import NextToken
from ldd_jax.objectives.patch_nelbo import PatchNelbo
from ldd_jax.objectives.rollouts import LogVariance, Wdce
from ldd_jax.objectives.sic import Sic
from ldd_jax.objectives.times import (
    ClippedTimes,
    CrossEntropyTimes,
    EventTimes,
    GridTimes,
    ImportanceTimes,
    UniformTimes,
)
from ldd_jax.objectives.unrolled import Unrolled
from ldd_jax.objectives.vectors import Autoencoder, LatentNelbo

__all__ = [
    "Autoencoder",
    "BatchGate",
    "BlockNelbo",
    "ClippedTimes",
    "CrossEntropyTimes",
    "EventTimes",
    "ExampleGate",
    "FractionGate",
    "GivenSignal",
    "GridTimes",
    "ImportanceTimes",
    "JointNelbo",
    "LatentNelbo",
    "LogVariance",
    "Mgdm",
    "Nelbo",
    "NextToken",
    "NoContext",
    "OfData",
    "PatchNelbo",
    "PseudoContext",
    "Rollout",
    "Sic",
    "Stages",
    "StepTimes",
    "UniformTimes",
    "Unrolled",
    "Wdce",
]
