"""RDLM on a circle, where the bridge is Gaussian in the angle and the ideal network is known."""

import jax.numpy as jnp
import numpy as np
from flax import struct

from ldd_jax.core.types import TokenSpace, Trunk
from ldd_jax.oracle.laws import Identity
from ldd_jax.processes import Sphere
from ldd_jax.schedules import Bridge

P = np.array([0.85, 0.15])
ANGLES = np.array([0.0, np.pi / 2])  # of the two tokens; all begin at pi / 4
SPACE = TokenSpace(size=2, vocabulary=2)


def circle(left=0.1):
    return Sphere(prior_point="uniform", schedule=Bridge(left=left), tokens=SPACE)


def mean(tau, k):
    """Of the angle at tau of the bridge to token k."""
    return np.pi / 4 + tau * (ANGLES[k] - np.pi / 4)


def logits(process, angle, tau):
    """log p(k | X) up to a constant, [..., 2]."""
    variance = process.schedule.total * tau * (1 - tau)
    apart = [angle - mean(tau, k) for k in (0, 1)]
    far = jnp.stack([-(a**2) / (2 * variance) for a in apart], -1)
    return jnp.log(jnp.asarray(P)) + jnp.where((tau > 0)[..., None], far, 0)


@struct.dataclass
class Ideal:
    """p(k | X) of each position; the latent counts passes."""

    process: Sphere = struct.field(pytree_node=False)
    carry: bool = struct.field(pytree_node=False, default=False)
    head = Identity()
    timed = True

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        tau = self.process.schedule.alpha(cond.clock / 8)[:, None]
        tau = jnp.broadcast_to(tau, z.shape[:2])
        angle = jnp.arctan2(z[..., 1], z[..., 0])
        latent = (0 if h is None else h) + jnp.ones((*z.shape[:2], 1)) if self.carry else None
        return Trunk(logits(self.process, angle, tau), latent)

    def latent(self, batch, length):
        return jnp.zeros((batch, length, 1)) if self.carry else None
