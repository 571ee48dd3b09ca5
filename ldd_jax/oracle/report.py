"""What the lab measures, its table and its plot."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ldd_jax.core import outputs
from ldd_jax.core.outputs import Place
from ldd_jax.core.types import Process
from ldd_jax.oracle.lab import Measured, measure
from ldd_jax.oracle.laws import Law
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import (
    Analytic,
    Ancestral,
    Confidence,
    EntropyBounded,
    Euler,
    FirstHitting,
    GibbsCorrector,
    LinearGrid,
    PredictorCorrector,
    Psi,
    ReMDM,
    Renoise,
    ScheduledConfidence,
    Step,
    TauLeaping,
    ThetaRK2,
    ThetaTrapezoidal,
)
from ldd_jax.schedules import LinearSigma, LogLinear

STEPS = (16, 32, 64, 128, 256)
SEED, VOCABULARY, LENGTH, CONCENTRATION, END = 3, 2, 3, 30.0, 0.02


class Case(NamedTuple):
    """A rule under a name, and the numbers of steps it is measured at."""

    name: str
    step: Step
    steps: tuple[int, ...] = STEPS


CASES = (
    Case("ancestral", Ancestral()),
    Case("euler", Euler()),
    Case("analytic", Analytic()),
    Case("tau_leaping", TauLeaping()),
    Case("tau_leaping leap=rejection", TauLeaping(leap="rejection")),
    Case("theta_trapezoidal", ThetaTrapezoidal()),
    Case("theta_trapezoidal theta=0.3", ThetaTrapezoidal(theta=0.3)),
    Case("theta_trapezoidal leap=linear", ThetaTrapezoidal(leap="linear")),
    Case("theta_rk2", ThetaRK2()),
    Case("theta_rk2 leap=first_jump", ThetaRK2(leap="first_jump")),
    Case("predictor_corrector rate", PredictorCorrector()),
    Case("predictor_corrector gibbs", PredictorCorrector(corrector=GibbsCorrector())),
    Case("remdm rescale", ReMDM()),
    Case("remdm cap", ReMDM(strength="cap")),
    Case("remdm forward_backward", ReMDM(strength="forward_backward")),
    Case("psi", Psi()),
    Case("renoise", Renoise()),
    Case("renoise gamma=0.7", Renoise(gamma=0.7)),
    Case("first_hitting", FirstHitting(), (LENGTH,)),
    Case("confidence count=1", Confidence(), (LENGTH,)),
    Case("confidence order=random", Confidence(order="random"), (LENGTH,)),
    Case("confidence order=sampled", Confidence(order="sampled"), (LENGTH,)),
    Case("confidence count=2", Confidence(count=2), (LENGTH,)),
    Case("entropy_bounded gamma=0", EntropyBounded(gamma=0.0), (LENGTH,)),
    Case("entropy_bounded gamma=0.7", EntropyBounded(gamma=0.7), (LENGTH,)),
    Case("scheduled_confidence", ScheduledConfidence(), (1, 2, 4)),
    Case(
        "scheduled_confidence order=confidence", ScheduledConfidence(order="confidence"), (1, 2, 4)
    ),
)


# Rules worth the minutes that long rows take.
LONG = (
    *(c for c in CASES if c.name in ("ancestral", "tau_leaping", "theta_trapezoidal", "theta_rk2")),
    Case("predictor_corrector gibbs", PredictorCorrector(corrector=GibbsCorrector(positions=4))),
    *(c for c in CASES if c.name in ("remdm rescale", "first_hitting", "confidence count=2")),
    Case("confidence order=sampled count=2", Confidence(order="sampled", count=2)),
    Case("entropy_bounded gamma=0.7", EntropyBounded(gamma=0.7)),
    Case("scheduled_confidence order=confidence", ScheduledConfidence(order="confidence")),
)


def toys() -> dict[str, tuple[Any, Law]]:
    """The law of two letters in three places under both processes.

    Masked: log-linear down to alpha = 0. Uniform: sigma linear from 0 to 4, as its intensities
    have no limit where alpha = 0.
    """
    masked = Law(SEED, VOCABULARY, LENGTH, CONCENTRATION)
    uniform = Law(SEED, VOCABULARY, LENGTH, CONCENTRATION, masked=False)
    return {
        "masked": (Masked(schedule=LogLinear(eps=0.0), tokens=masked.tokens), masked),
        "uniform": (Uniform(schedule=LinearSigma(sigma_max=4.0), tokens=uniform.tokens), uniform),
    }


def refusal(step: Step, process: Process, *, latent: bool, timed: bool) -> str:
    """Why a rule cannot run, or nothing.

    `process`, `latent` and `timed` are those of the check of the `step`.
    """
    try:
        step.check(process, latent=latent, timed=timed)
    except ValueError as error:
        return str(error)
    return ""


def run(cases: tuple[Case, ...] = CASES) -> Iterator[Measured]:
    """Every rule with every process it can run with, in float64."""
    with jax.enable_x64(True):
        laws = toys()
        for case in cases:
            for process, law in laws.values():
                if not refusal(case.step, process, latent=False, timed=process.tokens.mask is None):
                    yield measure(
                        case.name, case.step, process, law, LinearGrid(end=END), case.steps
                    )


def table(found: list[Measured]) -> str:
    """Markdown: calls, divergences at the last number of steps, and the order."""
    lines = [
        "| sampler | process | steps | calls | KL, nats | TV | order of KL |",
        "|---|---|---|---|---|---|---|",
    ]
    for m in found:
        order = "-" if m.order_kl is None else f"{m.order_kl:.2f}"
        kl = "0" if m.kl[-1] < 1e-14 else f"{m.kl[-1]:.1e}"
        tv = "0" if m.tv[-1] < 1e-14 else f"{m.tv[-1]:.1e}"
        lines.append(
            f"| {m.sampler} | {m.process} | {m.steps[-1]} | {m.calls[-1]} | {kl} | {tv} | {order} |"
        )
    return "\n".join(lines)


def plot(found: list[Measured], path: Path | Place) -> None:
    """KL against network calls, one panel a process, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    curves = [m for m in found if len(m.steps) > 2 and m.steps[-1] == STEPS[-1]]
    kinds = sorted({m.process for m in curves})
    figure, axes = plt.subplots(1, len(kinds), figsize=(5.2 * len(kinds), 5.4), squeeze=False)
    names = list(dict.fromkeys(m.sampler for m in curves))
    styles: dict[str, Any] = {
        name: dict(color=f"C{i % 10}", linestyle=["-", "--"][i // 10 % 2], marker="o^sv"[i % 4])
        for i, name in enumerate(names)
    }
    for axis, kind in zip(axes[0], kinds):
        for m in (m for m in curves if m.process == kind):
            y = [k if k > 1e-15 else math.nan for k in m.kl]
            axis.loglog(m.calls, y, label=m.sampler, markersize=4, **styles[m.sampler])
        axis.set(
            title=f"{kind} diffusion", xlabel="network calls", ylabel="KL(exact || sampler), nats"
        )
        axis.grid(alpha=0.3)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:.0f}")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=8)
    figure.tight_layout(rect=(0, 0.2, 1, 1))
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    with outputs.place(path).open(binary=True) as out:
        out.write(stream.getvalue())
    plt.close(figure)
