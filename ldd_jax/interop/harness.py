"""A trained model under lm-evaluation-harness; needs `pip install 'ldd-jax[lm-eval]'`.

Every process of a run sees every request (rank 0 of 1 for the harness) and computes its share of
each batch, so that all hold the same results and nothing of torch.distributed is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ldd_jax.core import reading, storage
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.data import unknown
from ldd_jax.evaluation.conditional import Score
from ldd_jax.inference import carried, own_law
from ldd_jax.inference.pipeline import Pipeline, load
from ldd_jax.inference.scorer import Item, Scorer, item
from ldd_jax.interop.continuing import Continuer
from ldd_jax.training import distributed

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import simple_parse_args_string
except ImportError as error:
    raise UserError(
        "lm-evaluation-harness is not installed; pip install 'ldd-jax[lm-eval]'"
    ) from error

CARRIED = "carried"
LIKELIHOODS = ("conditional", "joint", CARRIED)
BATCH = 64
# A checkpoint has no template of its own: a line for each message, and who speaks next.
PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@register_model("ldd_jax")
class Harness(LM):
    """`--model ldd_jax --model_args workdir=DIR` of lm-eval, or an argument of `simple_evaluate`.

    lm-eval finds models that are imported: `python -m ldd_jax.interop.lm_eval` does that and runs
    its command line.

    Args:
      workdir: of a run or an import.
      likelihood: "conditional": -log p(continuation | context), summed, the context never noised;
        "joint": context and continuation noised together, the mean over all their tokens, as the
        adapters of the LDDM and Duo code have it (`acc` is then normalised by length unseen);
        "carried": the bound of the sampler itself, latent carried, of the config's settings and
        `steps` (docs/carried.md).
      draws: of each request; short continuations are scored exactly (`evaluation.conditional`).
      passes: network passes per draw, for models with a latent; None = those that `evaluate` takes.
      batch_size: rows at a time.
      steps: of the sampler in generate_until; 0 = one for each token to come, at most. Of
        "carried"; 0 = the config's.
      trajectories: of "carried", paths of each request.
      ema: averaged parameters.
      seed: of all draws.
      pipeline: a model that is loaded already.
      plugin: a file of the user's own that registers components, as `--plugin`.
      device, max_batch_size: what the harness's own command line adds; not used.
    """

    def __init__(
        self,
        workdir: str = "",
        likelihood: str = "conditional",
        draws: int = 64,
        passes: int | None = None,
        batch_size: int = BATCH,
        steps: int = 0,
        trajectories: int = carried.TRAJECTORIES,
        ema: bool = True,
        seed: int = 0,
        pipeline: Pipeline | None = None,
        plugin: str = "",
        device: Any = None,
        max_batch_size: Any = None,
    ):
        del device, max_batch_size
        super().__init__()
        require(
            likelihood in LIKELIHOODS,
            f"likelihood {likelihood!r}; {nearest(likelihood, LIKELIHOODS)}",
        )
        require(bool(workdir) or pipeline is not None, "workdir is missing; give workdir=DIR")
        plugins = [plugin] if plugin else []
        self.pipeline = pipeline or load(storage.at(workdir), ema=ema, plugins=plugins)
        self.likelihood, self.seed, self.template = likelihood, int(seed), PLAIN
        self.scorer = Scorer(
            self.pipeline.experiment,
            self.pipeline.params,
            **self._what(likelihood, int(draws), passes, int(steps), int(trajectories)),
            batch_size=int(batch_size),
            seed=self.seed,
        )
        self.continuer = Continuer(
            self.pipeline,
            steps=int(steps),
            batch_size=self.scorer.batch_size,
            seed=self.seed,
            length=self.scorer.length,
        )
        self.scores: list[Score] = []
        self.cut = {"context": 0, "target": 0}

    def _what(
        self, likelihood: str, draws: int, passes: Any, steps: int, trajectories: int
    ) -> dict[str, Any]:
        """Whose likelihood the scorer bounds."""
        if likelihood != CARRIED:
            return dict(draws=draws, passes=None if passes is None else int(passes))
        require(passes is None, "passes does not go with likelihood=carried; it takes steps")
        options = {"steps": steps} if steps else {}
        sampling = own_law.settings(self.pipeline.experiment, **options)
        return dict(draws=trajectories, passes=1, sampling=sampling)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> Harness:
        """From the harness's command line, whose batch size is 1 where nobody says another.

        Rows are batched whatever it says: the size changes no result but the time.
        """
        said = {k: v for k, v in (additional_config or {}).items() if v is not None}
        size = str(said.pop("batch_size", 1))
        rows = {"batch_size": int(size)} if size.isdecimal() and int(size) > 1 else {}
        return cls(**{**said, **rows, **arg_dict})

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> Harness:
        """The same from `workdir=DIR,draws=16`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @property
    def tokenizer_name(self) -> str:
        """For the harness's caches."""
        return self.pipeline.tokenizer.digest

    def report(self) -> dict[str, Any]:
        """What the harness does not keep: cut requests, exact scores, errors of draws in nats."""
        drawn = [s.se for s in self.scores if not s.exact]
        return {
            "likelihood": self.likelihood,
            **self.scorer.whose,
            "requests": len(self.scores),
            "scored_exactly": len(self.scores) - len(drawn),
            "mean_standard_error": float(np.mean(drawn)) if drawn else 0.0,
            "largest_standard_error": float(np.max(drawn)) if drawn else 0.0,
            "draws": self.scorer.draws,
            "passes": self.scorer.passes,
            "mean_unknown_share": float(np.mean([s.unknown for s in self.scores] or [0])),
            **{f"cut_{name}": count for name, count in self.cut.items()},
            "cut_prompt": self.continuer.cut,
            "shortened_generations": self.continuer.shortened,
            "unused_settings": sorted(self.continuer.ignored),
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
        items = [item(self.pipeline.tokenizer, *r.args) for r in requests]
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
        """Continuations, each cut at the first of its `until` texts; see `continuing.Continuer`."""
        c = self.continuer
        before = c.cut, c.shortened
        texts = c([(r.args[0], r.args[1] or {}) for r in requests])
        cut, shortened = c.cut - before[0], c.shortened - before[1]
        if distributed.leader() and (cut or shortened):
            self.scorer.say(
                f"of {len(texts)} continuations {shortened} are shorter than asked, for their "
                f"prompt leaves less of a row of {c.length} tokens; {cut} prompts are longer than "
                "it and lost their beginning"
            )
        if distributed.leader() and c.ignored:
            self.scorer.say(f"not used by this model: {', '.join(sorted(c.ignored))}")
        return texts

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt of a conversation, by the template of `chat_template`."""
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        tokenizer = self.pipeline.tokenizer
        special = {
            f"{n}_token": tokenizer.decode([i]) if i is not None else ""
            for n, i in (("bos", tokenizer.bos), ("eos", tokenizer.eos))
        }
        try:
            environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
            return environment.from_string(self.template).render(
                messages=chat_history, add_generation_prompt=add_generation_prompt, **special
            )
        except TemplateError as error:
            raise UserError(f"the chat template fails: {error}") from error

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template; a name is a Jinja file, True the plain one (PLAIN)."""
        if isinstance(chat_template, str):
            try:
                self.template = reading.read_text(chat_template)
            except (OSError, ValueError) as error:
                raise UserError(f"cannot read the chat template {chat_template}: {error}") from (
                    error
                )
        return self.template
