"""Sampling with a trained model: one compiled program for every number of steps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.config import plugins
from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling, check_sampler, is_narrow
from ldd_jax.config.stored import fingerprint
from ldd_jax.core import writing
from ldd_jax.core.casts import cast_once
from ldd_jax.core.checks import UserError, check_seed, require
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.logical import constrain
from ldd_jax.core.positions import SIGNAL
from ldd_jax.core.registry import section
from ldd_jax.data import MASK_TEXT, unknown
from ldd_jax.inference.ahead import ahead
from ldd_jax.inference.patterns import Patterns
from ldd_jax.samplers import Clamp, Whole, read, sample_blocks
from ldd_jax.samplers.guidance import guide, guide_prompt
from ldd_jax.samplers.loop import fetched
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState
from ldd_jax.training import sharding
from ldd_jax.training.metrics import finite

PRIOR, STEPS, READ = 0, 1, 2
DIGITS = 5  # of a signal's numbers after the point
PRECISION = "float32, tail-exact"


def program(
    experiment: Experiment,
    sampling: Sampling,
    length: int,
    record: Callable[[SampleState], Any] | None = None,
) -> Callable[..., tuple[SampleState, Any]]:
    """The pure sampler: (params, seed, index, label, tokens, fixed, steps, unit, given) -> both.

    label [B], tokens and fixed [B, L]; given: parts of the state that are held, or what the network
    is told, by name, [B, L, ...]. Both: the state, `memory` holding what is beside its tokens, and
    the trace that `record` makes (see `samplers.sample`) or None. A network
    with classes is guided towards the label with `sampling.guidance` (the label after the last
    means none), one without towards the clamped tokens. Tokens, fixed and unit are [B, L]; unit,
    the patch of each position, is for a network whose patches come from the data.

    Args:
      experiment: the run's, with its mesh.
      sampling: the rule, its grid, latent, guidance and tail.
      length: L; blocks that make more leave out what is beyond.
      record: what is kept of every step, whose z are tokens; None = nothing.
    """
    mesh = experiment.mesh
    once = cast_once if is_narrow(experiment.model) else lambda fn: fn
    whole: Any = experiment.process
    made = sampling.blocks.padded(length, experiment.block)
    beyond = lambda a: jnp.pad(a, ((0, 0), (0, made - length)))
    looked = record and (lambda state: record(state._replace(z=whole.shown(state.z))))

    def sampler(params, *args):
        return once(lambda params: drawn(params, *args))(params)

    def drawn(params, seed, index, label, fixed_tokens, fixed, num_steps, unit=None, given=None):
        key, given = jax.random.key(seed), given or {}
        held = {name: part for name, part in given.items() if name in whole.parts}
        process = whole.holding(tuple(held)) if held else whole
        told = None if held else given.get(SIGNAL)
        net = network(experiment, sampling, params, label, unit, told)
        net = dataclasses.replace(net, process=process) if held else net
        z, clock = process.prior(example_keys(jax.random.fold_in(key, PRIOR), index), made)
        z = z | held if held else z
        state, trace = sample_blocks(
            net,
            sampling.step,
            Production.of(jax.random.fold_in(key, STEPS), index),
            (jax.tree.map(_laid, z), clock),
            num_steps,
            blocks=sampling.blocks,
            window=experiment.config.data.length,
            grid=sampling.grid,
            clamp=Clamp(process.encode(beyond(fixed_tokens)), process.places(beyond(fixed))),
            latent=sampling.latent,
            tail=sampling.tail,
            stop=sampling.stop,
            compact=sampling.compact,
            record=looked,
            eos=experiment.tokenizer.eos if sampling.blocks.stops else None,
        )
        if made > length:  # what is beyond the row is left out
            state = state._replace(z=jax.tree.map(lambda a: a[:, :length], state.z))
        # The latent stays inside.
        beside = process.beside(state.z)
        state = read(net, state, Production.of(jax.random.fold_in(key, READ), index), length)
        return state._replace(h=None, memory=beside), trace

    return sharding.on(mesh, sampler)


def _laid(a: Any) -> Any:
    """A branch of the state on the mesh."""
    return constrain(a, "batch", "length", *(None,) * (a.ndim - 2))


def network(
    experiment: Experiment,
    sampling: Sampling,
    params: Any,
    label: Any,
    unit: Any = None,
    signal: Any = None,
) -> Net:
    """What a sampler asks for predictions: read-out, tiles, guidance towards a label or a prompt.

    Args:
      experiment: its model, process and devices.
      sampling: its settings.
      params: of the model.
      label: classes [B], of a network that takes them.
      unit: patch of each position [B, L], of a network that is told.
      signal: points [B, L, C] that the network is told, of one that denoises none.
    """
    model, pieces = experiment.model, sharding.shards(experiment.mesh)
    net = Net(model.bind(params), experiment.process, sampling.readout, sampling.tile, pieces)
    net = dataclasses.replace(net, unit=unit, signal=signal)
    if model.num_classes:
        return guide(net, label, null=model.num_classes, gamma=sampling.guidance)
    return guide_prompt(net, gamma=sampling.guidance)


def check_settings(experiment: Experiment, sampling: Sampling) -> None:
    """Refuse a sampler that cannot run with this network.

    Raises:
      UserError: saying why.
    """
    check_sampler(sampling, experiment.process, experiment.model)
    require(
        isinstance(sampling.blocks, Whole)
        or not (experiment.channels or experiment.process.reader),
        "a row with a signal beside its tokens, or made of vectors, is made whole; give "
        "--blocks=whole",
    )
    require(
        not sampling.compact or sharding.shards(experiment.mesh) == 1,
        "compact moves rows of a batch together, which are laid over devices here; leave it 0",
    )
    require(
        sampling.guidance == 1 or not experiment.block,
        "guidance asks the network twice, and finished blocks stand in one cache; use guidance 1",
    )
    require(
        sampling.guidance == 1 or experiment.objective.condition_dropout > 0,
        f"guidance is {sampling.guidance}, but this model never saw its condition missing; "
        "train with objective.condition_dropout, or use guidance 1",
    )


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
            patterns is None or isinstance(sampling.blocks, Whole),
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
            "steps": num_steps if self.sampling.step.clock == "grid" else None,
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


def template(
    experiment: Experiment, prompt: str | None, fill: str | None, length: int | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Fixed tokens and where they are fixed, from `--fill` or `--prompt`; None without either.

    A prompt stands at the front of a row of `length` tokens (None: as in training); a template is
    the whole row, longer than in training only where `length` says so.

    Args:
      experiment: the run's; its tokenizer reads the texts.
      prompt: text at the front of a row.
      fill: text of the whole row, with [MASK] for each free token.
      length: tokens of the row; None = as in training.

    Raises:
      UserError: for an empty text, one that leaves nothing free, or does not fit.
    """
    require(prompt is None or fill is None, "give --prompt or --fill, not both")
    for name, text in (("prompt", prompt), ("fill", fill)):
        require(text != "", f"--{name} is empty; leave it out, or give a text")
    usual = experiment.config.data.length
    if fill is not None:
        ids, free = experiment.tokenizer.encode_template(fill)
        require(
            any(free), f"--fill={fill!r} has no [MASK] to fill; write [MASK] for each free token"
        )
        require(
            length is None or length == len(ids),
            f"--length={length}, but --fill is the whole row and has {len(ids)} tokens; leave "
            "--length out, or give that number",
        )
        require(
            length is not None or len(ids) <= usual,
            f"--fill has {len(ids)} tokens, but a row has {usual}; shorten it, or give "
            f"--length={len(ids)} for a row longer than those of training",
        )
        known = [i for i, f in zip(ids, free) if not f]
        lost = experiment.tokenizer.lost(fill.replace(MASK_TEXT, ""))
        unknown.check(experiment.tokenizer, known, "--fill", lost)
        return np.asarray(ids, np.int32), ~np.asarray(free, bool)
    if prompt is not None:
        length = length or usual
        ids = experiment.tokenizer.encode(experiment.asked(prompt))
        unknown.check(experiment.tokenizer, ids, "--prompt", experiment.tokenizer.lost(prompt))
        require(
            len(ids) < length,
            f"--prompt has {len(ids)} tokens, but a row has {length}; shorten it or give --length",
        )
        tokens, fixed = np.zeros(length, np.int32), np.zeros(length, bool)
        tokens[: len(ids)], fixed[: len(ids)] = ids, True
        return tokens, fixed
    return None


def json_line(record: dict[str, Any]) -> str:
    """A line of a sample file; numbers that JSON has no word for become null."""
    return json.dumps(finite(record), ensure_ascii=False) + "\n"


def write_json_lines(place: writing.Place | str, records: list[dict[str, Any]]) -> None:
    """Write a file that the user named, whole or not at all."""
    with writing.place(place).open() as stream:
        stream.writelines(map(json_line, records))
