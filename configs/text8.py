"""text8: 27 characters, rows of 256 (D3PM, SEDD, MD4, MDLM).

Command:   python -m ldd_jax train --config=configs/text8.py:method=lddm_m,size=small \
               --config.data.path=text8 --workdir=DIR      (the file text8, from its author's page)
Hardware:  8 accelerators of 16 GB or more; 1M updates of 512 x 256 tokens.
Expected:  bits per character MDLM 1.40, MD4 1.37, SEDD 1.39 (published); not run yet here.
"""

from ldd_jax.config.recipes import PUBLISHED, arguments, make
from ldd_jax.core.registry import section
from ldd_jax.data import Characters


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    return make(
        arguments(argument, method="lddm_m", size="small"),
        data=dict(
            path="text8",
            length=256,
            eos=False,
            tokenizer=section(Characters),
            validation_fraction=0.05,
        ),
        model=dict(dropout=0.05, dtype="bfloat16", remat="dots", attention="auto"),
        **PUBLISHED,
        sampling=dict(num_steps=256, batch_size=64),
    )
