"""A trained model under lm-evaluation-harness; needs `pip install 'ldd-jax[lm-eval]'`.

Every process of a run sees every request (rank 0 of 1 for the harness) and computes its share of
each batch, so that all hold the same results and nothing of torch.distributed is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from ldd_jax import api, generate
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.data import unknown
from ldd_jax.evaluation.conditional import Score
from ldd_jax.requests import Item, Scorer

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise UserError(
        "lm-evaluation-harness is not installed; pip install 'ldd-jax[lm-eval]'"
    ) from error

LIKELIHOODS = ("conditional", "joint")


@register_model("ldd_jax")
class Harness(LM):
    """`lm_eval --model ldd_jax --model_args workdir=DIR`, or an argument of `simple_evaluate`.

    Args:
      workdir: of a run or an import.
      likelihood: "conditional": -log p(continuation | context), summed, the context never noised;
        "joint": context and continuation noised together, the mean over all their tokens, as the
        adapters of the LDDM and Duo code have it (`acc` is then normalised by length unseen).
      draws: of each request; short continuations are scored exactly (`evaluation.conditional`).
      passes: network passes per draw, for models with a latent; None = those that `evaluate` takes.
      batch_size: rows at a time.
      steps: of the sampler in generate_until; 0 = one for each token to come, at most.
      ema: averaged parameters.
      seed: of all draws.
    """

    def __init__(
        self,
        workdir: str = "",
        likelihood: str = "conditional",
        draws: int = 64,
        passes: int | None = None,
        batch_size: int = 64,
        steps: int = 0,
        ema: bool = True,
        seed: int = 0,
        pipeline: api.Pipeline | None = None,
        **_: Any,  # device and max_batch_size, which the harness's command line adds
    ):
        super().__init__()
        require(
            likelihood in LIKELIHOODS,
            f"likelihood {likelihood!r}; {nearest(likelihood, LIKELIHOODS)}",
        )
        require(bool(workdir) or pipeline is not None, "workdir is missing; give workdir=DIR")
        self.pipeline = pipeline or api.load(Path(workdir), ema=ema)
        self.likelihood, self.steps, self.seed = likelihood, int(steps), int(seed)
        self.scorer = Scorer(
            self.pipeline.experiment,
            self.pipeline.params,
            draws=int(draws),
            passes=None if passes is None else int(passes),
            batch_size=int(batch_size),
            seed=self.seed,
        )
        self.samplers: dict[Any, generate.Sampler] = {}
        self.scores: list[Score] = []
        self.cut = {"context": 0, "target": 0, "prompt": 0}

    @property
    def tokenizer_name(self) -> str:
        """For the harness's caches."""
        return self.pipeline.tokenizer.digest

    def report(self) -> dict[str, Any]:
        """What the harness does not keep: cut requests, exact scores, errors of draws in nats."""
        drawn = [s.se for s in self.scores if not s.exact]
        return {
            "likelihood": self.likelihood,
            "requests": len(self.scores),
            "scored_exactly": len(self.scores) - len(drawn),
            "mean_standard_error": float(np.mean(drawn)) if drawn else 0.0,
            "largest_standard_error": float(np.max(drawn)) if drawn else 0.0,
            "draws": self.scorer.draws,
            "passes": self.scorer.passes,
            "mean_unknown_share": float(np.mean([s.unknown for s in self.scores] or [0])),
            **{f"cut_{name}": count for name, count in self.cut.items()},
        }

    def _score(self, items: list[Item]) -> list[Score]:
        ids = (token for item in items for token in item.tokens)
        unknown.check(self.pipeline.tokenizer, ids, "the requests")
        scores, cut = self.scorer(items)
        self.cut["context"] += cut.context
        self.cut["target"] += cut.target
        self.scores += scores
        return scores

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(log-likelihood, whether it is what greedy decoding gives) of every continuation."""
        items = [api.item(self.pipeline.tokenizer, *r.args) for r in requests]
        if self.likelihood == "joint":
            whole = self._score([Item(i.tokens, len(i.tokens)) for i in items])
            return [(-s.nats / max(s.tokens, 1), s.greedy) for s in whole]
        return [(-s.nats, s.greedy) for s in self._score(items)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Log-likelihood of whole texts, in pieces of a row's length that begin anew."""
        length = self.scorer.length
        pieces, owner = [], []
        for number, request in enumerate(requests):
            ids = self.pipeline.tokenizer.encode(request.args[0])
            for at in range(0, len(ids), length):
                part = tuple(ids[at : at + length])
                pieces.append(Item(part, len(part)))
                owner.append(number)
        total = np.zeros(len(requests))
        for number, score in zip(owner, self._score(pieces)):
            total[number] -= score.nats
        return total.tolist()

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Continuations, each cut at the first of its `until` texts.

        A row is the prompt, cut on the left where it is too long, and free tokens to the row's end.
        Request number i of a call has the draws of sample i, whatever the batch.
        """
        out: list[str] = [""] * len(requests)
        tokenizer = self.pipeline.tokenizer
        ids = (i for r in requests for i in tokenizer.encode(r.args[0]))
        unknown.check(tokenizer, ids, "the prompts")
        groups: dict[Any, list[int]] = {}
        for number, request in enumerate(requests):
            kwargs = dict(request.args[1] or {})
            greedy = not kwargs.get("do_sample", kwargs.get("temperature", 0) > 0)
            temperature = 1.0 if greedy else float(kwargs.get("temperature") or 1.0)
            most = int(kwargs.get("max_gen_toks") or 256)
            key = greedy, temperature, min(most, self.scorer.length - 1)
            groups.setdefault(key, []).append(number)
        for (greedy, temperature, most), numbers in groups.items():
            texts = self._continue(greedy, temperature, most, [requests[n] for n in numbers])
            for number, text in zip(numbers, texts):
                out[number] = text
        return out

    def _continue(
        self, greedy: bool, temperature: float, most: int, requests: list[Any]
    ) -> list[str]:
        """Continuations of at most `most` tokens with one setting of the sampler."""
        tokenizer, length = self.pipeline.tokenizer, self.scorer.length
        sampler = self._sampler(greedy, temperature)
        size = sampler.sampling.batch_size
        texts = []
        for first in range(0, len(requests), size):
            some = requests[first : first + size]
            tokens, fixed = np.zeros((size, length), np.int32), np.ones((size, length), bool)
            starts = []
            for b, request in enumerate(some):
                ids = tokenizer.encode(request.args[0])
                self.cut["prompt"] += len(ids) > length - most
                ids = ids[-(length - most) :]
                tokens[b, : len(ids)], fixed[b, len(ids) :] = ids, False
                starts.append(len(ids))
            state, _ = sampler.batch(
                self.pipeline.params, self.seed, first, tokens, fixed, self.steps or most
            )
            for ids, start, request in zip(jax.device_get(state.z), starts, some):
                texts.append(self._until(ids[start : start + most].tolist(), request.args[1]))
        return texts

    def _until(self, ids: list[int], kwargs: Any) -> str:
        """The text up to the end of the document, or to the first of the `until` texts."""
        tokenizer = self.pipeline.tokenizer
        if tokenizer.eos in ids:
            ids = ids[: ids.index(tokenizer.eos)]
        text = self.pipeline.experiment.text(ids)
        until = (kwargs or {}).get("until") or []
        for end in [until] if isinstance(until, str) else until:
            text = text.split(end)[0] if end else text
        return text

    def _sampler(self, greedy: bool, temperature: float) -> generate.Sampler:
        """A compiled sampler; greedy = the most probable token wherever one is revealed."""
        key = greedy, temperature
        if key not in self.samplers:
            e = self.pipeline.experiment
            readout: dict[str, Any] = {"top_k": 1} if greedy else {"temperature": temperature}
            size = self.scorer.batch_size
            sampling = api.settings(e.sampling, **readout, batch_size=size)
            self.samplers[key] = generate.Sampler.make(e, sampling, self.scorer.length)
        return self.samplers[key]


def evaluate(harness: Harness, tasks: list[str], include: str = "", **options: Any) -> dict:
    """Run tasks; the harness's results with what `Harness.report` adds under "ldd_jax".

    Args:
      harness: the model.
      tasks: names; those of `include`, a folder of task files, among them.
      include: empty = the harness's own tasks only.
      **options: num_fewshot, limit: of `lm_eval.simple_evaluate`.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=include or None)
    unknown = [t for t in tasks if t not in manager.all_tasks]
    require(not unknown, f"unknown tasks {unknown}; give --include=FOLDER for your own")
    found = lm_eval.simple_evaluate(
        model=harness, tasks=tasks, task_manager=manager, log_samples=False, **options
    )
    assert found is not None  # every process is rank 0
    kept = {k: found[k] for k in ("results", "versions", "n-shot", "n-samples") if k in found}
    return kept | {"ldd_jax": harness.report()}
