"""One update: what is drawn, corruption, scored pass, gradients, optimizer, moving average."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ldd_jax.core.types import Array, Batch, Loss, Model, Objective, as_batch
from ldd_jax.training import rounding
from ldd_jax.training.optimizer import skipped
from ldd_jax.training.state import TrainState, update_ema

ROUNDED = 0x726E64  # within the update's key, of which objectives fold in small numbers


@dataclasses.dataclass(frozen=True)
class Update:
    """The pure training step; jit it once, with shardings and donation.

    `accumulate` microbatches are walked by a scan. Draws come from global indices and the
    normaliser is known beforehand, so that their losses and gradients add up to the full batch's.
    `groups` is the number of data shards: a microbatch takes its share of every shard. `trained`
    says of each parameter whether it is; None = all are. The others have no gradient and keep their
    bytes, also in the moving average. With `ema_on_host` that is given and returned in the hosts'
    memory.
    """

    model: Model
    objective: Objective
    optimizer: optax.GradientTransformation
    ema_decay: float
    accumulate: int = 1
    groups: int = 1
    trained: Callable[[Any], Any] | None = None
    ema_on_host: bool = False

    def gradients(self, params: Any, batch: Batch, key: Array) -> tuple[Loss, Any]:
        """Loss and gradients of the whole batch; `loss_B` in the order of its rows.

        Args:
          params: parameters that the gradient is taken in.
          batch: the global batch; its size is a multiple of `accumulate` times `groups`.
          key: the update's own PRNG key.
        """
        grad = jax.value_and_grad(self._loss, has_aux=True)
        if self.accumulate == 1:
            (_, loss), g = grad(params, batch, key)
            return loss, g
        size = batch.z0.shape[0]
        split = lambda a: (
            a.reshape(self.groups, self.accumulate, -1, *a.shape[1:])
            .swapaxes(0, 1)
            .reshape(self.accumulate, size // self.accumulate, *a.shape[1:])
        )
        of_all = dict(total=batch.total, norm=batch.norm, step=batch.step)
        leaves = batch._replace(total=None, norm=None, step=None)

        def add(carry, micro):
            (_, loss), g = grad(params, micro._replace(**of_all), key)
            metrics = loss.metrics
            sums = jax.tree.map(jnp.add, carry, (loss.total, metrics["scored"], g))
            return sums, (metrics["loss_B"], loss.kept)

        zero = jax.tree.map(jnp.zeros_like, rounding.wide(params))
        zeros = (jnp.zeros(()), jnp.zeros((), jnp.int32), zero)
        (total, scored, g), by_row = jax.lax.scan(add, zeros, jax.tree.map(split, leaves))
        whole = lambda a: (
            a.reshape(self.accumulate, self.groups, -1, *a.shape[2:])
            .swapaxes(0, 1)
            .reshape(size, *a.shape[2:])
        )
        loss_B, kept = jax.tree.map(whole, by_row)
        return Loss(total, {"loss_B": loss_B, "scored": scored}, kept), g

    def begin(
        self, state: TrainState, arrays: dict[str, Array], seed_key: Array
    ) -> tuple[Any, Batch, Array]:
        """What the objective keeps now, the batch to be scored, and the update's own key.

        Args:
          state: before the update.
          arrays: the global batch as the pipeline gives it, [B, ...].
          seed_key: PRNG key of the run; the step is folded in.
        """
        batch = as_batch(arrays)._replace(step=state.step)
        key = jax.random.fold_in(seed_key, state.step)
        denoiser = self.model.bind(state.params)
        return *self.objective.drawn(denoiser, batch, state.aux, key), key

    def _loss(self, params, batch, key):
        params = self._held(params, jax.lax.stop_gradient(params))
        loss = self.objective(self.model.bind(params), batch, key)
        return loss.total, loss

    def _held(self, new: Any, old: Any) -> Any:
        """`new` where a parameter is trained, `old` elsewhere.

        Args:
          new: parameters.
          old: in the same structure.
        """
        if self.trained is None:
            return new
        pick = lambda on, a, b: a if on else b
        return jax.tree.map(pick, self.trained(old), new, old)

    def _averaged(self, ema: Any, params: Any, step: Array, chosen: Callable, key: Array) -> Any:
        """The moving average after the update, in its own type and place.

        One of the host's comes to the device leaf by leaf, each after the one before has gone.

        Args:
          ema: before the update; None = there is none.
          params: after the update, in float32.
          step: updates done, this one among them.
          chosen: of two arrays the first, or the second where the update is skipped.
          key: of the rounding.
        """
        leaves, structure = jax.tree.flatten(ema)
        of = jax.tree.leaves(params)
        every = jax.tree.map(lambda _: True, params)
        trained = jax.tree.leaves(every if self.trained is None else self.trained(params))
        out, gone = [], step
        for number, (old, new, on) in enumerate(zip(leaves, of, trained), len(of)):
            if on:
                here = _after(gone, old) if self.ema_on_host else old
                moved = update_ema(rounding.wide(here), new, step, self.ema_decay)
                old = chosen(rounding.narrow(moved, here, key, number), here)
                if self.ema_on_host:
                    old = gone = jax.device_put(old, jax.memory.Space.Host)
            out.append(old)
        return jax.tree.unflatten(structure, out)

    def __call__(
        self, state: TrainState, arrays: dict[str, Array], seed_key: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        """The next state and scalar metrics.

        Where the loss or the gradient's norm is not finite, only `step` and the learning rate's
        place in its schedule move on: the update is skipped, optimizer and average included, and
        `finite` is False.

        Args:
          state: before the update; may be donated.
          arrays: the global batch as the pipeline gives it, [B, ...].
          seed_key: PRNG key of the run.
        """
        aux, batch, key = self.begin(state, arrays, seed_key)
        loss, g = self.gradients(state.params, batch, key)
        aux = aux._replace(**loss.kept) if loss.kept else aux
        g, old = rounding.wide((g, state.params))
        updates, opt_state = self.optimizer.update(g, rounding.wide(state.opt_state), old)
        params = self._held(optax.apply_updates(old, updates), old)
        step, norm = state.step + 1, optax.global_norm(g)
        finite = jnp.isfinite(loss.total) & jnp.isfinite(norm)
        chosen = lambda a, b: jax.tree.map(lambda *pair: jnp.where(finite, *pair), a, b)
        key = jax.random.fold_in(key, ROUNDED)
        ema = self._averaged(state.ema, params, step, chosen, key)
        first = len(jax.tree.leaves((params, ema)))
        opt_state = rounding.narrow(opt_state, state.opt_state, key, first)
        new = TrainState(
            step,
            chosen(rounding.narrow(params, state.params, key), state.params),
            ema,
            chosen(opt_state, skipped(state.opt_state)),
            aux,
        )
        metrics = {
            "loss": loss.total,
            "grad_norm": norm,
            "finite": finite,
            "scored": loss.metrics["scored"] / batch.z0.size,
            "tokens": batch.norm,
        }
        return new, metrics


def _after(gone: Array, kept: Array) -> Array:
    """`kept` on the device, sent once `gone` is on the host: else all would come at once."""
    kept, _ = jax.lax.optimization_barrier((kept, gone))
    return jax.device_put(kept, jax.memory.Space.Device)
