"""Problems of a task given to a trained model, and its solutions checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling
from ldd_jax.core import registry
from ldd_jax.core.checks import require
from ldd_jax.data import Tokenizer
from ldd_jax.inference.ahead import ahead
from ldd_jax.inference.generate import Sampler
from ldd_jax.samplers import SampleState
from ldd_jax.samplers.loop import fetched
from ldd_jax.tasks import SEPARATOR, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A solution, its verdicts, its network calls, and a picture of every step if recorded."""

    problem: str
    solution: str
    strict: bool
    legacy: bool
    calls: int
    steps: tuple[str, ...] = ()


def tokens_of(state: SampleState) -> Any:
    """A record for `Solver.make`: the tokens after every step."""
    return state.z


@dataclasses.dataclass(frozen=True)
class Solver:
    """One compiled sampler with the prompts of problems in front."""

    sampler: Sampler
    task: Task

    @classmethod
    def make(
        cls,
        experiment: Experiment,
        sampling: Sampling,
        record: Callable[[SampleState], Any] | None = None,
    ) -> Solver:
        """Of an experiment whose data are problems.

        Args:
          experiment: the run's.
          sampling: the rule and its settings.
          record: what is kept of every step; None = nothing.

        Raises:
          UserError: if they are not, or for a sampler that cannot run with this network.
        """
        data = registry.build("data", experiment.config.data)
        require(
            "task" in experiment.config.data,
            f"this run was trained on {experiment.config.data.name}, not on problems; train one "
            "with configs/countdown.py, configs/game24.py or configs/sudoku.py",
        )
        return cls(Sampler.make(experiment, sampling, data.length, record), data.task)

    def answers(
        self, params: Any, problems: Sequence[str], *, seed: int, num_steps: int
    ) -> Iterator[Answer]:
        """Solve problems; the answer to number i of a seed does not depend on the others.

        Args:
          params: parameters, on the experiment's mesh.
          problems: in the task's notation.
          seed: of the run.
          num_steps: of the time grid.

        Raises:
          UserError: for what is no problem of the task, or leaves no room for a solution.
        """
        tokenizer, length = self.sampler.experiment.tokenizer, self.sampler.length
        for problem in problems:
            require(
                self.task.reads(problem),
                f"{problem!r} is no problem of {self.task.registered[1]}, such as "
                f"{next(self.task.problems('train', 1, 0))[0]!r}",
            )
        prompts = [prompt(problem, tokenizer, length) for problem in problems]
        size = self.sampler.sampling.batch_size

        def batches() -> Iterator[Any]:
            for first in range(0, len(problems), size):
                part = prompts[first : first + size]
                padded = part + part[-1:] * (size - len(part))
                tokens, fixed = (np.stack(a) for a in zip(*padded, strict=True))
                found = self.sampler.batch(params, seed, first, tokens, fixed, num_steps)
                yield first, fixed, *found

        for first, fixed, state, trace in ahead(batches()):
            (z, calls), trace = fetched(state), jax.device_get(trace)
            for i, problem in enumerate(problems[first : first + size]):
                free = ~fixed[i]
                solution = read(z[i][free], tokenizer)
                shown = () if trace is None else (picture(t[i][free], tokenizer) for t in trace)
                yield Answer(
                    problem=problem,
                    solution=solution,
                    strict=self.task.strict(problem, solution),
                    legacy=self.task.legacy(problem, solution),
                    calls=int(calls[i]),
                    steps=tuple(shown),
                )


def prompt(problem: str, tokenizer: Tokenizer, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [length] of a row with nothing but its problem, and where they are fixed.

    Args:
      problem: in the task's notation.
      tokenizer: the run's.
      length: tokens of a row.

    Raises:
      UserError: for a problem that the tokenizer cannot write, or that leaves no room.
    """
    ids = tokenizer.encode(problem + SEPARATOR)
    require(
        tokenizer.decode(ids) == problem + SEPARATOR,
        f"the problem {problem!r} holds characters that this run was not trained on",
    )
    require(
        len(ids) < length,
        f"the problem {problem!r} has {len(ids)} tokens with its separator, and rows have {length}",
    )
    tokens, fixed = np.zeros(length, np.int32), np.zeros(length, bool)
    tokens[: len(ids)], fixed[: len(ids)] = ids, True
    return tokens, fixed


def read(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    """The solution of a row: all before the first EOS; padding before it is an error and shows."""
    ended = np.flatnonzero(ids == tokenizer.eos)
    ids = ids[: ended[0]] if len(ended) else ids
    return "".join("[PAD]" if i == tokenizer.pad else tokenizer.decode([i]) for i in ids)


def picture(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    """One character a token: `_` for a mask, a blank for EOS and padding."""
    blank = (tokenizer.eos, tokenizer.pad)
    of = lambda i: " " if i in blank else "_" if i >= tokenizer.size else tokenizer.decode([i])
    return "".join(map(of, ids.tolist()))
