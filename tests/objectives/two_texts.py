"""Two texts of one token as points -1 and 1: denoiser and decoder are exact, so is the bound."""

import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.types import TokenSpace, Trunk
from ldd_jax.denoisers import BoundNetwork
from ldd_jax.oracle.laws import Identity
from ldd_jax.processes import Gaussian
from ldd_jax.schedules import Angle

PROCESS = Gaussian(
    vectors=1, size=1, schedule=Angle(least=0.3, left=1e-6), tokens=TokenSpace(size=3, mask=2)
)
LAW = jnp.asarray([0.2, 0.8])
POINTS = jnp.asarray([-1.0, 1.0])


def posterior(z, alpha):
    """log p(text | z), [..., 2], of z [...]."""
    apart = z[..., None] - jnp.sqrt(alpha)[..., None] * POINTS
    return jax.nn.log_softmax(jnp.log(LAW) - apart**2 / (2 * (1 - alpha)[..., None]))


@struct.dataclass
class Read(BoundNetwork):
    """p(x | z_0) whatever stands before."""

    z: jax.Array
    head = Identity()

    def trunk(self, z_BL, cond, h=None, *, key=None, cache=None):
        alpha = PROCESS.schedule.alpha(jnp.zeros(1))
        law = posterior(self.z[:, :, 0], alpha)
        law = jnp.pad(law, ((0, 0), (0, 0), (0, 1)))
        return Trunk(jnp.broadcast_to(law, (*z_BL.shape, 3)), None, cache)

    def cache(self, batch, length):
        return ()


@struct.dataclass
class TwoTexts(BoundNetwork):
    """What the compressor is to learn."""

    timed = True
    head = Identity()

    def encoded(self, tokens, cond):
        return POINTS[tokens[:, :1]][..., None]

    def reader(self, z):
        return Read(z)

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        alpha = jax.nn.sigmoid(cond.clock)[:, None]
        mean = jnp.exp(posterior(z[..., 0], alpha)) @ POINTS
        v = (jnp.sqrt(alpha) * z[..., 0] - mean) / jnp.sqrt(1 - alpha)
        return Trunk(v[..., None], None)
