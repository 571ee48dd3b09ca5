"""The one list of step rules that every contract is checked on, and a network for it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldd_jax.core import positions
from ldd_jax.core.types import TokenSpace, Trunk
from ldd_jax.processes import Masked, MaskedScore, Scud, Uniform, UniformScore
from ldd_jax.samplers import (
    Analytic,
    Ancestral,
    Confidence,
    EasyFirst,
    EntropyBounded,
    Euler,
    Events,
    FirstHitting,
    Geodesic,
    GibbsCorrector,
    JointFlow,
    PatchClock,
    PredictorCorrector,
    Psi,
    RateCorrector,
    ReMDM,
    Renoise,
    ScheduledConfidence,
    Skipping,
    TauLeaping,
    ThetaRK2,
    ThetaTrapezoidal,
)

RULES = {
    "ancestral": Ancestral(),
    "euler": Euler(),
    "analytic": Analytic(),
    "tau_leaping": TauLeaping(),
    "tau_leaping rejection": TauLeaping(leap="rejection"),
    "theta_trapezoidal": ThetaTrapezoidal(theta=0.4),
    "theta_rk2": ThetaRK2(),
    "first_hitting": FirstHitting(),
    "entropy_bounded": EntropyBounded(gamma=0.5),
    "entropy_bounded margin": EntropyBounded(gamma=0.5, order="margin"),
    "confidence": Confidence(),
    "confidence threshold": Confidence(count=2, threshold=0.6, noise=0.3),
    "confidence factor": Confidence(factor=1.2),
    "confidence random": Confidence(order="random"),
    "scheduled_confidence": ScheduledConfidence(noise=0.5),
    "easy_first": EasyFirst(),
    "easy_first revise": EasyFirst(revise=True, noise=0.0),
    "remdm rescale": ReMDM(eta=0.4),
    "remdm cap": ReMDM(eta=0.3, strength="cap"),
    "remdm conf": ReMDM(eta=0.9, strength="conf"),
    "remdm loop": ReMDM(eta=0.3, strength="loop", t_on=0.8, t_off=0.2),
    "remdm forward_backward": ReMDM(strength="forward_backward"),
    "predictor_corrector rate": PredictorCorrector(corrector=RateCorrector(size=0.5)),
    "predictor_corrector gibbs": PredictorCorrector(corrector=GibbsCorrector(positions=2)),
    "predictor_corrector two": PredictorCorrector(corrections=2, below=0.7),
    "psi": Psi(),
    "renoise": Renoise(gamma=0.3),
    "renoise published": Renoise(gamma=0.5, order="confidence", scheduled=False),
    "skipping": Skipping(),
    "events": Events(most_calls=7),
    "patch_clock": PatchClock(alpha=0.7, size=3, most=5),
    "joint_flow": JointFlow(eta=1.5),
    "joint_flow purity": JointFlow(eta=0.5, purity=True),
    "geodesic": Geodesic(),
}

SIZE, MASK = 5, 2  # the mask stands in the middle
TOKENS = {"masked": TokenSpace(size=SIZE, mask=MASK), "uniform": TokenSpace(size=SIZE)}
PROCESSES = {
    "masked": Masked(tokens=TOKENS["masked"]),
    "uniform": Uniform(tokens=TOKENS["uniform"]),
}
EVENTS = {"scud": Scud(tokens=TOKENS["uniform"])}
SCORES = {
    "masked_score": MaskedScore(tokens=TOKENS["masked"]),
    "uniform_score": UniformScore(tokens=TOKENS["uniform"]),
}


def runs(step, process, *, latent: bool, timed: bool) -> bool:
    """Whether a rule accepts these."""
    try:
        step.check(process, latent=latent, timed=timed)
    except ValueError:
        return False
    return True


@struct.dataclass
class Matrix:
    """Projection of the toy network."""

    weight: jax.Array

    def __call__(self, features_ND):
        """[N, D] to [N, V]."""
        return features_ND @ self.weight


@struct.dataclass
class Toy:
    """Logits from the token, the mean of the real tokens, the time and the number of passes so far.

    The latent counts passes, so that after a run it must equal the calls.
    """

    embed: jax.Array
    weight: jax.Array
    carry: bool = struct.field(pytree_node=False, default=True)
    timed: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def make(cls, carry=True, timed=False):
        """Fixed weights."""
        rng = np.random.default_rng(5)
        draw = lambda *shape: jnp.asarray(rng.normal(0, 1.2, shape), jnp.float32)
        return cls(draw(SIZE, 4), draw(4, SIZE), carry, timed)

    @property
    def head(self):
        """The projection."""
        return Matrix(self.weight)

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        """Features [B, L, 4]."""
        e = self.embed[z]
        real = jnp.ones(z.shape) if cond.segment is None else (cond.segment > 0) * 1.0
        mean = jnp.sum(e * real[..., None], 1, keepdims=True) / jnp.sum(real, 1)[:, None, None]
        features = e + mean
        if self.timed:
            features = features + jnp.tanh(positions.column(cond.clock))[..., None]
        if self.carry:
            features = features + 0.3 * jnp.sin(h)
        return Trunk(features=features, latent=h + 1 if self.carry else None)

    def latent(self, batch, length):
        """Zeros, or None."""
        return jnp.zeros((batch, length, 1)) if self.carry else None
