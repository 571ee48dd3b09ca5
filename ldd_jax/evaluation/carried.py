"""The likelihood of a sampler as it runs, latent carried, and its bound: docs/carried.md.

Let q be a law of paths z_0, ..., z_T that end in the text x, and p the sampler's. With
l = log q(path | x) - log p(path), path ~ q,

  p_sampler(x) = E exp(-l),   so   -log p_sampler(x) <= U = E l,

and -log mean_m exp(-l_m) is a bound for every m, falls with m and tends to -log p_sampler(x). h is
a function of the path, so nothing has to be known of it: it is run along. For masked diffusion the
paths of q are the times of reveal, which the sampler draws without looking at the network, and
l = sum_i -log x_theta(x^i | z_{K_i}, h_{K_i}). Where the text determines its path, l is
-log p_sampler(x) itself.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.ancestral import Ancestral
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.dictation import Dictation, Way
from ldd_jax.samplers.grids import LinearGrid
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.loop import noisy, sample
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import Clamp, SampleState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dictated(Step):
    """A rule that is told the text, [B, L] or one for all rows [1, L].

    Its memory: that of the rule, and what the text has cost so far, [B].
    """

    inner: Step
    text: Array
    known: Way

    @property
    def clock(self) -> str:  # type: ignore[override]
        """As the rule."""
        return self.inner.clock

    @property
    def finishes(self) -> bool:  # type: ignore[override]
        """As the rule."""
        return self.inner.finishes

    def check(self, process: Process, *, latent: bool, timed: bool) -> None:
        """What the rule refuses."""
        self.inner.check(process, latent=latent, timed=timed)

    def init(self, net: Net, state: SampleState) -> Any:
        """The rule's memory, and what the start costs: log q(z_0 | x) - log prior(z_0)."""
        z = state.z
        text = jnp.broadcast_to(self.text, z.shape)
        begun = net.process.drawn_boundary(text.reshape(-1), z.reshape(-1)).reshape(z.shape)
        paid = jnp.sum(jnp.where(state.free, begun, 0), axis=1)
        return self.inner.init(net, state), paid.astype(jnp.result_type(float))

    def done(self, net: Net, state: SampleState) -> Array:
        """As the rule."""
        return self.inner.done(net, state._replace(memory=state.memory[0]))

    def __call__(
        self, net: Net, state: SampleState, s: Any, draw: Draw, segment: Array | None
    ) -> SampleState:
        """The rule's step, and what it costs."""
        own, paid = state.memory
        book: list[Array] = []
        text = jnp.broadcast_to(self.text, state.z.shape)
        told = dataclasses.replace(net, dictation=Dictation(text, self.known, s, book))
        new = self.inner(told, state._replace(memory=own), s, draw, segment)
        on = state.free
        if self.known.law is None:  # of all rows that were looked at those that it revealed
            on = on & net.process.scored(state.z) & ~net.process.scored(new.z)
        for price in book:
            paid = paid + jnp.sum(jnp.where(on, price, 0), axis=1)
        return new._replace(memory=(new.memory, paid))


class Paid(NamedTuple):
    """Of every row, [B]: l in nats, tokens that were not given, and network calls."""

    nats: Array
    tokens: Array
    calls: Array


def along_text(
    net: Net,
    step: Step,
    draw: Draw,
    start: tuple[Array, Array],
    text: Array,
    num_steps: Array | int,
    *,
    grid: Any = LinearGrid(),  # noqa: B008 (frozen)
    latent: Latent = Latent(),  # noqa: B008 (frozen)
    fixed: Array | None = None,
    segment: Array | None = None,
) -> Paid:
    """One path of q to each text, run by the sampler's own loop: all its calls, h in the carry.

    Args:
      net: denoiser, process and read-out, as of `sample`.
      step: a rule with a `way`.
      draw: of the rows; paths differ with it.
      start: (z_0, clock), from `process.corrupt_to_prior` at t = 1.
      text: [B, L].
      num_steps: on the grid, traced or not; one call more removes what noise is left.
      grid: as of `sample`.
      latent: as of `sample`.
      fixed: given and not priced, [B, L]; None = nothing.
      segment: packed documents [B, L], 0 = padding; None = one document.

    Returns:
      See `Paid`.

    Raises:
      ValueError: where the rule's way is not known.
    """
    process = net.process
    way = step.way(process)
    fixed = jnp.zeros(text.shape, bool) if fixed is None else fixed
    free = ~fixed if segment is None else ~fixed & (segment > 0)
    clamp = Clamp(text, fixed, segment)
    tokens = jnp.sum(free, axis=1)
    rule = Dictated(inner=step, text=text, known=way)
    state, _ = sample(
        net,
        rule,
        draw,
        start,
        num_steps,
        grid=grid,
        clamp=clamp,
        latent=latent,
        tail="none",
    )
    if step.clock == "grid":
        last = dataclasses.replace(net, policy=latent, number=num_steps)
        inner = Ancestral()
        end = Dictated(inner=inner, text=text, known=inner.way(process))
        before = state._replace(memory=((), state.memory[1]))
        removal = end(last, before, None, draw.at(step=num_steps), segment)
        calls = jnp.where(noisy(process, state), state.calls + net.passes, state.calls)
        state = removal._replace(calls=calls)
    return Paid(state.memory[1], tokens, state.calls)
