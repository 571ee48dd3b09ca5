"""Countdown: make the target from all numbers; targets of validation are never trained on.

Command:   python -m ldd_jax train --config=configs/countdown.py --workdir=runs/countdown
           (method=ar|mdlm|lddm_m|mgdm|lddm_g; size=tiny; or size=6m|small,numbers=3|4|5)
Hardware:  size=tiny, numbers up to 30: one CPU core, about a minute; the published sizes 6M and 85M
           (small) with numbers up to 99: 8 accelerators of 16 GB or more, 293k updates of 1,024.
Expected:  size=tiny: docs/results.md, measured here. Published with numbers=4: 6M MGDM 45.0,
           LDDM-G 56.3 %; 85M MGDM 86.5, LDDM-G 94.4 % (arXiv 2510.19304); not run yet here.
"""

from ldd_jax.config.recipes import arguments, problems
from ldd_jax.core.checks import UserError, nearest
from ldd_jax.core.registry import section
from ldd_jax.tasks import Countdown

# Tokens of a row in the published code.
LENGTHS = {"3": 37, "4": 64, "5": 74}
TINY = dict(numbers=2, largest=30, lowest_target=1, highest_target=99, largest_result=99)


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    chosen = arguments(argument, method="lddm_g", size="tiny", numbers="4")
    numbers = chosen["numbers"]
    if numbers not in LENGTHS:
        raise UserError(f"unknown numbers {numbers!r}; {nearest(numbers, LENGTHS)}")
    return problems(
        chosen,
        tiny=dict(task=section(Countdown, **TINY, orders=True), length=18),
        published=dict(
            task=section(Countdown, numbers=int(numbers)),
            length=LENGTHS[numbers],
            train_count=500_000,
        ),
        epochs=600,
    )
