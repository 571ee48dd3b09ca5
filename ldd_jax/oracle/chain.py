"""A hidden Markov chain as p_0: exact posteriors at any length, by forward and backward messages.

A law over V^64 cannot be enumerated, but its denoiser is exact all the same, so that whatever is
wrong with the samples is the sampler's doing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import Array, Cond, TokenSpace, Trunk
from ldd_jax.oracle.laws import Identity
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import LinearGrid, sample
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


@struct.dataclass
class Chain:
    """s_1 ~ start [S], s_l+1 ~ move [S, S], x_l ~ emit [S, V]; nats throughout."""

    start: Array
    move: Array
    emit: Array

    @classmethod
    def random(cls, seed: int, states: int, vocabulary: int) -> Any:
        """Rows from Dirichlet(0.3), so that neighbours tell much of each other.

        Args:
          seed: of the matrices.
          states: of the hidden chain.
          vocabulary: tokens.
        """
        rng = np.random.default_rng(seed)
        rows = lambda n, size: jnp.asarray(rng.dirichlet(np.full(size, 0.3), n))
        return cls(jnp.full(states, 1 / states), rows(states, states), rows(states, vocabulary))

    def draw(self, key: Array, number: int, length: int) -> Array:
        """Exact samples [number, length].

        Args:
          key: PRNG key.
          number: of samples.
          length: tokens of a sample.
        """

        def one(s, key):
            first, second = jax.random.split(key)
            x = jax.random.categorical(first, jnp.log(self.emit[s]))
            return jax.random.categorical(second, jnp.log(self.move[s])), x

        begin, rest = jax.random.split(key)
        s = jax.random.categorical(begin, jnp.log(self.start), shape=(number,))
        _, x = jax.lax.scan(one, s, jax.random.split(rest, length))
        return x.T.astype(jnp.int32)

    def log_likelihood(self, x_BL: Array) -> Array:
        """Log p(x), [B]."""
        return jnp.sum(self._forward(jnp.moveaxis(self.emit[:, x_BL], 0, -1))[1], axis=1)

    def _forward(self, b_BLS: Array) -> tuple[Array, Array]:
        """Law of the state before its own evidence [B, L, S], and log of each evidence [B, L]."""

        def one(f, b):
            joint = f * b
            total = jnp.sum(joint, -1, keepdims=True)
            return (joint / total) @ self.move, (f, jnp.log(total[:, 0]))

        first = jnp.broadcast_to(self.start, b_BLS[:, 0].shape)
        _, (f, log) = jax.lax.scan(one, first, b_BLS.swapaxes(0, 1))
        return f.swapaxes(0, 1), log.T

    def leave_one_out(self, b_BLS: Array) -> Array:
        """p(x_l = v | the evidence of all other positions), [B, L, V]."""

        def one(g, b):
            before = (b * g) @ self.move.T
            return before / jnp.sum(before, -1, keepdims=True), g

        last = jnp.ones_like(b_BLS[:, 0])
        _, g = jax.lax.scan(one, last, b_BLS.swapaxes(0, 1), reverse=True)
        w = self._forward(b_BLS)[0] * g.swapaxes(0, 1)
        return (w / jnp.sum(w, -1, keepdims=True)) @ self.emit


@struct.dataclass
class ExactChain:
    """The ideal denoiser of a chain under masked or uniform noise; it takes no latent."""

    law: Chain
    masked: bool = struct.field(pytree_node=False)

    @property
    def head(self) -> Identity:
        """Nothing left to project."""
        return Identity()

    @property
    def timed(self) -> bool:
        """Visible tokens do not age; uniform noise does."""
        return not self.masked

    def trunk(
        self, z_BL: Array, cond: Cond, h: Any = None, *, key: Any = None, cache: Any = None
    ) -> Trunk:
        """Log-posteriors [B, L, size], -1e4 for zero."""
        del key, cache
        vocabulary = self.law.emit.shape[1]
        if self.masked:
            emit = jnp.pad(self.law.emit, ((0, 0), (0, 1)), constant_values=1.0)
            p = self.law.leave_one_out(jnp.moveaxis(emit[:, z_BL], 0, -1))
            p = jnp.pad(p, ((0, 0), (0, 0), (0, 1)))
        else:
            assert cond.clock is not None
            alpha = jnp.exp(-cond.clock)[:, None, None]
            seen = jnp.moveaxis(self.law.emit[:, z_BL], 0, -1)
            p = self.law.leave_one_out(alpha * seen + (1 - alpha) / vocabulary)
        return Trunk(features=jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1)), -1e4), latent=h)

    def latent(self, batch: int, length: int) -> None:
        """None."""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Samples of a rule against the chain's own law, by number of steps.

    excess: mean of -log p(x) a token less its mean under p, nats, with its standard error; negative
    where samples are too typical. pair_tv: total variation of the law of neighbours, whose value
    for as many exact draws (`floor`) is the noise of counting.
    """

    sampler: str
    process: str
    length: int
    steps: list[int | None]
    calls: list[float]
    excess: list[float]
    excess_se: list[float]
    pair_tv: list[float]
    floor: float

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """A chain, how much of it is drawn, and what that looks like when the draws are exact."""

    states: int = 6
    vocabulary: int = 8
    length: int = 64
    number: int = 512
    seed: int = 0

    def pairs(self, x: np.ndarray) -> np.ndarray:
        """Law of neighbours (x_l, x_l+1), counted over all l, [V, V]."""
        cell = x[:, :-1] * self.vocabulary + x[:, 1:]
        counts = np.bincount(cell.reshape(-1), minlength=self.vocabulary**2)
        return counts / counts.sum()

    def exact_pairs(self, law: Chain) -> np.ndarray:
        """The same by arithmetic, [V * V]."""
        start, move, emit = (np.asarray(a, np.float64) for a in (law.start, law.move, law.emit))
        total = np.zeros((len(start), len(start)))
        for _ in range(self.length - 1):
            total += start[:, None] * move
            start = start @ move
        return (emit.T @ (total / total.sum()) @ emit).reshape(-1)

    def run(
        self, cases: Iterator[tuple[str, Step]], steps: tuple[int, ...] = (2, 8, 32)
    ) -> Iterator[Sampled]:
        """Every rule with both processes, where it can run."""
        law = Chain.random(self.seed, self.states, self.vocabulary)
        nll = jax.jit(lambda x: -law.log_likelihood(x) / self.length)
        exact = [law.draw(jax.random.key(i), self.number, self.length) for i in range(8)]
        entropy = np.asarray(jnp.concatenate([nll(x) for x in exact]))
        truth = self.exact_pairs(law)
        tv = lambda x: float(np.abs(self.pairs(np.asarray(x)) - truth).sum() / 2)
        floor = float(np.mean([tv(x) for x in exact]))
        spaces = (
            Masked(tokens=TokenSpace(size=self.vocabulary + 1, mask=self.vocabulary)),
            Uniform(tokens=TokenSpace(size=self.vocabulary)),
        )
        for name, step in cases:
            process: Any
            for process in spaces:
                try:
                    step.check(process, latent=False, timed=not process.absorbing)
                except ValueError:
                    continue
                given: list[int | None] = [None] if step.clock == "own" else list(steps)
                sampler = self._sampler(law, process, step)
                states = [sampler(n or 1) for n in given]
                values = [np.asarray(nll(s.z)) for s in states]
                spread = lambda v: np.sqrt(v.var() / len(v) + entropy.var() / len(entropy))
                yield Sampled(
                    sampler=name,
                    process=process.registered[1],
                    length=self.length,
                    steps=given,
                    calls=[float(np.mean(s.calls)) for s in states],
                    excess=[float(v.mean() - entropy.mean()) for v in values],
                    excess_se=[float(spread(v)) for v in values],
                    pair_tv=[tv(s.z) for s in states],
                    floor=floor,
                )

    def _sampler(self, law: Chain, process: Any, step: Step) -> Callable[[int], SampleState]:
        """Number of steps -> samples; compiled once."""
        denoiser: Any = ExactChain(law, process.absorbing)
        index = jnp.arange(self.number)
        prior = process.prior(example_keys(jax.random.key(1), index), self.length)
        draw = Production.of(jax.random.key(2), index)
        run = lambda n: sample(Net(denoiser, process), step, draw, prior, n, grid=LinearGrid())[0]
        return jax.jit(run)


def table(found: list[Sampled]) -> str:
    """Markdown: every rule at every number of steps."""
    lines = [
        "| sampler | process | calls | excess NLL, nats a token | TV of neighbours |",
        "|---|---|---|---|---|",
    ]
    for m in found:
        for calls, excess, se, tv in zip(m.calls, m.excess, m.excess_se, m.pair_tv):
            over = f"{excess:+.3f} +- {se:.3f}"
            lines.append(f"| {m.sampler} | {m.process} | {calls:.0f} | {over} | {tv:.3f} |")
    floor = found[0].floor if found else float("nan")
    return "\n".join([*lines, f"\nExact draws of that number: TV {floor:.3f}."])
