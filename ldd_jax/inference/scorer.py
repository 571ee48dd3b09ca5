"""Conditional likelihoods of many rows: laid into batches of few shapes, on all devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling
from ldd_jax.core import console
from ldd_jax.core.checks import require
from ldd_jax.data import unknown
from ldd_jax.evaluation import conditional, estimators
from ldd_jax.evaluation.conditional import Score, Subsets
from ldd_jax.inference import carried, own_law
from ldd_jax.training import distributed, metrics, sharding

SHORTEST = 16
# Rows of logits at a time where the run says nothing: at most so many, and so many bytes.
TILE, TILE_BYTES = 2048, 1 << 26


class Item(NamedTuple):
    """Tokens of a row, and how many of the last are the target; the others are its context."""

    tokens: tuple[int, ...]
    target: int


class Cut(NamedTuple):
    """How many items were longer than a row: those that lost context, and part of the target."""

    context: int
    target: int


@dataclasses.dataclass
class Scorer:
    """Scores items under a trained model; the same whatever the batch, its order and the devices.

    The network runs in float32 whatever it was trained in, products included, which accelerators
    round further: in bfloat16 a score moves by up to a tenth of a nat with the shape of its batch.

    draws: of each item (see `conditional.subsets`); passes: network passes of one draw, None =
    those that the run is evaluated with; length: longest row, longer ones lose their beginning;
    batch_size: rows at a time; seed: no part of the program, so that it may be set anew.
    sampling: a sampler (`own_law.settings`) whose own likelihood is bounded instead, with `draws`
    paths of `sampling.num_steps` steps each.
    """

    experiment: Experiment
    params: Any
    draws: int = 64
    passes: int | None = None
    length: int = 0
    batch_size: int = 64
    seed: int = 0
    sampling: Sampling | None = None
    say: Callable[[str], None] = lambda text: console.say(text, error=True)

    def __post_init__(self):
        e = self.experiment
        e.check_alone("scoring a text")
        self.length = self.length or e.config.data.length
        self.passes = e.evaluation.passes if self.passes is None else self.passes
        for name in ("draws", "passes", "batch_size", "length"):
            require(
                getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be 1 or more"
            )
        require(
            e.model.latent or self.passes == 1,
            f"passes is {self.passes}, but a network without latent has one pass",
        )
        self.one_draw = self.exact = e.objective.exact
        clean = e.process.predicts == "clean" and not e.model.time_conditioning
        counted = clean and e.process.absorbing
        self.by_subsets = self.exact or (counted and not e.block)
        self.boundary = 0.0 if self.by_subsets else float(e.process.boundary())
        self.pieces = sharding.shards(e.mesh)
        own = min(TILE, -(-TILE_BYTES // (4 * e.tokens.size)))
        tile = e.objective.tile if e.objective.tile > 0 else own
        self.batch_size = -(-self.batch_size // self.pieces) * self.pieces
        mesh, model = e.mesh, dataclasses.replace(e.model, dtype="float32")  # type: ignore[type-var]
        program: Callable
        if self.sampling is not None:
            self.by_subsets, self.boundary = False, 0.0
            self.one_draw = own_law.way(e, self.sampling).exact
            own = dataclasses.replace(e, model=model)
            sampling = dataclasses.replace(self.sampling, tile=tile)

            def program(p, seed, row, z0, hidden, segment, index):
                arrays = dict(z0=z0, keep=~hidden, segment=segment, index=index)
                key, steps = jax.random.key(seed), sampling.num_steps
                return row, carried.paid(own, sampling, p, arrays, key, steps).nats, row < 0

        elif self.by_subsets:
            reveal = conditional.reveal_fn(
                model, e.process, self.passes, tile=tile, groups=self.pieces
            )
            program = lambda p, seed, row, z0, hidden, segment, index: (
                row,
                *reveal(p, z0, hidden, segment),
            )
        else:
            objective = dataclasses.replace(e.objective, tile=tile).as_bound(self.passes)
            require(
                objective.bounds, "the objective does not say that it bounds a likelihood: no score"
            )
            if counted:
                objective = estimators.objective(objective, "k_form")
            bound = conditional.bound_fn(model, objective, self.draws)
            program = lambda p, seed, row, z0, hidden, segment, index: (
                row,
                bound(p, seed, z0, hidden, segment, index),
                row < 0,
            )
        precise = jax.default_matmul_precision("float32")(program)
        self.run = jax.jit(sharding.on(mesh, precise), out_shardings=sharding.replicated(mesh))

    @property
    def whose(self) -> dict[str, str]:
        """Which sampler's likelihood it is, where it is a sampler's own."""
        if self.sampling is None:
            return {}
        return {"sampler": own_law.describe(self.experiment, self.sampling)}

    def __call__(self, items: Sequence[Item]) -> tuple[list[Score], Cut]:
        """A score of every item, and how many were cut.

        Raises:
          UserError: for an item without target: it would score 0 nats and win any comparison.
        """
        require(all(i.target >= 1 for i in items), "a target without tokens has no likelihood")
        cut = Cut(0, 0)
        rows: list[tuple[int, int, np.ndarray, np.ndarray]] = []  # item, draw, tokens, hidden
        chosen: list[Subsets] = []
        for i, item in enumerate(items):
            tokens = np.asarray(item.tokens, np.int32)[-self.length :]
            count = min(item.target, len(tokens))
            lost = len(item.tokens) > self.length
            cut = Cut(cut.context + lost, cut.target + (item.target > self.length))
            chosen.append(self._chosen(count))
            for j, hidden in enumerate(chosen[-1].hidden):
                place = np.zeros(len(tokens), bool)
                place[len(tokens) - count :] = hidden
                rows.append((i, j, tokens, place))
        found, hits = self._walk(rows)
        assert self.passes is not None  # __post_init__ has set it
        out: list[Score] = []
        at = 0
        for one in chosen:
            own = slice(at, at + len(one.hidden))
            at += len(one.hidden)
            score = conditional.combine(found[own], one, bool(hits[own][-1]))
            if self.sampling is not None:
                tighter = float(carried.importance(found[own][None])[0])
                score = score._replace(importance=tighter)
            nats = score.nats + self.boundary * score.tokens
            target = items[len(out)].tokens[-score.tokens :]
            strange = unknown.share_of(self.experiment.tokenizer, target)
            out.append(score._replace(nats=nats, passes=self.passes, unknown=strange))
        return out, cut

    def _chosen(self, count: int) -> Subsets:
        if self.one_draw:
            return conditional.left_to_right(count)
        if self.by_subsets:
            return conditional.subsets(count, self.draws, self.seed)
        whole = np.ones((self.draws, count), bool)
        return Subsets(whole, np.full(self.draws, 1 / self.draws), False)

    def _walk(self, rows: list[tuple[int, int, np.ndarray, np.ndarray]]):
        """Summed nats and hits of every row, in order; rows of one padded length share batches."""
        nats, hits = np.zeros(len(rows)), np.zeros(len(rows), bool)
        by_length: dict[int, list[int]] = {}
        for number, row in enumerate(rows):
            by_length.setdefault(self._padded(len(row[2])), []).append(number)
        batches = [
            (length, numbers[at : at + self.batch_size])
            for length, numbers in sorted(by_length.items())
            for at in range(0, len(numbers), self.batch_size)
        ]
        said = self.say if distributed.leader() else lambda text: None
        report = metrics.Ticker(f"scoring {len(rows)} rows", said)
        for done, (length, numbers) in enumerate(batches):
            found = jax.device_get(
                self.run(self.params, np.uint32(self.seed), *self._arrays(rows, numbers, length))
            )
            row, value, hit = (np.asarray(a) for a in found)
            real = row >= 0
            nats[row[real]], hits[row[real]] = value[real].astype(np.float64), hit[real]
            report(done + 1, len(batches))
        return nats, hits

    def _padded(self, length: int) -> int:
        """The next power of two, at most the longest row: few shapes, few compilations."""
        return min(max(SHORTEST, 1 << (length - 1).bit_length()), max(self.length, SHORTEST))

    def _arrays(self, rows, numbers, length):
        """One global batch, of which every process holds its share."""
        row = np.full(self.batch_size, -1, np.int32)
        z0 = np.zeros((self.batch_size, length), np.int32)
        hidden, segment = np.zeros(z0.shape, bool), np.zeros(z0.shape, np.int32)
        index = np.zeros(self.batch_size, np.int32)
        for b, number in enumerate(numbers):
            _, draw, tokens, place = rows[number]
            row[b], index[b] = number, draw
            z0[b, : len(tokens)], hidden[b, : len(tokens)] = tokens, place
            segment[b, : len(tokens)] = 1
        own = sharding.own(self.experiment.mesh, self.batch_size)
        whole = (row, z0, hidden, segment, index)
        return sharding.put(self.experiment.mesh, tuple(a[own.start : own.stop] for a in whole))


def item(tokenizer: Any, context: str, text: str) -> Item:
    """Context and target, split at tokens; spaces that end the context begin the target.

    The two are encoded together and the context alone, as lm-evaluation-harness does, unless a
    token spans both: then the target is encoded as what goes on from the context, so that all of it
    and nothing but it is scored.

    Args:
      tokenizer: the run's.
      context: text that is given; "" = none.
      text: what is scored.

    Raises:
      UserError: for a text that has no tokens: it would score 0 nats and win any comparison.
    """
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, text = context[:-spaces], context[-spaces:] + text
    before = tokenizer.encode(context) if context else []
    whole = tokenizer.encode(context + text)
    after = whole[len(before) :]
    if whole[: len(before)] != before or not after:
        after = tokenizer.encode(text, start=not context)
    require(bool(after), f"{text!r} has no tokens, so it has no likelihood; give some text")
    return Item((*before, *after), len(after))
