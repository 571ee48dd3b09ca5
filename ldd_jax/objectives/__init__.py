"""Losses: times, pseudo-context, and the negative evidence lower bound."""

from ldd_jax.objectives.annealing import Stages
from ldd_jax.objectives.base import OfData
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
    CrossEntropyTimes,
    EventTimes,
    GridTimes,
    ImportanceTimes,
    UniformTimes,
)

__all__ = [
    "BatchGate",
    "CrossEntropyTimes",
    "EventTimes",
    "ExampleGate",
    "FractionGate",
    "GivenSignal",
    "GridTimes",
    "ImportanceTimes",
    "JointNelbo",
    "LogVariance",
    "Mgdm",
    "Nelbo",
    "NextToken",
    "NoContext",
    "OfData",
    "PatchNelbo",
    "PseudoContext",
    "Sic",
    "Stages",
    "StepTimes",
    "UniformTimes",
    "Wdce",
]
