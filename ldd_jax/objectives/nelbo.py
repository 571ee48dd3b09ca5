"""The negative evidence lower bound of a process, with or without loopholing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.draws import example_keys, fold, uniforms
from ldd_jax.core.registry import component, register, runtime
from ldd_jax.core.types import Array, Attend, Batch, Cond, Denoiser, Loss, Process, Trunk
from ldd_jax.core.vocabulary_tiles import AUTO, check_tile, rows_loss
from ldd_jax.objectives import windows
from ldd_jax.objectives.base import OfData, with_z
from ldd_jax.objectives.context import NoContext, PseudoContext
from ldd_jax.objectives.strata import stratified
from ldd_jax.objectives.times import UniformTimes, WithReconstruction
from ldd_jax.objectives.windows import CONDITION, CORRUPT, DROPOUT, GATE, TIMES

ANNEALED, LOOPED = 1, 2  # within the gate's key


@register("objective", "nelbo")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Nelbo(OfData):
    """E_t E_{z_t} sum_i bound_i(x_theta(z_t, h)), nats per scored token.

    `tile` rows of logits exist at a time (0 = all at once, -1 = chosen by rows and vocabulary),
    `groups` is the number of data shards. `condition_dropout` of the examples lose their condition,
    for classifier-free guidance: the class becomes the null class, and kept positions (a prompt)
    are hidden, if the process can.

    `anneal_steps` turns a causal network into one that sees both ways (DiffuLLaMA, arXiv
    2410.17891): update n opens each later key with probability min(1, n / anneal_steps), by one
    draw for all rows, heads, layers and passes. 0 = the network's own attention; evaluation has it
    always. `draw_loops`: an update draws how often a looped network goes through its blocks
    (`model.loops`, `least_loops`), the same for all rows and passes; evaluation takes all loops.
    `z_loss` (log sum_v e^logit_v)^2 is added at every scored row, which holds logits in place; PaLM
    has 1e-4. It is in the training loss that is logged, and in no bound.
    """

    context: Any = component("context", NoContext)
    times: Any = component("times", UniformTimes)
    tile: int = AUTO
    condition_dropout: float = 0.0
    anneal_steps: int = 0
    draw_loops: bool = False
    z_loss: float = 0.0
    process: Process = runtime()
    groups: int = runtime()
    dropout: bool = runtime()
    num_classes: int = runtime()
    whole: bool = runtime()

    exact = False
    needs_causal = False
    by_patch = False  # masks whole patches, not tokens
    bounds = True
    """Whether its mean is an upper bound of the negative log-likelihood.

    A class that sums something else has to say so anew: see `__init_subclass__`.
    """

    def __init_subclass__(cls, **kwargs):
        """What changes the sum of a bound is none, unless it says that it is."""
        super().__init_subclass__(**kwargs)
        changed = {"__call__", "corrupted", "integrand", "score"} & vars(cls).keys()
        if changed and "bounds" not in vars(cls):
            cls.bounds = False

    def __post_init__(self):
        check_tile(self.tile)
        if self.anneal_steps < 0:
            raise ValueError(f"anneal_steps is {self.anneal_steps}; it must be 0 (off) or more")
        if not 0 <= self.z_loss < 1:
            raise ValueError(f"z_loss is {self.z_loss}; it must lie in [0, 1), such as 1e-4")
        if self.z_loss and self.process is not None and self.process.parts:
            raise ValueError("z_loss is of logits of tokens alone; this process has other parts")
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(
                f"condition_dropout is {self.condition_dropout}; it must lie in [0, 1)"
            )
        if self.process is not None and self.process.counts_events != self.times.events:
            raise ValueError(
                f"times {self.times.registered[1]} do not go with process "
                f"{type(self.process).__name__.lower()}; times events are for processes that count "
                "events (scud), and those for no other"
            )
        if self.process is not None and self.process.points and self.times.of_tokens:
            raise ValueError(
                f"times {self.times.registered[1]} compare laws of tokens, but the states of "
                f"{type(self.process).__name__.lower()} diffusion are points (use cross_entropy or "
                "uniform)"
            )
        if self._along:
            windows.check(self, Nelbo)
        if self.condition_dropout and not (self.process.absorbing or self.num_classes):
            raise ValueError(
                "condition_dropout needs classes (model.num_classes), or masked diffusion, which "
                "can hide a prompt"
            )

    def as_bound(self, passes: int) -> Nelbo:
        """The bound of evaluation: `passes` network passes always, t on all of (0, 1].

        Nothing is missing at either end: the forward process is the one that the sampler reverses
        (`corrupt_to_prior`), and where alpha(0) < 1 the noise removal is scored as well.
        """
        context = NoContext() if passes == 1 else PseudoContext(p=1.0, passes=passes - 1)
        times = self.times.unclipped()
        with jax.ensure_compile_time_eval():
            left = float(self.process.schedule.noise(jnp.zeros(())))
        return dataclasses.replace(
            self,
            context=context,
            times=WithReconstruction(times) if left > 0 else times,
            dropout=False,
            condition_dropout=0.0,
            anneal_steps=0,
            draw_loops=False,
            z_loss=0.0,
            whole=True,
        )

    @property
    def _along(self) -> bool:
        """Whether the context goes along a trajectory, and makes the loss."""
        return isinstance(self.context, windows.Windowed) and self.context.moves

    @property
    def chain(self) -> str:
        """What is to be said of the sampler that it bounds, beside its passes."""
        return self.process.chain + self.times.chain

    def aux(self, batch: int, length: int) -> Any:
        """What the context keeps."""
        return self.context.aux(batch, length) if self._along else ()

    def drawn(self, denoiser: Denoiser, batch: Batch, aux: Any, key: Array) -> tuple[Any, Batch]:
        """What it keeps now, and the rows to be scored."""
        del denoiser
        return self.context.drawn(self, batch, aux, key) if self._along else (aux, batch)

    def __call__(self, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """Total = sum(weight * bound) / norm; `loss_B` is the same per example, unnormalised."""
        self.process.check(timed=denoiser.timed)
        if self._along:
            return self.context.loss(self, denoiser, batch, key)
        site = lambda i: jax.random.fold_in(key, i)
        own = lambda i: example_keys(site(i), batch.index)
        u = stratified(site(TIMES), batch.index, batch.total)
        z, clock, factor = self.corrupted(batch, u, own(CORRUPT))
        if self.condition_dropout:
            batch, z = self.without(batch, z, uniforms(own(CONDITION), ()))
        return self.score(denoiser, batch, z, clock, factor, site(GATE), own(DROPOUT))

    def corrupted(self, batch: Batch, u_B: Array, keys_B: Array) -> tuple[Any, Any, Array]:
        """z_t, its clock and the factor of the integrand, together.

        Args:
          batch: clean tokens and positions that are kept.
          u_B: a stratified uniform for each example.
          keys_B: its own key.

        Returns:
          z, leaves [B, L, ...]; clock [B], [B, L] or a tree; factor [B] or [B, L].
        """
        t, factor = self.times(u_B, self.process.schedule)
        corrupt = self.process.corrupt_to_prior if self.whole else self.process.corrupt
        return *corrupt(keys_B, batch.z0, t, batch.keep), factor

    def integrand(self, logits_NV: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """What is summed over rows: the bound, as the times ask for it.

        Args:
          logits_NV: what the head gives.
          z0_N: clean tokens.
          z_N: corrupted tokens.
          clock_N: clock of each row.

        Returns:
          [N], nats.
        """
        return self.times.integrand(self.process, logits_NV, z0_N, z_N, clock_N)

    def without(self, batch: Batch, z: Array, u_B: Array) -> tuple[Batch, Array]:
        """The batch whose examples with u < condition_dropout have lost their condition.

        Args:
          batch: with the condition.
          z: corrupted tokens, [B, L], or several states of them, [u, B, L].
          u_B: a uniform per example.
        """
        lost = u_B < self.condition_dropout
        if batch.cond.label is not None:
            label = jnp.where(lost, self.num_classes, batch.cond.label)
            batch = batch._replace(cond=batch.cond._replace(label=label))
        return batch, self.process.mask_at(z, lost[:, None] & batch.keep)

    def score(
        self,
        denoiser: Denoiser,
        batch: Batch,
        z: Any,
        clock: Any,
        factor: Array,
        gate: Array,
        keys_B: Array | None,
    ) -> Loss:
        """The loss of given corrupted tokens: context, scored pass, bound.

        Args:
          denoiser: network with the parameters of this update.
          batch: its z0, weight and keep decide what is scored.
          z: the corrupted state, [B, L].
          clock: of `z`: [B], [B, L] or a tree.
          factor: of the integrand, [B] or [B, L], as the times give it.
          gate: PRNG key of the update, for the context's gate.
          keys_B: a PRNG key per example for dropout; None = no dropout.
        """
        trunk = self.scored_pass(denoiser, batch, z, clock, gate, keys_B)
        clock_N = positions.of_rows(clock, positions.shape(z)[1])
        args = (*positions.flat((batch.z0, z)), clock_N)
        on = self.process.scored(z) & ~batch.keep
        return self.summed(denoiser, batch, trunk.features, self.integrand, args, factor, on)

    def scored_pass(
        self,
        denoiser: Denoiser,
        batch: Batch,
        z: Any,
        clock: Any,
        gate: Array,
        keys_B: Array | None,
    ) -> Trunk:
        """The network's pass that is scored, after that of the context.

        `denoiser`, `batch`, `z`, `clock`, `gate` and `keys_B` are those of `score`.
        """
        keys_B = keys_B if self.dropout else None
        again = None if keys_B is None else fold(keys_B, 1)
        cond = self.annealed(self.condition(batch, z, clock), batch, gate)
        h = self.context(denoiser, z, cond, again, gate, batch.index)
        return denoiser.trunk(z, cond, h, key=keys_B)

    def condition(self, batch: Batch, z: Any, clock: Any) -> Cond:
        """What the network is told beside z.

        Args:
          batch: its class, documents and positions are passed on.
          z: the state that the network is shown.
          clock: the process's; the network is told `conditioning` of it.
        """
        cond = batch.cond.of_none(self.num_classes or 0, positions.shape(z)[0])
        return cond._replace(clock=self.process.conditioning(clock))

    def annealed(self, cond: Cond, batch: Batch, key: Array) -> Cond:
        """With the attention and loops of this update, the same for both passes and everywhere.

        Args:
          cond: what the network is told.
          batch: its `step` is the number of updates done.
          key: PRNG key of the update.
        """
        if self.draw_loops:
            cond = cond._replace(chance=jax.random.uniform(jax.random.fold_in(key, LOOPED)))
        if not self.anneal_steps:
            return cond
        share = jnp.minimum(1.0, (batch.step + 1) / self.anneal_steps)
        own = jax.random.fold_in(key, ANNEALED)
        return cond._replace(attend=Attend("annealed", share=share, key=own))

    def summed(
        self,
        denoiser: Denoiser,
        batch: Batch,
        features: Any,
        integrand: Callable[..., Array],
        args: Any,
        factor: Array,
        on_BL: Array,
    ) -> Loss:
        """Sum over `on_BL` of weight * factor * integrand(logits, *args) / norm.

        Args:
          denoiser: its head makes the logits, tile by tile.
          batch: its weight, [B, L], and norm.
          features: of the scored pass, leaves [B, L, ...].
          integrand: (logits [N, V], *args) to nats [N].
          args: arrays by row, [B * L, ...].
          factor: of the integrand, [B] or [B, L].
          on_BL: True where a position is scored.

        Returns:
          Total; `loss_B`, nats of each example, not divided by norm; `scored`, their number of
          rows.
        """
        batch_size, length = on_BL.shape
        factor = positions.column(factor)
        weight = jnp.where(on_BL, batch.weight * factor / batch.norm, 0)
        total, loss = rows_loss(
            lambda logits, args: with_z(integrand(logits, *args), logits, self.z_loss),
            self.process.head(denoiser),
            positions.flat(features),
            args,
            positions.flat(weight),
            tile=self.tile,
            groups=self.groups or 1,
            length=length,
        )
        loss_BL = loss.reshape(batch_size, length) * factor * batch.weight
        scored = jnp.sum(on_BL, dtype=jnp.int32)
        return Loss(total, {"loss_B": jnp.sum(loss_BL, -1), "scored": scored})
