"""Reverse side: time grids, step rules, read-out settings, and the one loop."""

from ldd_jax.samplers.analytic import Analytic
from ldd_jax.samplers.ancestral import Ancestral
from ldd_jax.samplers.approximate import Dual, Prefix
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.blocks import Fill, Slide, Whole, sample_blocks
from ldd_jax.samplers.cached import Cached, Recomputed
from ldd_jax.samplers.confidence import Confidence, ScheduledConfidence
from ldd_jax.samplers.corrector import GibbsCorrector, PredictorCorrector, RateCorrector
from ldd_jax.samplers.easy_first import EasyFirst
from ldd_jax.samplers.entropy_bounded import EntropyBounded
from ldd_jax.samplers.euler import Euler
from ldd_jax.samplers.events import Events
from ldd_jax.samplers.first_hitting import FirstHitting
from ldd_jax.samplers.geodesic import Geodesic
from ldd_jax.samplers.grids import CosineGrid, GeometricGrid, LinearGrid, TableGrid
from ldd_jax.samplers.informed import InformedCorrector
from ldd_jax.samplers.joint_flow import JointFlow
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.loop import sample
from ldd_jax.samplers.next_token import NextToken
from ldd_jax.samplers.patch_ancestral import PatchAncestral
from ldd_jax.samplers.patch_clock import PatchClock
from ldd_jax.samplers.psi import Psi
from ldd_jax.samplers.reading import read
from ldd_jax.samplers.remdm import ReMDM
from ldd_jax.samplers.renoise import Renoise
from ldd_jax.samplers.rollout import Rollouts
from ldd_jax.samplers.skipping import Skipping
from ldd_jax.samplers.state import Clamp, SampleState
from ldd_jax.samplers.stops import Chained, LowEntropy, Never, Still
from ldd_jax.samplers.tau_leaping import TauLeaping
from ldd_jax.samplers.theta import ThetaRK2, ThetaTrapezoidal

__all__ = [
    "Analytic",
    "Ancestral",
    "Cached",
    "Chained",
    "Clamp",
    "Confidence",
    "CosineGrid",
    "Dual",
    "EasyFirst",
    "EntropyBounded",
    "Euler",
    "Events",
    "Fill",
    "FirstHitting",
    "Geodesic",
    "GeometricGrid",
    "GibbsCorrector",
    "InformedCorrector",
    "JointFlow",
    "Latent",
    "LinearGrid",
    "LowEntropy",
    "Never",
    "NextToken",
    "PredictorCorrector",
    "Prefix",
    "PatchAncestral",
    "PatchClock",
    "Psi",
    "RateCorrector",
    "ReMDM",
    "Recomputed",
    "Renoise",
    "Rollouts",
    "SampleState",
    "ScheduledConfidence",
    "Slide",
    "Step",
    "Still",
    "TableGrid",
    "Skipping",
    "TauLeaping",
    "ThetaRK2",
    "ThetaTrapezoidal",
    "Whole",
    "read",
    "sample",
    "sample_blocks",
]
