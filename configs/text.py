"""Any text: a file, a glob, JSON lines, Parquet, tfds:NAME, or a prepared folder.

Command:   python -m ldd_jax train --config=configs/text.py:method=lddm_m,size=tiny \
               --config.data.path=FILE --workdir=DIR
           (tokenizer=characters|bytes|sentencepiece)
Hardware:  any; minutes at size=tiny on a laptop CPU.
Expected:  depends on the text; not run yet at other sizes.
"""

from ldd_jax.core.checks import UserError, nearest
from ldd_jax.core.registry import section
from ldd_jax.data import Bytes, Characters, SentencePiece
from ldd_jax.recipes import arguments, make

TOKENIZERS = {"characters": Characters, "bytes": Bytes, "sentencepiece": SentencePiece}


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    chosen = arguments(argument, method="lddm_m", size="tiny", tokenizer="characters")
    if chosen["tokenizer"] not in TOKENIZERS:
        name = chosen["tokenizer"]
        raise UserError(f"unknown tokenizer {name!r}; {nearest(name, TOKENIZERS)}")
    small = chosen["size"] == "tiny"
    return make(
        chosen,
        data=dict(path="", length=64, tokenizer=section(TOKENIZERS[chosen["tokenizer"]])),
        optim=dict(lr=3e-3 if small else 3e-4, warmup_steps=200, decay="cosine", b2=0.99),
        training=dict(
            num_steps=5000,
            batch_size=64,
            ema_decay=0.999,
            log_every=100,
            eval_every=1000,
            sample_every=1000,
            checkpoint_every=1000,
        ),
        evaluation=dict(draws=4),
    )
