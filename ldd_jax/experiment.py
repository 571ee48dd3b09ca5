"""From a config to objects; the only module that knows every kind of component."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ldd_jax import denoisers, objectives, processes, samplers  # noqa: F401  (they register)
from ldd_jax.core import compilation, reading, registry, writing
from ldd_jax.core.checks import UserError, at_least_one, check_seed, nearest, require
from ldd_jax.core.console import say
from ldd_jax.core.types import Model, Process, TokenSpace
from ldd_jax.data import Corpus, Tokenizer, load_tokenizer
from ldd_jax.data.packing import LONGEST
from ldd_jax.samplers.base import Latent, Step
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.loop import TAILS
from ldd_jax.training import sharding
from ldd_jax.training.optimizers import AdamW
from ldd_jax.training.sharding import MeshShape
from ldd_jax.training.step import Update


@registry.register("training", "training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How long, how much at a time, and what is written when (in updates; 0 = only at the end).

    An update whose loss or gradient is not finite is skipped; `max_skipped` in a row end the run.
    `initial` names a workdir (or an import) whose averaged parameters the run begins with.
    """

    num_steps: int = 1000
    batch_size: int = 64
    accumulate: int = 1
    ema_decay: float = 0.9999
    log_every: int = 50
    eval_every: int = 0
    sample_every: int = 0
    checkpoint_every: int = 500
    keep: int = 2
    max_skipped: int = 10
    initial: str = ""

    def __post_init__(self):
        positive = ("num_steps", "batch_size", "accumulate", "log_every", "keep", "max_skipped")
        at_least_one(self, *positive)
        if self.num_steps >= 2**31:  # updates are counted in int32
            raise ValueError(f"num_steps is {self.num_steps}; it must be below 2^31")
        for name in ("eval_every", "sample_every", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; 0 = never, n = every n steps")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1)")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}"
            )


