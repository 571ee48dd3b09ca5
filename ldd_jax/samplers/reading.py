"""From a finished state to tokens: by the process itself, or by a network that reads it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from ldd_jax.core.draws import NO_LAW
from ldd_jax.core.types import Draw
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.next_token import NextToken
from ldd_jax.samplers.state import SampleState


def read(net: Net, state: SampleState, draw: Draw, length: int) -> SampleState:
    """The state with tokens [B, length] for z.

    Where the process has a `reader` the network's decoder is told z and draws them one after the
    other, with the temperature and truncation of `net`; it costs `length` calls.

    Args:
      net: process, network and read-out.
      state: at the end of sampling.
      draw: chance of the reading.
      length: L.
    """
    process: Any = net.process
    if process.reader is None:
        return state._replace(z=process.decode(state.z))
    denoiser: Any = net.denoiser
    own = dataclasses.replace(
        net, denoiser=denoiser.reader(state.z), process=process.reader, policy=Latent()
    )
    batch = state.z.shape[0]
    begun = jnp.full((batch, length), process.reader.start, jnp.int32)
    free = jnp.ones((batch, length), bool)
    text = NextToken()(own, state._replace(z=begun, free=free), None, draw, None)
    lost = text.z == NO_LAW
    lawless = jnp.any(lost, axis=1) | (False if state.lawless is None else state.lawless)
    return text._replace(z=jnp.where(lost, 0, text.z), lawless=lawless)
