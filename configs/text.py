"""Any text: a file, a glob, JSON lines, Parquet, tfds:NAME, or a prepared folder.

Command:   python -m ldd_jax train --config=configs/text.py:method=lddm_m,size=tiny \
               --config.data.path=FILE --workdir=DIR
           (source=mixture with data.others and data.weights for several;
           tokenizer=characters|bytes|sentencepiece|json; tokenizer_path=FILE of the last two;
           network=llama|gpt2 for that family's layers)
Hardware:  any; minutes at size=tiny on a laptop CPU.
Expected:  depends on the text; not run yet at other sizes.
"""

from ldd_jax.config.recipes import SHORT, SOURCES, arguments, make, tokenizer


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    chosen = arguments(
        argument,
        method="lddm_m",
        size="tiny",
        tokenizer="characters",
        tokenizer_path="",
        source="",
        network="",
    )
    lr = {} if chosen["size"] == "tiny" else {"lr": 3e-4}
    return make(
        chosen,
        source=SOURCES[chosen["source"]],
        data=dict(path="", length=64, tokenizer=tokenizer(chosen)),
        **SHORT | {"optim": SHORT["optim"] | lr},
    )
