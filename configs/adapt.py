"""An autoregressive run or import becomes masked diffusion, with loopholing or without.

Command:   python -m ldd_jax train --config=configs/adapt.py:from=AR,method=lddm_m --workdir=DIR
           (method=mdlm|lddm_m|relay|soft_masking|...; AR: a run or import whose network is a
           llama or a gpt2; data=instructions: prompts and responses)
Hardware:  what the run itself needs; 1,000 updates, the first run's learning rate (an import's:
           3e-4) with cosine decay, the causal mask opened over the first 500
           (--config.objective.anneal_steps; the paper: 10,000).
Expected:  measured here at 0.35M parameters (docs/evidence/adaptation.md); published
           models not run yet.
"""

from ldd_jax.config.recipes import arguments
from ldd_jax.config.tuned import adapt


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    chosen = arguments(argument, **{"from": "", "method": "mdlm", "data": ""})
    return adapt(chosen["from"], chosen["method"], chosen["data"], chosen["optim"])
