"""What a run carries from step to step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from ldd_jax.core.types import Array, Model
from ldd_jax.training import sharding


@struct.dataclass
class TrainState:
    """step: updates done; params; ema: their moving average, None = there is none; opt_state.

    aux: what the objective keeps from update to update (a buffer of rollouts), leaves [batch, ...].
    """

    step: Any
    params: Any
    ema: Any
    opt_state: Any
    aux: Any = ()


def create(
    model: Model,
    optimizer: optax.GradientTransformation,
    key: Array,
    aux: Any = (),
    averaged: bool = True,
) -> TrainState:
    """The state before the first update; ema is a copy, so that both can be donated.

    Args:
      model: makes the parameters.
      optimizer: makes its own state of them.
      key: PRNG key of the initial parameters.
      aux: shapes of what the objective keeps, which begins as zeros.
      averaged: whether there is a moving average.
    """
    params = jax.jit(model.init)(key)  # traced once by all that ask a model
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params) if averaged else None,
        opt_state=optimizer.init(params),
        aux=jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), aux),
    )


def abstract(
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    aux: Any = (),
    averaged: bool = True,
    on_host: bool = False,
) -> TrainState:
    """Shapes, dtypes and shardings of the state on a mesh; nothing is allocated.

    Args:
      model: has the parameters.
      optimizer: of optax.
      mesh: of the run.
      aux: shapes and dtypes of what the objective keeps, cut like the batch.
      averaged: as in `create`.
      on_host: the moving average lies in the memory of the devices' hosts.
    """
    shapes = jax.eval_shape(lambda k: create(model, optimizer, k), jax.random.key(0))
    sharding.check(mesh, model.axes(), shapes.params)
    placed = sharding.parameters(mesh, model.axes())
    average = sharding.on_host(placed) if on_host else placed
    one = sharding.replicated(mesh)
    like = lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place)
    # A parameter's statistics that are smaller than it (Adafactor's) are whole everywhere.
    beside = lambda s, place, p: like(s, place if s.shape == p.shape else one)
    nothing = lambda s: isinstance(s, optax.MaskedNode)  # of a parameter that is not trained
    opt_state = optax.tree_map_params(
        optimizer,
        lambda s, place, p: s if nothing(s) else beside(s, place, p),
        shapes.opt_state,
        placed,
        shapes.params,
        transform_non_params=lambda s: like(s, one),
        is_leaf=nothing,
    )
    return TrainState(
        step=like(shapes.step, one),
        params=jax.tree.map(like, shapes.params, placed),
        ema=jax.tree.map(like, shapes.params, average) if averaged else None,
        opt_state=opt_state,
        aux=jax.tree.map(lambda a: like(a, sharding.batch(mesh)), aux),
    )


def shardings(state: TrainState) -> TrainState:
    """The shardings of an abstract state."""
    return jax.tree.map(lambda s: s.sharding, state)


def initial(
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    key: Array,
    aux: Any = (),
    averaged: bool = True,
    on_host: bool = False,
) -> TrainState:
    """The first state, made in place on the mesh.

    Args:
      model: as in `create`.
      optimizer: as in `create`.
      mesh: devices over which the state is laid out.
      key: as in `create`.
      aux: as in `create`.
      averaged: as in `create`.
      on_host: as in `abstract`.
    """
    out = shardings(abstract(model, optimizer, mesh, aux, averaged, on_host))
    make = lambda k: create(model, optimizer, k, aux, averaged)
    return jax.jit(make, out_shardings=out)(key)


def update_ema(ema: Any, params: Any, step: Array, decay: float) -> Any:
    """Ema <- d ema + (1 - d) params, d = min(decay, (1 + n) / (10 + n)), n counting this update.

    Args:
      ema: the moving average.
      params: parameters after the update, in the same structure.
      step: n, updates done, this one among them.
      decay: d once many updates are done, in [0, 1].
    """
    d = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda e, p: e + (1 - d).astype(e.dtype) * (p - e), ema, params)


def evaluated(state: TrainState) -> Any:
    """The parameters that are evaluated and sampled: averaged, where there is an average.

    An average of the hosts' is copied to the devices.
    """
    if state.ema is None:
        return state.params
    places = jax.tree.map(lambda a: a.sharding, state.ema)
    if all(place.memory_kind != sharding.HOST for place in jax.tree.leaves(places)):
        return state.ema
    there = jax.tree.map(lambda place: place.with_memory_kind(sharding.DEVICE), places)
    return jax.device_put(state.ema, there)


def count(params: Any) -> int:
    """Number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