@registry.register("evaluation", "evaluation")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """`passes` network passes per bound; `draws` times per sequence; 0 = all sequences.

    At most `max_sequences` are scored, spread over the split. Validations while a run trains are
    held to `periodic_sequences` as well; the one at its end, which the summary tells, is not.
    """

    passes: int = 1
    draws: int = 1
    batch_size: int = 64
    max_sequences: int = 0
    periodic_sequences: int = 1024

    def __post_init__(self):
        at_least_one(self, "passes", "draws", "batch_size")
        for name in ("max_sequences", "periodic_sequences"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 (all) or more")

    @property
    def periodic(self) -> int:
        """Sequences of a validation while training; 0 = all."""
        return min(filter(None, (self.max_sequences, self.periodic_sequences)), default=0)


@registry.register("sampling", "sampling")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Defaults of the `sample` command and of samples during training."""

    step: Any = registry.part("step", samplers.Ancestral)
    grid: Any = registry.part("grid", samplers.LinearGrid)
    readout: Any = registry.part("readout", Readout)
    latent: Any = registry.part("latent", Latent)
    blocks: Any = registry.part("blocks", samplers.Whole)
    guidance: float = 1.0
    num_steps: int = 64
    num_samples: int = 8
    batch_size: int = 32
    tail: str = "sample"
    tile: int = 0

    def __post_init__(self):
        at_least_one(self, "num_steps", "num_samples", "batch_size")
        if self.tile < 0:
            raise ValueError(f"tile is {self.tile}; it must be 0 (all rows at once) or more")
        if self.tail not in TAILS:
            raise ValueError(f"tail {self.tail!r}: {nearest(self.tail, TAILS)}")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a config describes, built once."""

    config: ConfigDict
    tokenizer: Tokenizer
    tokens: TokenSpace
    process: Process
    model: Model
    objective: Any
    optim: AdamW
    training: Training
    evaluation: Evaluation
    sampling: Sampling
    mesh: Mesh

    @property
    def update(self) -> Update:
        """The training step, not yet jitted."""
        return Update(
            model=self.model,
            objective=self.objective,
            optimizer=self.optim.make(),
            ema_decay=self.training.ema_decay,
            accumulate=self.training.accumulate,
            groups=sharding.shards(self.mesh),
        )

    @property
    def step(self) -> Step:
        """The sampling rule."""
        return self.sampling.step

    def text(self, ids: Iterable[int]) -> str:
        """Text of tokens of the process, its mask among them."""
        return self.tokenizer.decode(ids, mask=self.tokens.mask)

    def key(self, site: int) -> jax.Array:
        """Independent streams from the run's seed: 0 parameters, 1 training, 2 evaluation."""
        return jax.random.fold_in(jax.random.key(self.config.seed), site)


def build(config: ConfigDict, tokenizer: Tokenizer, mesh: Mesh | None = None) -> Experiment:
    """Build and cross-check every component.

    Raises:
      UserError: for whatever is wrong in the config, in words, before anything compiles.
    """
    compilation.apply()
    check_seed(config.seed, "--config.seed")
    shape: MeshShape = registry.build("mesh", config.mesh)
    mesh = shape.make() if mesh is None else mesh
    tokens = processes.token_space(registry.build("process", config.process), tokenizer.size)
    facts = {"tokens": tokens, "groups": sharding.shards(mesh)}
    training = registry.build("training", config.training)
    process = registry.build("process", config.process, **facts)
    model = registry.build("model", config.model, **facts)
    objective = registry.build(
        "objective",
        config.objective,
        process=process,
        dropout=model.dropout > 0,
        num_classes=model.num_classes,
        **facts,
    )
    needs_latent = isinstance(objective.context, objectives.PseudoContext)
    require(
        model.latent or not needs_latent,
        "objective.context makes a latent, but model.latent is False; set it True or choose a "
        "method without loopholing (method=mdlm, method=udlm)",
    )
    require(
        model.causal or not objective.needs_causal,
        "next-token training needs a causal network, or it reads what it predicts; set "
        "model.causal True or choose method=ar",
    )
    evaluation = registry.build("evaluation", config.evaluation)
    require(
        model.latent or evaluation.passes == 1,
        f"evaluation.passes is {evaluation.passes}, but a network without latent has one pass",
    )
    sampling = registry.build("sampling", config.sampling)
    check_sampler(sampling, process, model)
    check_sizes(config)
    return Experiment(
        config=config,
        tokenizer=tokenizer,
        tokens=tokens,
        process=process,
        model=model,
        objective=objective,
        optim=registry.build("optim", config.optim, num_steps=training.num_steps),
        training=training,
        evaluation=evaluation,
        sampling=sampling,
        mesh=mesh,
    )


MOST_TOKENS = 1 << 28  # of a batch, on all devices together


def check_sizes(config: ConfigDict) -> None:
    """Refuse rows and batches that no machine holds, before an array of them is asked for.

    Raises:
      UserError: with the bounds.
    """
    length = config.data.get("length")
    good = type(length) is int and 1 <= length <= LONGEST
    require(good, f"data.length is {length!r}; it must be 1 to {LONGEST:,} tokens")
    for name in ("training", "evaluation", "sampling"):
        rows = config[name].batch_size
        require(
            rows * length <= MOST_TOKENS,
            f"{name}.batch_size is {rows:,}: with rows of {length:,} tokens a batch has more than "
            f"{MOST_TOKENS:,}",
        )


def check(config: ConfigDict, tokenizer: Tokenizer | None = None) -> Experiment:
    """Refuse whatever is wrong in a config but for what the data alone can tell; none are read.

    Args:
      config: of a run.
      tokenizer: where it is known already; else the largest that the config may give stands in.

    Returns:
      The experiment, with the tokenizer or the stand-in, which knows its `size` alone.

    Raises:
      UserError: in words.
    """
    data = registry.build("data", config.data)
    data.check()
    stand_in: Any = tokenizer or SimpleNamespace(size=data.most_ids())
    experiment = build(config, stand_in)
    check_classes(experiment, tuple(config.data.get("classes", ())))
    check_batch(experiment)
    return experiment


def check_sampler(sampling: Sampling, process: Process, model: Any) -> None:
    """Refuse a step rule that cannot run with this process, network or latent.

    Raises:
      UserError: saying why.
    """
    carried = model.latent and not sampling.latent.off
    try:
        sampling.step.check(process, latent=carried, timed=model.time_conditioning)
        sampling.blocks.check(process)
    except ValueError as error:
        raise UserError(str(error)) from error


SECTIONS = (
    "data",
    "process",
    "model",
    "objective",
    "optim",
    "training",
    "evaluation",
    "sampling",
    "mesh",
)


def check_sections(config: Any, source: str) -> None:
    """Refuse what is no config of this library; `source` says where it came from.

    Raises:
      UserError: naming what is missing.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{source} holds {type(config).__name__}, not a config; see recipes.make for one"
        )
    missing = [n for n in SECTIONS if not isinstance(config.get(n), ConfigDict)]
    missing += [n for n in ("recipe", "seed") if n not in config]
    require(not missing, f"{source} lacks {', '.join(missing)}; see recipes.make for a whole one")
    require(type(config.recipe) is str, f"{source}: recipe is {config.recipe!r}, expected text")
    require(type(config.seed) is int, f"{source}: seed is {config.seed!r}, expected a number")


def check_batch(experiment: Experiment) -> None:
    """Refuse a batch that shards, microbatches and the context's gate cannot divide.

    Raises:
      UserError: with the numbers.
    """
    training, mesh = experiment.training, experiment.mesh
    pieces = sharding.shards(mesh) * training.accumulate
    require(
        training.batch_size % pieces == 0,
        f"training.batch_size {training.batch_size} is not a multiple of {pieces} (data shards "
        f"{sharding.shards(mesh)} x accumulate {training.accumulate})",
    )
    experiment.objective.context.check(training.batch_size // pieces)


def check_classes(experiment: Experiment, classes: tuple[str, ...]) -> None:
    """Refuse a network whose classes are not those of the data.

    Raises:
      UserError: with both numbers.
    """
    number = experiment.model.num_classes
    require(
        len(classes) in (0, number),
        f"the data have {len(classes)} classes, but model.num_classes is {number}; set it to "
        f"{len(classes)}",
    )


def fingerprint(config: ConfigDict) -> str:
    """Sixteen hex digits of the config's SHA-256."""
    text = json.dumps(config.to_dict(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_config(config: ConfigDict, workdir: Path) -> None:
    """Write `config.json`, whole or not at all."""
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True)
    writing.write(workdir / "config.json", text + "\n")


def load_config(workdir: Path) -> ConfigDict:
    """The config that a workdir was trained with.

    Raises:
      UserError: if the folder is no workdir or its config cannot be read.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(
            f"{workdir} is not a workdir (no config.json); train with --workdir={workdir}"
        )
    try:
        found = reading.read_json(path)
    except (OSError, ValueError) as error:  # UnicodeDecodeError among them
        raise UserError(f"{path} is not valid JSON: {error}") from error
    return as_config(found, str(path))


def as_config(found: Any, source: str) -> ConfigDict:
    """A locked config from what a file holds; `source` says which.

    Raises:
      UserError: for what is no config of this library.
    """
    try:
        config = ConfigDict(found).lock() if isinstance(found, dict) else found
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{source} is no config: {error}") from error
    check_sections(config, source)
    return config


def name_files(data: Mapping[str, Any]) -> None:
    """Say on stderr which files a data section reads: it may be that of a stranger's workdir."""
    named = [f"data.{n}={data[n]}" for n in ("path", "validation_path") if data.get(n)]
    if named:
        say(f"ldd_jax: reading {' and '.join(named)}", error=True)


def read_corpus(experiment: Experiment) -> Corpus:
    """The corpus of a run in its own tokenizer; the files that are read are named.

    Raises:
      UserError: for what cannot be read.
    """
    name_files(experiment.config.data)
    return registry.build("data", experiment.config.data).load(experiment.tokenizer)


def restore(workdir: Path) -> Experiment:
    """The experiment of a trained workdir, with its own tokenizer."""
    config = load_config(workdir)
    return build(config, load_tokenizer(workdir / "tokenizer"), fitting_mesh(config))


def fitting_mesh(config: ConfigDict) -> Mesh:
    """The run's own mesh where the devices at hand can form it, else all of them as data shards.

    The latter is said on stderr.
    """
    shape: MeshShape = registry.build("mesh", config.mesh)
    try:
        return shape.make()
    except UserError:
        mesh = MeshShape().make()
        if jax.process_index() == 0:
            say(
                f"ldd_jax: the run's mesh ({shape}) does not fit the {mesh.size} devices here; all "
                "of them are used as data shards",
                error=True,
            )
        return mesh
