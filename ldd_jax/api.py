"""The commands from Python: `load(workdir)`, then `.sample()`, `.fill(text)`, `.nll(text)`."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ldd_jax import generate, loop
from ldd_jax.core import registry
from ldd_jax.core.checks import UserError, check_seed, nearest, require, typed
from ldd_jax.data import unknown
from ldd_jax.evaluation.conditional import Score
from ldd_jax.experiment import Experiment, Sampling
from ldd_jax.requests import Item, Scorer

# Programs of a kind that a model keeps, the last used ones.
PROGRAMS = 32

LATENT: dict[str, dict[str, Any]] = {
    "carry": {},
    "off": {"reset_every": 1},
    "frozen": {"frozen": True},
}


# What the `sample` command's flags are called, and what they take; `steps` aside, `settings` knows
# those that do not say what is asked for, but how it is drawn.
HOW: dict[str, type] = {
    "num_samples": int,
    "steps": int,
    "batch_size": int,
    "sampler": str,
    "grid": str,
    "blocks": str,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "latent": str,
    "reset_every": int,
    "reset_on_remask": bool,
    "guidance": float,
    "tail": str,
}
WHAT: dict[str, type] = {"prompt": str, "fill": str, "seed": int, "length": int, "label": str}


def given(allowed: Mapping[str, type], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, each of its type; None = not given.

    Raises:
      UserError: for an unknown option, or a value of another type.
    """
    for name in options:
        require(name in allowed, f"unknown option {name!r}; {nearest(name, allowed)}")
    return {n: typed(n, v, allowed[n]) for n, v in options.items() if v is not None}


def settings(defaults: Sampling, **options: Any) -> Sampling:
    """The config's sampling with options (`HOW`) laid over it; None = the config's.

    Raises:
      UserError: for an unknown option or a value that does not fit.
    """
    left = given(HOW, options)
    take = lambda *names: {n: left.pop(n) for n in names if n in left}
    try:
        readout = dataclasses.replace(defaults.readout, **take("temperature", "top_p", "top_k"))
        latent = dataclasses.replace(defaults.latent, **take("reset_every", "reset_on_remask"))
        mode = left.pop("latent", "carry")
        require(mode in LATENT, f"latent {mode!r}; {nearest(mode, LATENT)}")
        latent = dataclasses.replace(latent, **LATENT[mode])
        stepped = "steps" in left or "grid" in left
        parts = {
            name: registry.parse(kind, left.pop(key)) if key in left else getattr(defaults, name)
            for name, kind, key in (
                ("step", "step", "sampler"),
                ("grid", "grid", "grid"),
                ("blocks", "blocks", "blocks"),
            )
        }
        require(
            parts["step"].clock == "grid" or not stepped,
            "this sampler takes as many steps as its rows need; --steps and --grid do not apply",
        )
        if "steps" in left:
            left["num_steps"] = left.pop("steps")
        return dataclasses.replace(defaults, readout=readout, latent=latent, **parts, **left)
    except ValueError as error:
        raise UserError(str(error)) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Samples that are asked for: of which compiled sampler, how many, with what given.

    `said` is what their records say besides what the sampler does.
    """

    sampler: generate.Sampler
    params: Any
    seed: int
    count: int
    num_steps: int
    tokens: Any
    fixed: Any
    label: int | None
    said: dict[str, Any]

    @property
    def common(self) -> dict[str, Any]:
        """What all records share."""
        return self.sampler.common(self.seed, self.num_steps) | self.said

    def records(self, begin: int = 0) -> Iterator[dict[str, Any]]:
        """Records from number `begin` on, one by one."""
        drawn = self.sampler.records(
            self.params,
            seed=self.seed,
            count=self.count,
            num_steps=self.num_steps,
            fixed_tokens=self.tokens,
            fixed=self.fixed,
            label=self.label,
            begin=begin,
        )
        return ({**record, **self.said} for record in drawn)


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
        sampling = settings(e.sampling, **options)
        asked = options.get("latent", "carry") != "carry"
        asked |= bool(options.get("reset_every") or options.get("reset_on_remask"))
        require(
            e.model.latent or not asked,
            "this network takes no latent; --latent, --reset_every, --reset_on_remask do not apply",
        )
        fixed = generate.template(e, what.get("prompt"), what.get("fill"), length)
        tokens, held = fixed if fixed is not None else (None, None)
        length = (length or e.config.data.length) if tokens is None else len(tokens)
        count, steps = sampling.num_samples, sampling.num_steps
        # Few numbers of rows, so that few programs serve all calls; neither number is in them.
        rows = min(sampling.batch_size, 1 << (count - 1).bit_length())
        shape = dataclasses.replace(sampling, batch_size=rows, num_samples=rows, num_steps=1)
        said = {"checkpoint": self.step} | {
            name: what[name] for name in ("label", "prompt", "fill") if what.get(name) is not None
        }
        return Request(
            sampler=self._sampler(shape, length),
            params=self.params,
            seed=seed,
            count=count,
            num_steps=steps,
            tokens=tokens,
            fixed=held,
            label=_label(e, label),
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
          **options: steps, prompt, fill, seed, length, label, sampler, grid, blocks, temperature
            (0 = greedy), top_p, top_k, latent ("carry", "off", "frozen"), reset_every,
            reset_on_remask, tail, guidance, batch_size: the flags of the `sample` command.

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

        Raises:
          UserError: for a text without tokens, one longer than the model's rows, or one of which
            more than a fifth is unknown to the tokenizer.
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
        scorer = self._scorer(passes=how.pop("num_passes", None), **how)
        scorer.seed = seed  # no part of the program
        return scorer(items)[0]


def item(tokenizer: Any, context: str, text: str) -> Item:
    """Context and target, split at tokens; spaces that end the context begin the target.

    The two are encoded together and the context alone, as lm-evaluation-harness does, unless a
    token spans both: then the target is encoded as what goes on from the context, so that all of it
    and nothing but it is scored.

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


def _label(experiment: Experiment, name: str | None) -> int | None:
    """Number of a class; those of an import have no other names than their numbers."""
    if name is None:
        return None
    number = experiment.model.num_classes
    classes = experiment.config.data.to_dict().get("classes") or [str(i) for i in range(number)]
    require(bool(classes), "--label: this model was trained without classes")
    named = "classes" in experiment.config.data
    allowed = nearest(str(name), classes) if named else f"they are numbers, 0 to {number - 1}"
    require(str(name) in classes, f"--label={name}: no such class; {allowed}")
    return list(classes).index(str(name))


def load(workdir: str | Path, *, ema: bool = True, step: int | None = None) -> Pipeline:
    """The model of a workdir: its averaged (or raw) parameters at the newest (or a given) step.

    Raises:
      UserError: if there is none.
    """
    require(
        isinstance(workdir, str | os.PathLike), f"workdir is {workdir!r}; expected a folder's path"
    )
    step = None if step is None else typed("step", step, int)
    return Pipeline(*loop.load(Path(workdir), ema=typed("ema", ema, bool), step=step))
