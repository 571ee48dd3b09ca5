"""The commands from Python: `load(workdir)`, then `.sample()`, `.fill(text)`, `.nll(text)`."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ldd_jax.config import plugins as outside
from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling
from ldd_jax.core.checks import check_seed, nearest, require, typed
from ldd_jax.core.storage import at
from ldd_jax.data import unknown
from ldd_jax.evaluation.conditional import Score
from ldd_jax.inference import conditions, generate, own_law
from ldd_jax.inference.loading import load_trained
from ldd_jax.inference.requests import Request
from ldd_jax.inference.scorer import Scorer, item
from ldd_jax.inference.settings import HOW, WHAT, check_latent, given, overlaid

# Programs of a kind that a model keeps, the last used ones.
PROGRAMS = 32


def _kept() -> Any:
    """A field that is made from the others."""
    return dataclasses.field(init=False, repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A trained model: its experiment, parameters and the number of updates behind them.

    `params` is a nested dict, `experiment.model.bind(params)` the network as a pytree. Programs are
    kept: a second call with the options of the first compiles nothing.
    """

    experiment: Experiment
    params: Any
    step: int
    _sampler: Callable[[Sampling, int], generate.Sampler] = _kept()
    _scorer: Callable[..., Scorer] = _kept()

    def __post_init__(self):
        make = lambda sampling, length: generate.Sampler.make(self.experiment, sampling, length)
        score = lambda **how: Scorer(self.experiment, self.params, **how)
        for name, fn in (("_sampler", make), ("_scorer", score)):
            object.__setattr__(self, name, functools.lru_cache(PROGRAMS)(fn))

    @property
    def tokenizer(self) -> Any:
        """Text to ids and back."""
        return self.experiment.tokenizer

    def records(self, **options: Any) -> Iterator[dict[str, Any]]:
        """Samples as the `sample` command writes them, one by one; options as in `sample`.

        Raises:
          UserError: for options that do not fit, before anything runs.
        """
        return self.request(**options).records()

    def request(self, **options: Any) -> Request:
        """What `records` is asked for, checked; options as in `sample`.

        Raises:
          UserError: for options that do not fit.
        """
        e = self.experiment
        if isinstance(options.get("label"), int):  # an import's classes are numbers
            options["label"] = str(options["label"])
        options = given({**HOW, **WHAT}, options)
        what = {name: options.pop(name) for name in WHAT if name in options}
        seed, length, label = what.get("seed", 0), what.get("length"), what.get("label")
        require(length is None or length >= 1, f"--length={length}; it must be at least 1")
        check_seed(seed)
        sampling = overlaid(e.sampling, **options)
        check_latent(e.model.latent, options)
        fixed = conditions.template(e, what.get("prompt"), what.get("fill"), length)
        tokens, held = fixed if fixed is not None else (None, None)
        length = (length or e.config.data.length) if tokens is None else len(tokens)
        parts = conditions.given_parts(e, what.get("given"), length)
        require(
            tokens is None or not e.process.parts,
            "--prompt and --fill are for models of tokens alone; give --given=text:FILE, whole",
        )
        require(
            tokens is None or e.process.reader is None,
            "--prompt and --fill: this model draws vectors that stand for a whole text, and knows "
            "no law of them given a part of it (docs/latent_diffusion.md)",
        )
        if parts and "num_samples" not in options:
            sampling = dataclasses.replace(sampling, num_samples=len(next(iter(parts.values()))))
        count, steps = sampling.num_samples, sampling.num_steps
        # Few numbers of rows, so that few programs serve all calls; neither number is in them.
        rows = min(sampling.batch_size, 1 << (count - 1).bit_length())
        shape = dataclasses.replace(sampling, batch_size=rows, num_samples=rows, num_steps=1)
        said = {"checkpoint": self.step} | {
            name: what[name]
            for name in ("label", "prompt", "fill", "given")
            if what.get(name) is not None
        }
        return Request(
            sampler=self._sampler(shape, length),
            params=self.params,
            seed=seed,
            count=count,
            num_steps=steps,
            tokens=tokens,
            fixed=held,
            label=conditions.label(e, label),
            given=parts,
            said=said,
        )

    def sample(
        self,
        num_samples: int | None = None,
        *,
        num_inference_steps: int | None = None,
        **options: Any,
    ) -> list[str]:
        """Texts. None = as the config says.

        Args:
          num_samples: how many.
          num_inference_steps: another name of `steps`, those of the sampler.
          **options: steps, prompt, fill, given ("signal:FILE"), seed, length, label, sampler, grid,
            blocks, temperature (0 = greedy), top_p, top_k, latent ("carry", "off", "frozen"),
            reset_every, reset_on_remask, tail, guidance, stop, batch_size, compact: the flags
            of the `sample` command.

        Raises:
          UserError: for options that do not fit.
        """
        steps = num_inference_steps
        require(
            steps is None or options.get("steps") is None,
            "steps and num_inference_steps are one option; give one of them",
        )
        options |= dict(num_samples=num_samples)
        options |= {} if steps is None else dict(steps=steps)
        return [record["text"] for record in self.records(**options)]

    def fill(self, text: str, num_samples: int = 1, **options: Any) -> list[str]:
        """`text` with its [MASK]s filled, `num_samples` times; options as in `sample`."""
        return self.sample(num_samples, fill=typed("fill", text, str), **options)

    def nll(
        self,
        texts: str | Sequence[str],
        *,
        context: str = "",
        draws: int = 64,
        num_passes: int | None = None,
        seed: int = 0,
        batch_size: int = 64,
        bound: str = "",
        trajectories: int = 4,
        sampling: Mapping[str, Any] | None = None,
    ) -> list[Score]:
        """-log p(text | context) of every text, nats, with the standard error of its draws.

        Args:
          texts: one or several.
          context: text before it, never noised.
          draws: of each text; short texts and left-to-right models are scored exactly.
          num_passes: network passes per draw (models with a latent); None = those that `evaluate`
            takes, the config's evaluation.passes. The score says how many there were.
          seed: of the draws.
          batch_size: rows at a time.
          bound: "carried": the likelihood of the sampler itself, latent carried, instead
            (docs/carried.md); a score's `importance` is the tighter of its two bounds.
          trajectories: paths of each text for it; one where the text determines its path.
          sampling: which sampler, options of `sample`, such as dict(steps=64, top_p=0.9).

        Raises:
          UserError: for a text without tokens, one longer than the model's rows, one of which
            more than a fifth is unknown to the tokenizer, or a sampler whose likelihood is not
            known.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        texts = [typed("a text", text, str) for text in texts]
        context = typed("context", context, str)
        how = given(
            dict(draws=int, num_passes=int, batch_size=int),
            dict(draws=draws, num_passes=num_passes, batch_size=batch_size),
        )
        check_seed(seed, "seed")
        items = [item(self.tokenizer, context, text) for text in texts]
        for text, one in zip(texts, items):
            lost = self.tokenizer.lost(context + text)
            unknown.check(self.tokenizer, one.tokens, f"the text {text[:40]!r}", lost)
        length = self.experiment.config.data.length
        long = [len(i.tokens) for i in items if len(i.tokens) > length]
        require(
            not long, f"a text of {max(long, default=0)} tokens is longer than a row ({length})"
        )
        passes = how.pop("num_passes", None)
        if bound:
            require(bound == "carried", f"bound {bound!r}; {nearest(bound, ['carried'])}")
            require(passes is None, "num_passes does not go with bound='carried'")
            passes, how["draws"] = 1, typed("trajectories", trajectories, int)
            how["sampling"] = own_law.settings(self.experiment, **(sampling or {}))
        require(bool(bound) or sampling is None, "sampling is for bound='carried'")
        scorer = self._scorer(passes=passes, **how)
        scorer.seed = seed  # no part of the program
        return scorer(items)[0]


def load(
    workdir: str | Path,
    *,
    ema: bool = True,
    step: int | None = None,
    plugins: Sequence[str | Path] = (),
) -> Pipeline:
    """The model of a workdir.

    Args:
      workdir: of a run or an import.
      ema: its averaged parameters; False = the raw ones.
      step: of the checkpoint; None = the newest.
      plugins: files (or names of modules) that register components, as `--plugin`; those that the
        workdir was trained with here are loaded anyway.

    Raises:
      UserError: if there is none, or it asks for code that is not the user's own.
    """
    require(
        isinstance(workdir, str | os.PathLike), f"workdir is {workdir!r}; expected a folder's path"
    )
    step = None if step is None else typed("step", step, int)
    given = [plugins] if isinstance(plugins, str | os.PathLike) else plugins
    with outside.named(str(one) for one in given):
        return Pipeline(*load_trained(at(workdir), ema=typed("ema", ema, bool), step=step))
