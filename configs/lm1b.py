"""LM1B, bert-base-uncased, rows of 128 (MDLM, UDLM, LDDM).

Command:   python -m ldd_jax train --config=configs/lm1b.py:method=lddm_m,size=small \
               --config.data.tokenizer.path=bert-base-uncased/tokenizer.json --workdir=DIR
           (pack=padded, as the papers' 33B-token row, or pack=packed)
Hardware:  8 accelerators of 32 GB or more; 1M updates of 512 x 128 tokens.
Expected:  test perplexity (upper bounds, padded) MDLM 27.60, LDDM-M 25.95, UDLM 31.11,
           LDDM-U 29.21 (published, arXiv 2510.19304); not run yet here.
"""

from ldd_jax.config.recipes import PUBLISHED, arguments, make
from ldd_jax.core.registry import section
from ldd_jax.data import Json


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    chosen = arguments(argument, method="lddm_m", size="small", pack="padded")
    return make(
        chosen,
        data=dict(path="tfds:lm1b", length=128, mode=chosen["pack"], tokenizer=section(Json)),
        model=dict(
            dropout=0.1, dtype="bfloat16", remat="dots", attention="auto", vocab_multiple=128
        ),
        objective=dict(tile=2048),
        **PUBLISHED,
        sampling=dict(num_steps=128, batch_size=64, tile=2048),
    )
