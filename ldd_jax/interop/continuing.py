"""Continuations of prompts: what is asked for, in the words of several tools, and its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ldd_jax.core.checks import UserError, require
from ldd_jax.data import unknown
from ldd_jax.inference import generate
from ldd_jax.inference.pipeline import Pipeline
from ldd_jax.inference.settings import overlaid
from ldd_jax.samplers.loop import fetched

# Of lm-evaluation-harness, Hugging Face, vLLM and OpenAI; the first that is given counts.
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
KNOWN = {*LENGTHS, "until", "do_sample", "temperature", "top_p", "top_k"}
DEFAULT_LENGTH = 256


class Asked(NamedTuple):
    """A continuation as it is asked for.

    most: tokens; until: texts that end it; readout: settings of the sampler over the run's own.
    """

    most: int
    until: tuple[str, ...]
    readout: tuple[tuple[str, Any], ...]


def asked(settings: Mapping[str, Any]) -> Asked:
    """What generation settings ask for; null is as good as absent.

    Greedy without `do_sample` or a temperature, and at temperature 0 whatever `do_sample` says: the
    most probable token wherever one is revealed.

    Raises:
      UserError: for a value that is no number of its kind.
    """
    given = {k: v for k, v in settings.items() if v is not None}
    most = _number(given, next((n for n in LENGTHS if n in given), ""), DEFAULT_LENGTH)
    require(most >= 1 and most == int(most), f"a continuation of {most} tokens; 1 or more")
    until = given.get("until", ())
    until = (until,) if isinstance(until, str) else tuple(map(str, until))
    temperature = _number(given, "temperature", 1.0 if given.get("do_sample") else 0.0)
    require(temperature >= 0, f"temperature is {temperature}; it must be 0 (greedy) or more")
    if temperature == 0 or not given.get("do_sample", True):
        return Asked(int(most), until, (("top_k", 1),))
    top_p, top_k = _number(given, "top_p", 1.0), int(_number(given, "top_k", 0))
    readout = {"temperature": temperature, "top_p": top_p, "top_k": max(top_k, 0)}  # -1: all
    return Asked(int(most), until, tuple(sorted(readout.items())))


def _number(given: Mapping[str, Any], name: str, default: float) -> float:
    try:
        return float(given.get(name, default))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{name} is {given[name]!r}; expected a number") from error


def share(prompt: int, most: int, length: int) -> tuple[int, int]:
    """(tokens of the prompt that are kept, tokens to generate) in a row.

    A prompt that leaves room keeps all its tokens, and the continuation is shortened. One as long
    as the row, which has to be cut, leaves room for what is asked, at most half the row.

    Args:
      prompt: tokens that it has.
      most: tokens that are asked for.
      length: tokens of the row.
    """
    if prompt < length:
        return prompt, min(most, length - prompt)
    count = min(most, max(1, length // 2))
    return length - count, count


@dataclasses.dataclass
class Continuer:
    """Continues prompts with a run's own sampler, compiled once for each setting.

    Prompt number i of a call has the draws of sample i of the seed, whatever stands beside it.

    pipeline: the model; steps: of the sampler, 0 = one for each token to come, rounded up to a
    power of two, at most as many as are asked for; batch_size: rows at a time; seed: of the draws.

    Counted: `cut`, prompts that lost their beginning; `shortened`, continuations that the prompt
    left less room than asked; `ignored`, names of settings that this model does not know.
    """

    pipeline: Pipeline
    steps: int = 0
    batch_size: int = 64
    seed: int = 0
    length: int = 0
    cut: int = 0
    shortened: int = 0
    ignored: set[str] = dataclasses.field(default_factory=set)
    samplers: dict[Any, generate.Sampler] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.length = self.length or self.pipeline.experiment.config.data.length

    def __call__(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """The text that follows each prompt, to the first of its `until` texts or its end.

        Raises:
          UserError: for settings that cannot be met.
        """
        tokenizer = self.pipeline.tokenizer
        prompts = [tokenizer.encode(prompt) for prompt, _ in requests]
        unknown.check(tokenizer, (i for ids in prompts for i in ids), "the prompts")
        rows: list[tuple[Asked, list[int], int]] = []
        groups: dict[Any, list[int]] = {}
        for number, (ids, (_, settings)) in enumerate(zip(prompts, requests)):
            self.ignored |= set(settings) - KNOWN
            want = asked(settings)
            kept, count = share(len(ids), want.most, self.length)
            self.cut += kept < len(ids)
            self.shortened += count < want.most
            rows.append((want, ids[len(ids) - kept :], count))
            steps = self.steps or min(1 << (count - 1).bit_length(), want.most, self.length)
            groups.setdefault((want.readout, steps), []).append(number)
        out = [""] * len(rows)
        for (readout, steps), numbers in groups.items():
            sampler = self._sampler(readout)
            size = sampler.sampling.batch_size
            for first in range(0, len(numbers), size):
                some = numbers[first : first + size]
                for number, text in zip(some, self._batch(sampler, steps, some, rows)):
                    out[number] = text
        return out

    def _batch(self, sampler: generate.Sampler, steps: int, numbers: list[int], rows: Any):
        """Texts of the rows with these numbers; the last ones of a short batch are thrown away."""
        size = sampler.sampling.batch_size
        tokens, fixed = np.zeros((size, self.length), np.int32), np.ones((size, self.length), bool)
        for b, number in enumerate(numbers):
            ids = rows[number][1]
            tokens[b, : len(ids)], fixed[b, len(ids) :] = ids, False
        index = np.resize(np.asarray(numbers, np.uint32), size)
        state, _ = sampler.batch(self.pipeline.params, self.seed, index, tokens, fixed, steps)
        for found, number in zip(fetched(state)[0], numbers):
            want, ids, count = rows[number]
            yield self._text(found[len(ids) : len(ids) + count].tolist(), want.until)

    def _text(self, ids: list[int], until: tuple[str, ...]) -> str:
        tokenizer = self.pipeline.tokenizer
        if tokenizer.eos in ids:
            ids = ids[: ids.index(tokenizer.eos)]
        text = self.pipeline.experiment.text(ids)
        for end in until:
            text = text.split(end)[0] if end else text
        return text

    def _sampler(self, readout: tuple[tuple[str, Any], ...]) -> generate.Sampler:
        if readout not in self.samplers:
            e = self.pipeline.experiment
            sampling = overlaid(e.sampling, **dict(readout), batch_size=self.batch_size)
            self.samplers[readout] = generate.Sampler.make(e, sampling, self.length)
        return self.samplers[readout]
