"""Game of 24: make 24 from four numbers; a tenth of the hands that integers solve is held out.

Command:   python -m ldd_jax train --config=configs/game24.py:size=6m --workdir=runs/game24
           (method=ar|mdlm|lddm_m|mgdm|lddm_g; size=tiny|6m|small)
Hardware:  an accelerator of 16 GB. The published figures are of models trained on Countdown with
           four numbers and asked for 24; for those train configs/countdown.py:numbers=4 and run
           launch/reasoning.py with --task=game24.
Expected:  that way 6M MGDM 12.0, LDDM-G 28.0 %; 85M MGDM 47.0, LDDM-G 63.0 % (published,
           arXiv 2510.19304); not run yet here.
"""

from ldd_jax.config.recipes import arguments, problems
from ldd_jax.core.registry import section
from ldd_jax.tasks import Game24


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    task = dict(task=section(Game24), length=64, train_count=1_300)
    return problems(
        arguments(argument, method="lddm_g", size="tiny"), tiny=task, published=task, epochs=600
    )
