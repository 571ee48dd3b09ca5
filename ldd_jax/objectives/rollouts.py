"""Losses of a sampler that has a target and no data (MDNS, arXiv 2508.10684; PDNS, 2510.03824).

Configurations come from the production sampler, one site a call, outside of the gradient. With
W = log_weight(x) + nats of the path (`samplers.rollout`) a weight e^W makes samples of the target
of them. What a latent may do: `log_variance` differentiates the very path, so that it may be
carried; `wdce` hides sites of a configuration anew, off any path, so that its network gets no
latent (context none) or that of a first pass (pseudo), never a carried one.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ldd_jax.core.checks import at_least_one, require
from ldd_jax.core.draws import example_keys, ranks, uniforms
from ldd_jax.core.registry import component, register, runtime
from ldd_jax.core.types import Array, Batch, Denoiser, Loss, Process
from ldd_jax.core.vocabulary_tiles import AUTO, check_tile
from ldd_jax.objectives.annealing import Stages
from ldd_jax.objectives.context import NoContext
from ldd_jax.objectives.nelbo import Nelbo
from ldd_jax.objectives.strata import stratified
from ldd_jax.objectives.times import CrossEntropy, UniformTimes
from ldd_jax.objectives.windows import CORRUPT, DROPOUT, GATE, TIMES

ROLL = 5  # the site of the rollouts, beside those of `nelbo`


class Buffer(NamedTuple):
    """Rollouts that are kept: x [B, L]; nats [B] of their paths; log_weight [B] at factor 1."""

    x: Any
    nats: Any
    log_weight: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromTarget:
    """What both losses share.

    Attributes:
      carry: rollouts take the latent along, where the network has one.
      positions: sites that a call of a rollout reveals; more are faster, with weights that vary
        more and stay unbiased.
    """

    context: Any = component("context", NoContext)
    warmup: Any = component("warmup", Stages)
    carry: bool = True
    positions: int = 1
    process: Process = runtime()
    groups: int = runtime()
    dropout: bool = runtime()
    latent: bool = runtime()
    num_classes: int = runtime()
    target: Any = runtime()
    rollouts: Any = runtime()

    by_block = False
    needs_target = True
    exact = bounds = needs_causal = False
    chain = ""
    condition_dropout = 0.0
    tile = 0

    def __post_init__(self):
        at_least_one(self, "positions")
        if self.process is not None and not self.process.absorbing:
            raise ValueError("rollouts reveal masked sites one by one; it needs masked diffusion")
        if self.num_classes:
            raise ValueError("a target has no classes; set model.num_classes to 0")

    @property
    def times(self) -> UniformTimes:
        """How many sites are masked, as a share: uniform."""
        return UniformTimes(eps=0.0)

    def as_bound(self, passes: int) -> Nelbo:
        """The bound of -log p(x) for configurations that are given."""
        return Nelbo(
            process=self.process, groups=self.groups, num_classes=self.num_classes
        ).as_bound(passes)

    @property
    def _rollouts(self) -> Any:
        how = dict(carry=self.carry, positions=self.positions)
        return dataclasses.replace(self.rollouts, **how)

    def paths(self, denoiser: Denoiser, batch: Batch, key: Array) -> Any:
        """A rollout for every example of the batch.

        Args:
          denoiser: network with the parameters of this update.
          batch: its index [B] sets the paths apart, its length is theirs.
          key: PRNG key of the update.

        Returns:
          The paths, of `samplers.rollout.Rollouts.draw`.
        """
        rollouts = self._rollouts
        key = jax.random.fold_in(key, ROLL)
        return rollouts.draw(denoiser, key, batch.index, batch.z0.shape[1])


@register("objective", "wdce")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Wdce(FromTarget):
    """Weighted denoising cross-entropy, sum_b w_b E_m (L / m) CE(x_b, m sites masked) / L.

    w = softmax(W) over the whole batch; m is uniform on 1 .. L, stratified; every second replicate
    hides the sites that the one before shows first. Nats a site. Rollouts are kept for `every`
    updates and weighted anew where the temperature has changed.

    Attributes:
      replicates: times that a configuration is hidden anew in an update.
      every: updates between rollouts.
      tile: as of `Nelbo`.
    """

    replicates: int = 8
    every: int = 5
    tile: int = AUTO

    def __post_init__(self):
        super().__post_init__()
        at_least_one(self, "replicates", "every")
        check_tile(self.tile)
        if self.latent and self.carry and not self.context.carries:
            raise ValueError(
                "wdce with context none trains the network without a latent, which its rollouts "
                "would carry; set objective.context to pseudo, or objective.carry False"
            )

    def aux(self, batch: int, length: int) -> Buffer:
        """The buffer."""
        like = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype)
        return Buffer(like(batch, length, dtype=jnp.int32), like(batch), like(batch))

    def drawn(self, denoiser: Denoiser, batch: Batch, aux: Any, key: Array) -> tuple[Any, Batch]:
        """The buffer, new every `every` updates, as a batch whose rows weigh B w."""

        def fresh() -> Buffer:
            found = self.paths(denoiser, batch, key)
            return Buffer(found.x, found.nats, self.target.log_weight(found.x))

        aux = jax.lax.cond(batch.step % self.every == 0, fresh, lambda: aux)
        log_w = self.warmup(batch.step) * aux.log_weight + aux.nats
        share = len(log_w) * jax.nn.softmax(log_w)
        return aux, batch._replace(z0=aux.x, weight=batch.weight * share[:, None])

    def __call__(self, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """Total as above; `loss_B` is each example's weighted sum over its sites."""
        count, (rows, length) = self.replicates, batch.z0.shape
        again = lambda tree: jax.tree.map(lambda a: jnp.repeat(a, count, axis=0), tree)
        many = again(batch._replace(total=None, norm=None, step=None))
        turn = jnp.tile(jnp.arange(count), rows)
        index = many.index * count + turn
        many = many._replace(index=index, total=batch.total * count, norm=batch.norm * count)
        site = lambda i: jax.random.fold_in(key, i)
        u = stratified(site(TIMES), index, many.total)
        m = jnp.clip(length - jnp.floor(u * length), 1, length)
        place = uniforms(example_keys(site(CORRUPT), index - turn % 2), (length,))
        place = jnp.where(turn[:, None] % 2 == 1, 1 - place, place)
        z = self.process.mask_at(many.z0, ranks(place) < m[:, None])
        most = self.process.schedule.noise(jnp.ones(()))
        clock = self.process.elapsed(m / length * most)
        scored = Nelbo(
            context=self.context,
            times=CrossEntropy(),
            tile=self.tile,
            process=self.process,
            groups=self.groups,
            dropout=self.dropout,
            num_classes=self.num_classes,
        )
        loss = scored.score(
            denoiser, many, z, clock, length / m, site(GATE), example_keys(site(DROPOUT), index)
        )
        loss_B = jnp.mean(loss.metrics["loss_B"].reshape(rows, count), axis=1)
        return Loss(loss.total, {"loss_B": loss_B, "scored": loss.metrics["scored"] // count})


@register("objective", "log_variance")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LogVariance(FromTarget):
    """Var(W) over the batch, nats^2, with respect to the network on given paths.

    The paths are new in every update: W is that of the network as it is. With d = W - mean W held
    fixed the loss is the sum of d^2 + 2 d (nats - held nats) over B - 1, whose value and gradient
    are those of the variance, and which adds up over shards and microbatches.
    """

    def __post_init__(self):
        super().__post_init__()
        if self.context.carries:
            raise ValueError(
                "log_variance takes the latent along its path (carry); context must be 'none'"
            )
        if self.dropout:
            raise ValueError("log_variance differentiates the sampler; set model.dropout to 0")

    def aux(self, batch: int, length: int) -> Any:
        """Nothing is kept.

        Raises:
          UserError: for a batch of one, which has no variance.
        """
        require(batch > 1, f"a variance needs two rollouts; training.batch_size is {batch}")
        return ()

    def drawn(self, denoiser: Denoiser, batch: Batch, aux: Any, key: Array) -> tuple[Any, Batch]:
        """New paths, and how far their W lie from the mean."""
        found = self.paths(denoiser, batch, key)
        w = self.warmup(batch.step) * self.target.log_weight(found.x) + found.nats
        return aux, batch._replace(z0=found.x, drawn=(found.order, w - jnp.mean(w)))

    def __call__(self, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """Total as above; `loss_B` are its terms."""
        del key
        order, gap = batch.drawn
        nats = self._rollouts.nats(denoiser, batch.z0, order)
        loss_B = gap**2 + 2 * gap * (nats - jax.lax.stop_gradient(nats))
        scored = jnp.sum(~batch.keep, dtype=jnp.int32)
        return Loss(jnp.sum(loss_B) / (batch.total - 1), {"loss_B": loss_B, "scored": scored})
