"""Recipes that begin with a run: another objective, other data, an autoregressive model adapted."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict, FieldReference

from ldd_jax.config import recipes, sections, stored
from ldd_jax.config.methods import DECODERS, methods
from ldd_jax.config.methods import method as method_of
from ldd_jax.core import registry
from ldd_jax.core.checks import nearest, require
from ldd_jax.core.registry import section
from ldd_jax.core.storage import at
from ldd_jax.data import InstructionData
from ldd_jax.objectives import Nelbo
from ldd_jax.processes import Masked
from ldd_jax.samplers import Whole


def _carrying(config: ConfigDict, method: Any) -> None:
    """Set what a method's network carries, and where it enters, in the place of another's."""
    fresh = section(registry.find("model", config.model.name))
    for name in ("carry", "carry_at"):
        if name in fresh:  # an older run's network may lack it
            value = method.network.get(name, fresh[name])
            config.model[name] = section(value) if isinstance(value, type) else value


class OfPath(FieldReference):
    """A field of a data section that belongs to its path: another value for another path.

    Given by itself, it is what is given.
    """

    def __init__(self, path: FieldReference, here: Any, elsewhere: Any):
        self._path, self._first, self._elsewhere = path, path.get(), elsewhere
        super().__init__(here)
        self._given = False

    def set(self, value: Any, type_safe: bool = True) -> None:
        """From now on `value`, whatever the path."""
        super().set(value, type_safe)
        self._given = True

    def get(self) -> Any:
        """The value for the path as it is now."""
        same = self._given or self._path.get() == self._first
        return super().get() if same else self._elsewhere


def _masked(method: Any) -> bool:
    """Whether it is masked diffusion over whole rows, scored by its bound."""
    parts = (method.process, method.objective, method.blocks)
    return parts == (Masked, Nelbo, Whole) and not method.network.get("block")


def adapt(workdir: str, method: str = "mdlm", data: str = "", optim: str = "") -> ConfigDict:
    """The config that turns an autoregressive run or import into masked diffusion.

    DiffuLLaMA (arXiv 2410.17891): the same parameters, the same data, predictions that stay
    shifted by one, and a causal mask that opens over objective.anneal_steps updates. lddm_m adds a
    latent at LayerNorm zero, so that the function is unchanged at first; so do relay and
    soft_masking with what they carry. Nearly all that the network knows of what stands right of a
    token is new to it, so the learning rate is that of the first run (an import's: 3e-4).

    Args:
      workdir: of a run or an import with method=ar and a network of `methods.DECODERS`.
      method: masked diffusion with that network: mdlm, lddm_m or another that carries something.
      data: "instructions", or "" for data as they were.
      optim: the optimizer, "" = adamw.

    Raises:
      UserError: for a folder that is no such workdir, or another method.
    """
    require(bool(workdir), "which run to adapt? give from=WORKDIR in the config's argument")
    base = stored.load_config(at(workdir))
    config = ConfigDict(base.to_dict())
    chosen = method_of(method)
    fits = [n for n, m in methods().items() if _masked(m) and m.takes(base.model.name)]
    require(
        base.process.name == "left_to_right" and bool(fits),
        f"{workdir} has a {base.process.name} process and a {base.model.name} network; adapted are "
        f"autoregressive runs and imports with the networks {', '.join(DECODERS)}",
    )
    require(method in fits, f"method {method!r}; {nearest(method, fits)}")
    require("path" in config.data, f"{workdir} learned from {base.data.name} data without a path")
    config.process = section(chosen.process, states=base.process.states, mask=base.process.mask)
    start = dict(causal=False, shift="start", begin=base.process.begin)
    config.model.update(start | dict(latent=chosen.latent, param_dtype="float32"))
    if "positions" in config.model:  # the start takes one
        config.data.length = min(config.data.length, config.model.positions - 1)
    _carrying(config, chosen)
    config.objective = section(
        chosen.objective, context=chosen.context, anneal_steps=500, **chosen.scored
    )
    config.recipe = f"adapt,method={method},{base.recipe}"
    config = _tuned(config, base, workdir, chosen, data, optim)
    pace = lambda c: registry.find("optim", c.optim.name).pace  # type: ignore[attr-defined]
    config.optim.lr = base.optim.lr * pace(config) / pace(base)
    return config


def _tuned(
    config: ConfigDict, base: ConfigDict, workdir: str, method: Any, data: str, optim: str
) -> ConfigDict:
    """With the optimizer, rhythm and sampler of a run that begins with another."""
    if data:
        require(data == "instructions", f"unknown data {data!r}; allowed: instructions")
        kept = dict(length=config.data.length, tokenizer=config.data.get("tokenizer"))
        require(
            kept["tokenizer"] is not None,
            f"{workdir} learned from {base.data.name} data, whose symbols are their own; "
            "data=instructions needs a model of text",
        )
        config.data = section(InstructionData, **kept)
    own = registry.find("data", config.data.name).of_path  # type: ignore[attr-defined]
    path = config.data.get_ref("path")
    for name, elsewhere in own.items():
        config.data[name] = OfPath(path, config.data[name], elsewhere)
    config.optim = recipes.optimizer(optim, dict(lr=3e-4, warmup_steps=100, decay="cosine"))
    config.training = section(
        sections.Training,
        num_steps=1000,
        batch_size=base.training.batch_size,
        ema_decay=0.999,
        eval_every=200,
        checkpoint_every=200,
        initial=workdir,
    )
    if method is not None:
        config.evaluation.passes = 1 + method.latent
        config.sampling.step = section(method.step)
    return config.lock()


def fine_tune(workdir: str, method: str = "", data: str = "", optim: str = "") -> ConfigDict:
    """The config of a run that begins with the parameters of `workdir` (a run or an import).

    Data, tokenizer, process and network are those of the workdir. Another data.path is read by the
    same rules, but what belongs to the old one (its validation file, a limit of documents) does not
    go with it. `method`, of the same process, changes the objective and where the latent comes
    from: lddm_m adds loopholing to an mdlm run. data="instructions": prompts and responses.
    `optim` is the optimizer, "" = adamw.

    Raises:
      UserError: for a folder that is no workdir, or a method of another process.
    """
    require(bool(workdir), "which run to begin with? give from=WORKDIR in the config's argument")
    base = stored.load_config(at(workdir))
    config = ConfigDict(base.to_dict())
    if method:
        chosen = method_of(method)
        objective = chosen.objective.registered[1]
        fits = [
            n
            for n, m in methods().items()
            if m.process.registered[1] == base.process.name and m.takes(base.model.name)
        ]
        require(
            method in fits,
            f"{workdir} has a {base.process.name} process and a {base.model.name} network; "
            f"{nearest(method, fits)}",
        )
        if objective != base.objective.name:
            config.objective = section(chosen.objective, **chosen.scored)
            config.sampling.step = section(chosen.step)
            config.sampling.blocks = section(chosen.blocks)
            if "block" in config.model:
                config.model.block = chosen.network.get("block", 0)
        config.objective.context = section(chosen.context)
        config.model.latent = chosen.latent
        _carrying(config, chosen)
        config.evaluation.passes = 1 + chosen.latent
    require(
        "path" in config.data,
        f"{workdir} learned from {base.data.name} data, which have no path to be tuned on another",
    )
    if "anneal_steps" in config.objective:  # its mask is open
        config.objective.anneal_steps = 0
    config.recipe = ",".join(filter(None, ["finetune", method and f"method={method}", base.recipe]))
    return _tuned(config, base, workdir, None, data, optim)
