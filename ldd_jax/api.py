"""The commands from Python: `load(workdir)`, then `.sample()`, `.fill(text)`, `.nll(text)`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ldd_jax import generate, loop
from ldd_jax.core import registry
from ldd_jax.core.checks import UserError, check_seed, nearest, require
from ldd_jax.evaluation.conditional import Score
from ldd_jax.experiment import Experiment, Sampling
from ldd_jax.requests import Item, Scorer

LATENT: dict[str, dict[str, Any]] = {
    "carry": {},
    "off": {"reset_every": 1},
    "frozen": {"frozen": True},
}


def settings(defaults: Sampling, **options: Any) -> Sampling:
    """The config's sampling with options laid over it; None and "" = the config's.

    Raises:
      UserError: for an unknown option or a value that does not fit.
    """
    given = {k: v for k, v in options.items() if v not in (None, "")}
    take = lambda *names: {n: given.pop(n) for n in names if n in given}
    try:
        readout = dataclasses.replace(defaults.readout, **take("temperature", "top_p", "top_k"))
        latent = dataclasses.replace(defaults.latent, **take("reset_every", "reset_on_remask"))
        mode = given.pop("latent", "carry")
        require(mode in LATENT, f"latent {mode!r}; {nearest(str(mode), LATENT)}")
        latent = dataclasses.replace(latent, **LATENT[mode])
        own_grid = "grid" in given
        parts = {
            name: registry.parse(kind, given.pop(key)) if key in given else getattr(defaults, name)
            for name, kind, key in (
                ("step", "step", "sampler"),
                ("grid", "grid", "grid"),
                ("blocks", "blocks", "blocks"),
            )
        }
        require(
            parts["step"].clock == "grid" or not ("num_steps" in given or own_grid),
            "this sampler takes as many steps as its rows need; --steps and --grid do not apply",
        )
        names = [f.name for f in dataclasses.fields(defaults)]
        for name in given:
            require(name in names, f"unknown option {name!r}; {nearest(name, names)}")
        return dataclasses.replace(defaults, readout=readout, latent=latent, **parts, **given)
    except ValueError as error:
        raise UserError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A trained model: its experiment, parameters and the number of updates behind them.

    `params` is a nested dict, `experiment.model.bind(params)` the network as a pytree.
    """

    experiment: Experiment
    params: Any
    step: int

    @property
    def tokenizer(self) -> Any:
        """Text to ids and back."""
        return self.experiment.tokenizer

    def records(
        self,
        *,
        prompt: str = "",
        fill: str = "",
        seed: int = 0,
        length: int | None = None,
        label: str | int = "",
        **options: Any,
    ) -> Iterator[dict[str, Any]]:
        """Samples as the `sample` command writes them, one by one; options as in `sample`.

        Raises:
          UserError: for options that do not fit, before anything runs.
        """
        e = self.experiment
        require(length is None or length >= 1, f"--length={length}; it must be at least 1")
        check_seed(seed)
        sampling = settings(e.sampling, **options)
        asked = options.get("latent", "carry") != "carry"
        asked |= bool(options.get("reset_every") or options.get("reset_on_remask"))
        require(
            e.model.latent or not asked,
            "this network takes no latent; --latent, --reset_every, --reset_on_remask do not apply",
        )
        length = length or e.config.data.length
        given = generate.template(e, prompt, fill, length)
        tokens, fixed = given if given is not None else (None, None)
        length = length if tokens is None else len(tokens)
        count = sampling.num_samples
        sampling = dataclasses.replace(sampling, batch_size=min(sampling.batch_size, count))
        sampler = generate.Sampler.make(e, sampling, length)
        numbers = sampler.records(
            self.params,
            seed=seed,
            count=count,
            num_steps=sampling.num_steps,
            fixed_tokens=tokens,
            fixed=fixed,
            label=_label(e, label),
        )
        labelled = {} if label == "" else {"label": str(label)}
        return ({**record, "checkpoint": self.step, **labelled} for record in numbers)

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
          num_inference_steps: steps of the sampler.
          **options: prompt, seed, length, label, sampler, grid, blocks, temperature, top_p, top_k,
            latent ("carry", "off", "frozen"), reset_every, reset_on_remask, tail, guidance,
            batch_size: the flags of the `sample` command.
        """
        options |= dict(num_samples=num_samples, num_steps=num_inference_steps)
        return [record["text"] for record in self.records(**options)]

    def fill(self, text: str, num_samples: int = 1, **options: Any) -> list[str]:
        """`text` with its [MASK]s filled, `num_samples` times; options as in `sample`."""
        return self.sample(num_samples, fill=text, **options)

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
          UserError: for a text without tokens, or one longer than the model's rows.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        items = [item(self.tokenizer, context, text) for text in texts]
        length = self.experiment.config.data.length
        long = [len(i.tokens) for i in items if len(i.tokens) > length]
        require(
            not long, f"a text of {max(long, default=0)} tokens is longer than a row ({length})"
        )
        scorer = Scorer(
            self.experiment,
            self.params,
            draws=draws,
            passes=num_passes,
            batch_size=batch_size,
            seed=seed,
        )
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


def _label(experiment: Experiment, name: str | int) -> int | None:
    """Number of a class; those of an import have no other names than their numbers."""
    if name == "":
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
    return Pipeline(*loop.load(Path(workdir), ema=ema, step=step))
