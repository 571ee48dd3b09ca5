"""OpenWebText, GPT-2 tokens, packed rows of 1,024 (SEDD, MDLM, Duo, LDDM).

Command:   python -m ldd_jax prepare --config=configs/openwebtext.py \
               --config.data.path='owt/*.jsonl' --config.data.tokenizer.path=gpt2/tokenizer.json \
               --output=owt-1024
           python -m ldd_jax train --config=configs/openwebtext.py:method=lddm_m,size=small \
               --config.data.path=owt-1024 --workdir=DIR
           (method=..., size=small|medium|1b|7b|70b, network=llama|gpt2 for that family's layers,
           source=mixture with data.others and data.weights for several prepared folders)
Hardware:  a TPU slice of 16 chips or more; 1M updates of 512 x 1,024 tokens.
Expected:  test perplexity (upper bounds) MDLM 23.05, LDDM-M 21.90, UDLM 25.51, LDDM-U 23.82
           (published, arXiv 2510.19304); not run yet here.
"""

from ldd_jax.config.recipes import PUBLISHED, SOURCES, arguments, make
from ldd_jax.core.registry import section
from ldd_jax.data import Json


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    chosen = arguments(argument, method="lddm_m", size="small", network="", source="")
    dropout = {} if chosen["network"] else dict(dropout=0.1)  # the decoders have none
    return make(
        chosen,
        source=SOURCES[chosen["source"]],
        data=dict(path="", length=1024, tokenizer=section(Json), validation_fraction=0.01),
        model=dict(dtype="bfloat16", remat="full", attention="auto", vocab_multiple=128, **dropout),
        objective=dict(tile=2048),
        **PUBLISHED,
        sampling=dict(num_steps=1024, batch_size=32, tile=256),
        mesh=dict(data=1, fsdp=-1),
    )
