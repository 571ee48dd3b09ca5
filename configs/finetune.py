"""Go on from a trained run or an import on other text, with loopholing added or not.

Command:   python -m ldd_jax train --config=configs/finetune.py:from=runs/mdlm,method=lddm_m \
               --config.data.path=FILE --workdir=runs/mine
           (without method: as the run was trained; data=instructions: prompts and responses)
Hardware:  what the run itself needs; 1,000 updates, lr 3e-4 with cosine decay.
Expected:  docs/evidence/adaptation.md, measured here at quickstart size.
"""

from ldd_jax.config.recipes import arguments
from ldd_jax.config.tuned import fine_tune


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    chosen = arguments(argument, **{"from": "", "method": "", "data": ""})
    return fine_tune(chosen["from"], chosen["method"], chosen["data"], chosen["optim"])
