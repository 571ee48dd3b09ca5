"""Sudoku: 4 x 4 on a CPU, 9 x 9 as published; solved grids of validation are never trained on.

Command:   python -m ldd_jax train --config=configs/sudoku.py --workdir=runs/sudoku
           (method=ar|mdlm|lddm_m|mgdm|lddm_g; size=tiny; or size=6m|small)
Hardware:  size=tiny (4 x 4): one CPU core, about a minute; the published sizes 6M and 85M (small):
           8 accelerators of 16 GB or more, 29k updates of 1,024.
Expected:  size=tiny: docs/results.md, measured here. Published, 9 x 9: AR 85M 20.7, MGDM 6M 100 %
           (arXiv 2410.14157); not run yet here.
"""

from ldd_jax.config.recipes import arguments, problems
from ldd_jax.core.registry import section
from ldd_jax.tasks import Sudoku


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    return problems(
        arguments(argument, method="lddm_g", size="tiny"),
        tiny=dict(task=section(Sudoku, size=4, givens=10), length=34, train_count=20_000),
        published=dict(task=section(Sudoku), length=164, train_count=100_000),
        epochs=300,
        gamma=1.0,
        lr=1.25e-3,
    )
