"""Samplers whose own likelihood is known: the choice of one, what is refused, and its name."""

from __future__ import annotations

from typing import Any

from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling
from ldd_jax.core.checks import UserError, require
from ldd_jax.inference.programs import check_settings
from ldd_jax.inference.settings import check_latent, overlaid
from ldd_jax.samplers.dictation import Way


def settings(experiment: Experiment, **options: Any) -> Sampling:
    """The config's sampling with `sample`'s options laid over it, where its bound is known.

    Raises:
      UserError: one line that says why it is not, or for options that do not fit.
    """
    require(
        not experiment.objective.exact,
        "--bound=carried: a left-to-right model's likelihood is exact as it is; leave --bound out",
    )
    sampling = overlaid(experiment.sampling, **options)
    check_latent(experiment.model.latent, options)
    check(experiment, sampling)
    return sampling


def check(experiment: Experiment, sampling: Sampling) -> None:
    """Refuse a sampler whose own likelihood is not known.

    Raises:
      UserError: one line that says why.
    """
    experiment.check_whole("a sampler's own likelihood")
    check_settings(experiment, sampling)
    require(
        sampling.blocks.whole,
        "--bound=carried is of whole rows; give --blocks=whole",
    )
    require(
        sampling.step.clock == "own" or sampling.tail == "sample",
        f"tail {sampling.tail}: only with --tail=sample does every text have a probability",
    )
    require(
        sampling.readout.temperature > 0,
        "temperature 0 draws one text only, so that all others have probability 0",
    )
    require(
        not sampling.stop.watches,
        "where a row stops early depends on what the network says of the text on its way, so its "
        "own likelihood is not known; use stop=never",
    )
    way(experiment, sampling)


def is_known(experiment: Experiment, sampling: Sampling) -> bool:
    """Whether its own likelihood can be told."""
    try:
        check(experiment, sampling)
    except UserError:
        return False
    return not experiment.objective.exact


def way(experiment: Experiment, sampling: Sampling) -> Way:
    """How its rule comes to a text.

    Raises:
      UserError: where that is not known.
    """
    try:
        return sampling.step.way(experiment.process)
    except ValueError as error:
        raise UserError(str(error)) from error


def describe(experiment: Experiment, sampling: Sampling) -> str:
    """Whose likelihood it is, in words."""
    latent, readout = sampling.latent, sampling.readout
    steps = f"{sampling.num_steps} step" + "s" * (sampling.num_steps > 1)
    on_grid = sampling.step.clock == "grid"
    if not experiment.model.latent:
        what = f"runs {steps}" if on_grid else "runs until all is revealed"
    elif latent.off:
        what = f"runs {steps}" if on_grid else "runs until all is revealed"
        what += " with h = 0 at every call"
    else:
        how = ""
        how += f", h = 0 every {latent.reset_every} steps" if latent.reset_every else ""
        how += ", that of the first call kept" if latent.frozen else ""
        what = f"carries h for {steps}" if on_grid else "carries h until all is revealed"
        what += how
    more = [sampling.step.registered[1]]  # type: ignore[attr-defined]
    more += [f"{sampling.grid.registered[1]} grid"] if on_grid else []
    more += [f"temperature {readout.temperature:g}"] if readout.temperature != 1 else []
    more += ["temperatures by step"] if readout.temperatures else []
    more += [f"top-k {readout.top_k}"] if readout.top_k else []
    more += [f"top-p {readout.top_p:g}"] if readout.top_p < 1 else []
    more += [f"guidance {sampling.guidance:g}"] if sampling.guidance != 1 else []
    return f"the sampler that {what} ({', '.join(more)})"
