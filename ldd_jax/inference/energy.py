"""How well a sampler knows its target: log-weights of exact rollouts, beside what is known exactly.

Rollouts reveal one site a call by the network's own law (no temperature, no truncation), so that
E e^W = Z whatever was trained (`samplers.rollout`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.config.stored import fingerprint
from ldd_jax.core.checks import UserError, require, spread
from ldd_jax.core.registry import section
from ldd_jax.evaluation.weights import Weighed, weigh
from ldd_jax.samplers import Rollouts
from ldd_jax.targets import Truth
from ldd_jax.training import sharding

Report = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Energy:
    """Estimates from rollouts, and the truth where it can be had."""

    found: Weighed
    truth: Truth | None
    sites: int
    carried: bool

    @property
    def score(self) -> float:
        """By which checkpoints are compared, the lower the better."""
        return -self.found.elbo.value

    def record(self) -> dict[str, Any]:
        """Numbers and words by name, one level deep: NAME, NAME_se, sampler_NAME, exact_NAME."""
        f = self.found
        numbers = {"elbo": f.elbo, "log_z": f.log_z, "ess": f.ess, "path_kl": f.path_kl, **f.means}
        numbers |= {f"sampler_{name}": each for name, each in f.plain.items()}
        flat: dict[str, Any] = {name: each.value for name, each in numbers.items()}
        flat |= {f"{name}_se": each.se for name, each in numbers.items()}
        if self.truth is not None:
            flat |= {"exact_log_z": self.truth.log_z, "exact_by": self.truth.how}
            flat |= {f"exact_{name}": value for name, value in self.truth.means.items()}
        return flat | {
            "rollouts": f.rollouts,
            "sites": self.sites,
            "latent_carried": self.carried,
        }

    def summary(self, unigram: float) -> dict[str, Any]:
        """What a run keeps of it; nothing is there to compare single tokens with."""
        del unigram
        return self.record()

    def beside(self, unigram: float) -> str:
        """The figures of the sampler in a line."""
        del unigram
        f = self.found
        parts = (("ELBO", f.elbo, 4), ("log Z", f.log_z, 4), ("ESS", f.ess, 3))
        said = ", ".join(f"{name} {spread(n.value, n.se, d)}" for name, n, d in parts)
        return f"{said}; `energy` tells more"

    def __str__(self) -> str:
        f, known = self.found, self.truth
        exact = "" if known is None else f"   exact {known.log_z:.6f} ({known.how})"
        lines = [
            f"{f.rollouts:,} rollouts of {self.sites} sites, one a call"
            + (", latent carried" if self.carried else ""),
            f"ELBO      {spread(f.elbo.value, f.elbo.se, 5)} nats",
            f"log Z     {spread(f.log_z.value, f.log_z.se, 5)}{exact}",
            f"ESS       {spread(f.ess.value, f.ess.se, 4)} of the rollouts",
            f"path KL   {spread(f.path_kl.value, f.path_kl.se, 5)} nats",
            f"{'mean of':20s}{'weighted':>24s}{'as sampled':>24s}" + ("   exact" if known else ""),
        ]
        for name, m in f.means.items():
            shown = [f"{spread(n.value, n.se, 5):>24s}" for n in (m, f.plain[name])]
            line = f"{name:20s}{''.join(shown)}"
            if known is not None and name in known.means:
                line += f"   {known.means[name]:.5f}"
            lines.append(line)
        return "\n".join(lines)


def program(experiment: Experiment, carry: bool) -> Callable[..., Any]:
    """(params, key, index [B]) -> nats of the path, log-weight and measured numbers, [B] each."""
    model, target, mesh = experiment.model, experiment.target, experiment.mesh
    rollouts = Rollouts(process=experiment.process, carry=carry)
    length = experiment.config.data.length

    def run(params, key, index):
        found = rollouts.draw(model.bind(params), key, index, length)
        return found.nats, target.log_weight(found.x), target.measured(found.x)

    return jax.jit(sharding.on(mesh, run), out_shardings=sharding.replicated(mesh))


def measure(
    experiment: Experiment,
    params: Any,
    *,
    rollouts: int,
    seed: int = 0,
    carry: bool | None = None,
    batch_size: int = 0,
    compiled: dict | None = None,
    check: Callable[[], None] = lambda: None,
    report: Report = lambda done, total: None,
    truth: Truth | None = None,
) -> Energy:
    """Draw rollouts and weigh them.

    Args:
      experiment: on a target.
      params: of its model.
      rollouts: how many; number i of a seed is the same whatever the batch.
      seed: of the draws.
      carry: the latent along the path; None = as its objective.
      batch_size: rollouts at a time; 0 = evaluation.batch_size.
      compiled: keeps programs.
      check: called before every batch; may raise.
      report: told the number of batches done and of all.
      truth: what is known exactly of the target, if it has been asked already.

    Raises:
      UserError: for a run on data, or rollouts from no law.
    """
    require_target(experiment)
    mesh = experiment.mesh
    carry = experiment.objective.carry if carry is None else carry
    pieces = sharding.shards(mesh)
    size = min(batch_size or experiment.evaluation.batch_size, rollouts)
    size = -(-size // pieces) * pieces
    compiled = {} if compiled is None else compiled
    run = compiled.setdefault(("energy", carry), program(experiment, carry))
    key = sharding.everywhere(mesh, jax.random.fold_in(experiment.key(2), seed))
    parts, total = [], -(-rollouts // size)
    for number in range(total):
        check()
        index = np.asarray(sharding.own(mesh, size), np.uint32) + np.uint32(number * size)
        parts.append(jax.device_get(run(params, key, sharding.put(mesh, index))))
        report(number + 1, total)
    joined: Any = jax.tree.map(lambda *a: np.concatenate(a)[:rollouts].astype(np.float64), *parts)
    nats, log_weight, measured = joined
    try:
        found = weigh(log_weight + nats, measured)
    except FloatingPointError as error:
        raise UserError(str(error)) from error
    carried = bool(carry and experiment.model.latent)
    return Energy(found, truth, experiment.config.data.length, carried)


def require_target(experiment: Experiment) -> None:
    """Refuse a run that has data instead.

    Raises:
      UserError: naming them.
    """
    require(
        experiment.target is not None,
        f"this run learned from data ({experiment.config.data.name}), not from a target; `energy` "
        "is for runs on a target, `evaluate` bounds a likelihood",
    )


def about(experiment: Experiment, step: int, seed: int) -> dict[str, Any]:
    """What the figures belong to.

    Args:
      experiment: the run's, with its target.
      step: of its checkpoint.
      seed: of the samples.
    """
    return {
        "config": fingerprint(experiment.config),
        "recipe": experiment.config.recipe,
        "target": section(experiment.target).to_dict(),
        "checkpoint": step,
        "seed": seed,
    }
