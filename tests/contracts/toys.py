"""Three components that no file of the package knows: a clock by position, points, a mask."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.config.recipes import arguments, make
from ldd_jax.core.registry import register, section
from ldd_jax.core.types import Attend
from ldd_jax.data import Characters
from ldd_jax.denoisers import DiT, Linear
from ldd_jax.denoisers.dit_bound import BoundDiT
from ldd_jax.objectives import Nelbo
from ldd_jax.processes import Masked
from ldd_jax.processes.base import Diffusion


@register("process", "toy_slanted")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Slanted(Masked):
    """Masked diffusion at t^(1 + i / L): positions at the right lose their mask first."""

    by_position = True

    def clock(self, t_B, length):
        return t_B[:, None] ** self.power(length)

    @staticmethod
    def power(length):
        return 1 + jnp.arange(length) / length


@register("objective", "toy_slanted")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SlantedNelbo(Nelbo):
    """Its bound: the integrand at the clock times the clock's own speed, k t^(k - 1)."""

    bounds = True

    def corrupted(self, batch, u_B, keys_B):
        z, clock, factor = super().corrupted(batch, u_B, keys_B)
        k = self.process.power(z.shape[1])
        return z, clock, factor[:, None] * k * clock ** (1 - 1 / k)


@register("process", "toy_codes")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Codes(Diffusion):
    """Gaussian diffusion of one-hot codes [B, L, V]: (1 - t) e_x + t noise; DDIM backwards."""

    @staticmethod
    def token_space_size(vocabulary):
        return vocabulary, None

    def encode(self, tokens):
        return jax.nn.one_hot(tokens, self.tokens.size)

    def decode(self, z):
        return jnp.argmax(z, -1).astype(jnp.int32)

    def prior(self, keys_B, length):
        draw = lambda key: jax.random.normal(key, (length, self.tokens.size))
        return jax.vmap(draw)(keys_B), jnp.ones(keys_B.shape[0])

    def corrupt(self, keys_B, z0, t_B, keep):
        noise, _ = self.prior(keys_B, z0.shape[1])
        t = jnp.where(keep, 0, t_B[:, None])[..., None]
        return (1 - t) * self.encode(z0) + t * noise, t_B

    def scored(self, z):
        return jnp.ones(z.shape[:2], bool)

    def read(self, logits, z, clock):
        return jax.nn.log_softmax(logits)

    def bound(self, logits, z0, z, clock):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), z0[:, None], -1)[:, 0]

    def boundary(self, dtype=jnp.float32):
        return jnp.zeros((), dtype)

    def sample_posterior(self, draw, pred, z, t, s):
        s = jnp.zeros_like(t) if s is None else s
        mean, t, s = jnp.exp(pred), t[:, None], s[:, None]
        return (1 - s) * mean + s / t * (z - (1 - t) * mean)

    def move_probability(self, z, t, s):
        return jnp.ones(t.shape)


@struct.dataclass
class BoundNear(BoundDiT):
    """A DiT whose positions see two neighbours at either side."""

    def trunk(self, z, cond, h=None, **how):
        place = jnp.arange(z.shape[1])
        near = Attend("mask", mask=jnp.abs(place[:, None] - place) <= 2)
        return BoundDiT.trunk(self, z, cond._replace(attend=near), h, **how)


@register("model", "toy_near")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Near(DiT):
    """See `BoundNear`."""

    def bind(self, params):
        return BoundNear(params=params, config=self)


def get_config(argument=""):
    """One of the three."""
    chosen = arguments(argument, method="lddm_m", size="tiny", toy="")
    config = make(chosen, data=dict(path="", length=16, tokenizer=section(Characters)))
    with config.unlocked():
        if chosen["toy"] == "slanted":
            config.process = section(Slanted)
            config.objective = section(SlantedNelbo, context=config.objective.context)
        elif chosen["toy"] == "codes":
            config.process = section(Codes)
            config.model.input = section(Linear)
        else:
            config.model = section(Near, **{k: v for k, v in config.model.items() if k != "name"})
    return config
