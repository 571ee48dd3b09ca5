"""Samples of a trained model, by number: one compiled program for every number of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ldd_jax.config import plugins
from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling
from ldd_jax.config.stored import fingerprint
from ldd_jax.core.checks import UserError, check_seed, require
from ldd_jax.core.positions import SIGNAL
from ldd_jax.core.registry import section
from ldd_jax.inference.ahead import ahead
from ldd_jax.inference.patterns import Patterns
from ldd_jax.inference.programs import check_settings, program
from ldd_jax.samplers.loop import fetched
from ldd_jax.samplers.state import SampleState
from ldd_jax.training import sharding

DIGITS = 5  # of a signal's numbers after the point
PRECISION = "float32, tail-exact"


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A jitted sampler of one shape, for any number of steps; with a record, one program for each.

    Sample number i of a seed is the same whatever the batch, its size or its padding.
    """

    experiment: Experiment
    sampling: Sampling
    length: int
    compiled: Any
    patterns: Patterns | None = None

    @classmethod
    def make(
        cls,
        experiment: Experiment,
        sampling: Sampling,
        length: int,
        record: Callable[[SampleState], Any] | None = None,
    ) -> Sampler:
        """Prepare the program of `experiment`, `sampling`, `length`, `record`; not compiled yet.

        Raises:
          UserError: for a step rule that cannot run with this network.
        """
        check_settings(experiment, sampling)
        try:
            sampling.blocks.spans(length, min(experiment.config.data.length, length))
        except ValueError as error:
            raise UserError(f"blocks: {error}") from error
        whole = sharding.replicated(experiment.mesh)  # every process reads every sample
        run = jax.jit(
            program(experiment, sampling, length, record),
            out_shardings=whole,
            static_argnums=() if record is None else 6,
        )
        patterns = Patterns.of(experiment, length)
        require(
            patterns is None or sampling.blocks.whole,
            "patches are those of a whole row; give --blocks=whole",
        )
        return cls(experiment, sampling, length, run, patterns)

    def batch(
        self,
        params: Any,
        seed: int,
        first: int | np.ndarray,
        fixed_tokens: np.ndarray,
        fixed: np.ndarray,
        num_steps: int,
        label: int | None = None,
        given: dict[str, np.ndarray] | None = None,
    ) -> tuple[SampleState, Any]:
        """One batch of samples, by number, and the trace.

        Args:
          params: parameters, on the experiment's mesh.
          seed: of the run; it and a sample's number decide all its chance.
          first: number of the first sample, or the numbers of all, [batch].
          fixed_tokens: [length] for all rows, or [batch, length].
          fixed: where these tokens are taken, in the same shape.
          num_steps: of the time grid.
          label: class of all rows; None = of no class.
          given: parts that are given, by name, [N, length, ...]; sample i is given row i of them,
            from the first again after the last.

        Raises:
          UserError: for a model that draws tokens to a signal, without one.
        """
        given, e = given or {}, self.experiment
        require(
            not e.channels or bool(e.process.parts) or SIGNAL in given,
            "this model draws tokens to a signal that is given; `sample --given=signal:FILE` does",
        )
        pieces = sharding.shards(self.experiment.mesh)
        size = -(-self.sampling.batch_size // pieces) * pieces  # every shard gets whole samples
        row = lambda a, dtype: np.broadcast_to(np.asarray(a, dtype), (size, self.length))
        index = first if isinstance(first, np.ndarray) else np.arange(first, first + size)
        tokens, held = row(fixed_tokens, np.int32), row(fixed, np.bool_)
        unit = None if self.patterns is None else self.patterns.units(index, seed, tokens, held)
        parts = {name: part[index % len(part)] for name, part in given.items()}
        return self.compiled(
            params,
            np.uint32(seed),
            index.astype(np.uint32),
            np.full(size, self.experiment.model.num_classes if label is None else label, np.int32),
            tokens,
            held,
            np.int32(num_steps),
            unit,
            parts,
        )

    def common(self, seed: int, num_steps: int) -> dict[str, Any]:
        """What records of one seed and number of steps share."""
        code = plugins.digests("sampling", section(self.sampling).to_dict())
        return ({"plugins": code} if code else {}) | {
            "seed": seed,
            "steps": num_steps if self.sampling.step.counts_steps else None,
            "config": fingerprint(self.experiment.config),
            "precision": PRECISION,
            "tokenizer": self.experiment.tokenizer.digest,
            "settings": describe(self.sampling),
            **({} if self.sampling.blocks.exact else {"exact": False}),
        }

    def records(
        self,
        params: Any,
        *,
        seed: int,
        count: int,
        num_steps: int,
        fixed_tokens: np.ndarray | None = None,
        fixed: np.ndarray | None = None,
        label: int | None = None,
        begin: int = 0,
        given: dict[str, np.ndarray] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Samples as JSON-able records: text, tokens, calls, seed, config, precision.

        Args:
          params: parameters, on the experiment's mesh.
          seed: of the run, below 2^32.
          count: samples, counted from 0.
          num_steps: of the time grid.
          fixed_tokens: [length]; None = nothing is given.
          fixed: [length], True where these tokens are taken.
          label: class of all; None = of no class.
          begin: samples before this number are left out.
          given: of `batch`.
        """
        require(count >= 1, f"num_samples is {count}; it must be at least 1")
        check_seed(seed, "seed")
        require(num_steps >= 1, f"steps is {num_steps}; it must be at least 1")
        fixed_tokens = np.zeros(self.length, np.int32) if fixed_tokens is None else fixed_tokens
        fixed = np.zeros(self.length, bool) if fixed is None else fixed
        common = self.common(seed, num_steps)
        how = (fixed_tokens, fixed, num_steps, label, given)
        batches = (
            (first, self.batch(params, seed, first, *how)[0])
            for first in range(begin, count, self.sampling.batch_size)
        )
        for first, state in ahead(batches):
            tokens, calls = fetched(state)
            beside = _beside(state, given or {}, first)
            for i in range(min(self.sampling.batch_size, count - first)):
                ids = tokens[i].tolist()
                yield {
                    "index": first + i,
                    "text": self.experiment.text(ids),
                    "calls": int(calls[i]),
                    **common,
                    "tokens": ids,
                    **{n: part[i].round(DIGITS).tolist() for n, part in beside.items()},
                }


def _beside(state: SampleState, given: dict[str, np.ndarray], first: int) -> dict[str, np.ndarray]:
    """The signal of every sample of a batch: as it was drawn, or as it was given."""
    if SIGNAL in state.memory:
        return {SIGNAL: np.asarray(state.memory[SIGNAL])}
    rows = np.arange(first, first + len(state.calls))
    return {name: part[rows % len(part)] for name, part in given.items() if name == SIGNAL}


def describe(sampling: Sampling) -> dict[str, Any]:
    """The settings of a sample file."""
    settings = dataclasses.asdict(sampling)
    for name in ("num_steps", "num_samples", "batch_size", "tile", "compact"):
        del settings[name]
    for name in ("step", "grid", "blocks", "stop"):
        settings[name] = section(getattr(sampling, name)).to_dict()
    return settings
