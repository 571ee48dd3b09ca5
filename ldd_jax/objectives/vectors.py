"""Texts as vectors: an autoencoder, and the diffusion of what it makes (arXiv 2212.09462)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.draws import example_keys
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Batch, Cond, Denoiser, Loss
from ldd_jax.objectives.context import NoContext, PseudoContext
from ldd_jax.objectives.nelbo import Nelbo
from ldd_jax.objectives.next_token import NextToken
from ldd_jax.objectives.times import UniformTimes

READ = 5  # sites of chance up to here are those of `Nelbo`


@register("objective", "latent_nelbo")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentNelbo(Nelbo):
    """Diffusion of the vectors y = E(x) of a text; encoder and decoder get no gradient.

    Trained is E_t |v - v^|^2, all times alike (arXiv 2202.00512). Evaluated is the bound of a
    hierarchical model, text from z_0, z_0 from diffusion, whose posterior is q(z_0 | x) =
    N(sqrt(alpha_0) E(x), 1 - alpha_0):

        -log p(x) <= E[-log p(x | z_0)]          reconstruction, left to right
                  + int -SNR' / 2 E|y - y^|^2 dt  diffusion
                  + KL(q(z_1 | x) || N(0, 1))     prior

    The last two bound KL(q(z_0 | x) || p(z_0)), the entropy of q included. Without noise at t = 0
    the second would be infinite: there is no bound of an encoder without a variance.
    """

    bounds = True
    terms = ("reconstruction", "diffusion", "prior")

    def __post_init__(self):
        super().__post_init__()
        if not self.times.uniform:
            raise ValueError(f"the times of objective {self.registered[1]} are uniform")  # type: ignore[attr-defined]
        if self.process is not None and (self.process.reader is None or not self.process.points):
            raise ValueError(
                f"objective {self.registered[1]} is for process gaussian; use "  # type: ignore[attr-defined]
                "method=autoencoder, latent_diffusion or lddm_latent_diffusion"
            )

    def as_bound(self, passes: int) -> LatentNelbo:
        """That sum, `passes` network passes of the diffusion always."""
        return dataclasses.replace(
            self,
            context=NoContext() if passes == 1 else PseudoContext(p=1.0, passes=passes - 1),
            times=UniformTimes(eps=0.0),
            whole=True,
        )

    def integrand(self, logits_NV: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """The bound's where it is evaluated, else |v - v^|^2."""
        process: Any = self.process
        term = process.bound if self.whole else process.squares
        return term(logits_NV, z0_N, z_N, clock_N)

    def __call__(self, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """Total over tokens as in `Nelbo`; where it is a bound, its `terms` by name, [B] each."""
        mean = jax.lax.stop_gradient(self.encoded(denoiser, batch))
        # A row that only fills up a batch has no weight anywhere.
        real_B = jnp.any(batch.weight > 0, axis=1).astype(mean.dtype)
        rows = batch._replace(
            z0=mean,
            keep=jnp.zeros(mean.shape[:2], bool),
            weight=jnp.broadcast_to(real_B[:, None], mean.shape[:2]),
            cond=Cond(),
        )
        diffusion = super().__call__(denoiser, rows, key)
        if not self.whole:
            return diffusion
        process: Any = self.process
        text = self.reconstruction(denoiser, batch, mean, key)
        prior_B = jnp.sum(process.prior_term(mean), -1) * real_B
        found = (text.metrics["loss_B"], diffusion.metrics["loss_B"], prior_B)
        total = text.total + diffusion.total + jnp.sum(prior_B) / batch.norm
        scored = text.metrics["scored"]
        own: Any = {"terms": dict(zip(self.terms, found, strict=True))}
        return Loss(total, {"loss_B": sum(found), "scored": scored} | own)

    def encoded(self, denoiser: Denoiser, batch: Batch) -> Array:
        """E(x) of the batch's texts, [B, Q, C]."""
        network: Any = denoiser
        return network.encoded(batch.z0, batch.cond)

    def reconstruction(self, denoiser: Denoiser, batch: Batch, mean: Array, key: Array) -> Loss:
        """-log p(x | z_0), z_0 drawn from q.

        Args:
          denoiser: its decoder reads z_0.
          batch: texts, their weights and norm.
          mean: their vectors, [B, Q, C].
          key: PRNG key of the update.
        """
        network: Any = denoiser
        keys_B = example_keys(jax.random.fold_in(key, READ), batch.index)
        none = jnp.zeros(mean.shape[:2], bool)
        z0, _ = self.process.corrupt(keys_B, mean, jnp.zeros(mean.shape[0], mean.dtype), none)
        read: Any = self.process.reader
        loss = NextToken(process=read, tile=self.tile, groups=self.groups)
        return loss(network.reader(z0), batch, key)


@register("objective", "autoencoder")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoder(LatentNelbo):
    """-log p(x | z_0), z_0 ~ q(z_0 | x): trains encoder and decoder, and leaves the denoiser zero.

    A velocity that is zero everywhere is exact for vectors that are N(0, 1). So what is evaluated,
    the bound of `LatentNelbo`, and what is sampled is a variational autoencoder with that prior:
    decoded noise.
    """

    bounds = True

    def __call__(self, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """The reconstruction alone, but for the bound."""
        if self.whole:
            return super().__call__(denoiser, batch, key)
        return self.reconstruction(denoiser, batch, self.encoded(denoiser, batch), key)
