"""From a config to objects; the only module that knows every kind of component."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ldd_jax import denoisers, objectives, processes, samplers
from ldd_jax.config.sections import Evaluation, Sampling, Training, check_sampler
from ldd_jax.config.stored import load_config
from ldd_jax.core import compilation, registry
from ldd_jax.core.checks import UserError, check_seed, require
from ldd_jax.core.console import say
from ldd_jax.core.types import Model, Process, TokenSpace
from ldd_jax.data import Corpus, Tokenizer, load_tokenizer
from ldd_jax.data.packing import LONGEST
from ldd_jax.samplers.base import Step
from ldd_jax.training import sharding
from ldd_jax.training import state as states
from ldd_jax.training.optimizers import AdamW
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
    optim: AdamW
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
        return states.abstract(self.model, self.optim.make(), self.mesh, self.aux(batch))

    def initial(self) -> states.TrainState:
        """The state before the first update."""
        return states.initial(self.model, self.optim.make(), self.mesh, self.key(0), self.aux())

    @property
    def channels(self) -> int:
        """Of the signal beside the tokens; 0 = there is none."""
        return int(self.config.model.get("channels", 0))

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

    @property
    def update(self) -> Update:
        """The training step, not yet jitted."""
        return Update(
            model=self.model,
            objective=self.objective,
            optimizer=self.optim.make(),
            ema_decay=self.training.ema_decay,
            trained=self.optim.trained if self.optim.trainable else None,
            accumulate=self.training.accumulate,
            groups=sharding.shards(self.mesh),
        )

    @property
    def step(self) -> Step:
        """The sampling rule."""
        return self.sampling.step

    def text(self, ids: Iterable[int]) -> str:
        """Text of tokens of the process, its mask among them."""
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
        rollouts=samplers.Rollouts(process=process),
        **facts,
    )
    _check_target(config, objective, model)
    _check_signal(config, process, objective)
    require(
        not process.points or model.points,
        f"the states of process {config.process.name} are points, which do not enter this network; "
        "use model dit with model.input=linear (method=rdlm, configs/rdlm.py)",
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
    optim = registry.build("optim", config.optim, num_steps=training.num_steps)
    if isinstance(model, denoisers.Llama | denoisers.GPT2) and model.lora_rank:
        own = ("*.lora_[ab]", *(["*.latent_norm.*"] if model.latent else []))
        optim = dataclasses.replace(optim, trainable=optim.trainable or own)
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
        optim=optim,
        training=training,
        evaluation=evaluation,
        sampling=sampling,
        mesh=mesh,
        target=target,
    )


def _check_target(config: ConfigDict, objective: Any, model: Model) -> None:
    """Refuse data and losses that do not go together."""
    here, name = "target" in config.data, config.objective.get("name")
    require(
        here or not objective.needs_target,
        f"objective {name} learns from a target, but the data are {config.data.get('name')}; set "
        "data to a section of TargetData (configs/ising.py)",
    )
    require(
        objective.needs_target or not here,
        f"objective {name} learns from data, and a target has none; choose method=mdns, mdns_lv, "
        "lddm_mdns or lddm_mdns_lv",
    )
    require(
        not (here and model.time_conditioning),
        "a sampler of a target reveals one site a call at no time of a grid; set "
        "model.time_conditioning to False",
    )


def _check_signal(config: ConfigDict, process: Process, objective: Any) -> None:
    """Refuse a process of several parts without the network and the loss for them."""
    if not process.parts:
        return
    wanted = process.parts["signal"].channels
    found = config.model.get("channels", 0)
    require(
        found == wanted,
        f"process.signal.channels is {wanted}, but the network has {found}; set model to "
        "signal_dit with as many (method=joint)",
    )
    require(
        bool(objective.joint),
        f"objective {config.objective.get('name')} is for tokens alone; set it to joint "
        "(method=joint)",
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
