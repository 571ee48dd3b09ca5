"""From a config to objects; the only module that knows every kind of component."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ldd_jax import processes, samplers
from ldd_jax.config import fits
from ldd_jax.config.sections import (
    Evaluation,
    Sampling,
    Training,
    adapters_of,
    block_of,
    check_sampler,
)
from ldd_jax.config.stored import load_config
from ldd_jax.core import compilation, registry
from ldd_jax.core.checks import UserError, check_seed, require
from ldd_jax.core.console import say
from ldd_jax.core.types import Model, Process, TokenSpace
from ldd_jax.data import Corpus, Tokenizer, load_tokenizer
from ldd_jax.data.instructions import PLACE
from ldd_jax.samplers.base import Step
from ldd_jax.training import optimizers, sharding  # noqa: F401  (optimizers register)
from ldd_jax.training import state as states
from ldd_jax.training.optimizer import Optimizer
from ldd_jax.training.sharding import MeshShape
from ldd_jax.training.step import Update


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a config describes, built once."""

    config: ConfigDict
    tokenizer: Tokenizer
    tokens: TokenSpace
    process: Process
    model: Model
    objective: Any
    optim: Optimizer
    training: Training
    evaluation: Evaluation
    sampling: Sampling
    mesh: Mesh
    target: Any = None

    def aux(self, batch: int = 0) -> Any:
        """Shapes of what the objective keeps from update to update; batch 0 = the run's own."""
        return self.objective.aux(batch or self.training.batch_size, self.config.data.length)

    def abstract(self, batch: int = 0) -> states.TrainState:
        """Shapes and places of the training state on the mesh; batch 0 = the run's own."""
        make, average = self.optim.make(), self.training.average
        return states.abstract(self.model, make, self.mesh, self.aux(batch), *average)

    def initial(self) -> states.TrainState:
        """The state before the first update."""
        make, average = self.optim.make(), self.training.average
        return states.initial(self.model, make, self.mesh, self.key(0), self.aux(), *average)

    @property
    def channels(self) -> int:
        """Of the signal beside the tokens; 0 = there is none."""
        return int(self.config.model.get("channels", 0))

    @property
    def block(self) -> int:
        """Positions of a block that the network knows of; 0 = it sees the row whole."""
        return block_of(self.model)

    def check_whole(self, what: str) -> None:
        """Refuse what asks a network about whole rows.

        Raises:
          UserError: naming `what`.
        """
        require(
            not self.block,
            f"{what} asks a network about whole rows; this one goes block by block "
            "(docs/blocks.md)",
        )

    @property
    def of_tokens(self) -> Experiment:
        """The same of tokens alone, given what a joint process has beside them."""
        if not self.process.parts:
            return self
        given = self.objective.given_signal()
        return dataclasses.replace(self, process=self.process.words, objective=given)

    def check_alone(self, what: str) -> None:
        """Refuse what is for tokens without anything beside them.

        Raises:
          UserError: naming `what`.
        """
        require(
            not self.channels,
            f"{what} is for models of tokens alone; this one has a signal beside them "
            "(docs/joint.md)",
        )
        require(
            self.process.reader is None,
            f"{what} is for models whose states are those of tokens; this one draws vectors, and "
            "its text after them (docs/latent_diffusion.md)",
        )

    @property
    def update(self) -> Update:
        """The training step, not yet jitted."""
        return Update(
            model=self.model,
            objective=self.objective,
            optimizer=self.optim.make(),
            ema_decay=self.training.ema_decay,
            ema_on_host=self.training.ema_on_host,
            trained=self.optim.trained if self.optim.trainable else None,
            accumulate=self.training.accumulate,
            groups=sharding.shards(self.mesh),
        )

    @property
    def step(self) -> Step:
        """The sampling rule."""
        return self.sampling.step

    @functools.cached_property
    def data(self) -> Any:
        """The data section; nothing is read."""
        return registry.build("data", self.config.data)

    def asked(self, prompt: str) -> str:
        """What the network reads of a prompt: the data's template around it, where there is one."""
        return self.config.data.get("template", PLACE).replace(PLACE, prompt)

    def text(self, ids: Iterable[int]) -> str:
        """Text of tokens of the process, its mask among them.

        Where a document is a row of its own, it ends at its first EOS; what follows is no text.
        """
        ids, eos = list(ids), self.tokenizer.eos
        if self.data.layout.own_rows and eos in ids:
            ids = ids[: ids.index(eos)]
        return self.tokenizer.decode(ids, mask=self.tokens.mask_token)

    def key(self, site: int) -> jax.Array:
        """Independent streams from the run's seed: 0 parameters, 1 training, 2 evaluation."""
        return jax.random.fold_in(jax.random.key(self.config.seed), site)


@dataclasses.dataclass(frozen=True)
class StandIn:
    """In the place of a tokenizer that the data will give: the most ids it can have."""

    size: int


def build(config: ConfigDict, tokenizer: Tokenizer, mesh: Mesh | None = None) -> Experiment:
    """Build and cross-check every component.

    Args:
      config: of the run, all sections.
      tokenizer: of its data.
      mesh: devices; None = those that the config names.

    Raises:
      UserError: for whatever is wrong in the config, in words, before anything compiles.
    """
    compilation.apply()
    check_seed(config.seed, "--config.seed")
    shape: MeshShape = registry.build("mesh", config.mesh)
    mesh = shape.make() if mesh is None else mesh
    tokens = processes.token_space(registry.build("process", config.process), tokenizer.size)
    tokens = dataclasses.replace(tokens, exact=not isinstance(tokenizer, StandIn))
    facts = {"tokens": tokens, "groups": sharding.shards(mesh)}
    training = registry.build("training", config.training)
    evaluation = registry.build("evaluation", config.evaluation)
    sampling = registry.build("sampling", config.sampling)
    fits.sizes(
        config.data.get("length"), training=training, evaluation=evaluation, sampling=sampling
    )
    process = registry.build("process", config.process, **facts)
    model = registry.build("model", config.model, **facts)
    target = registry.build("target", config.data.target) if "target" in config.data else None
    objective = registry.build(
        "objective",
        config.objective,
        process=process,
        dropout=model.dropout > 0,
        latent=model.latent,
        num_classes=model.num_classes,
        target=target,
        block=block_of(model),
        rollouts=samplers.Rollouts(process=process),
        carried=lambda batch, length: jax.eval_shape(
            lambda key: model.bind(model.init(key)).latent(batch, length), jax.random.key(0)
        ),
        **facts,
    )
    fits.check(config, process, model, objective)
    optim = registry.build("optim", config.optim, num_steps=training.num_steps)
    optim = dataclasses.replace(optim, trainable=optim.trainable or adapters_of(model))
    require(
        model.latent or evaluation.passes == 1,
        f"evaluation.passes is {evaluation.passes}, but a network without latent has one pass",
    )
    check_sampler(sampling, process, model)
    return Experiment(
        config=config,
        tokenizer=tokenizer,
        tokens=tokens,
        process=process,
        model=model,
        objective=objective,
        optim=optim,
        training=training,
        evaluation=evaluation,
        sampling=sampling,
        mesh=mesh,
        target=target,
    )


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


def step_function(experiment: Experiment, like: states.TrainState) -> Callable:
    """The jitted update: (state, donated, batch, key) -> (state, metrics)."""
    update = experiment.update

    def train_step(state, arrays, key):  # named, for profiles and compile logs
        return update(state, arrays, key)

    return jax.jit(
        sharding.on(experiment.mesh, train_step),
        donate_argnums=0,
        out_shardings=(states.shardings(like), None),
    )
