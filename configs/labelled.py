"""Text of named classes, for guidance: JSON lines with `text` and `label`, a document a row.

Command:   python -m ldd_jax train --config=configs/labelled.py:method=lddm_m,classes=ham+spam \
               --config.data.path=FILE.jsonl --workdir=DIR
           python -m ldd_jax sample --workdir=DIR --label=spam --guidance=2
           (tokenizer=..., tokenizer_path=... as in configs/text.py)
Hardware:  any; minutes at size=tiny on a laptop CPU.
Expected:  depends on the text; run here by tests/cli/test_guidance.py on two classes of letters.
"""

from ldd_jax.config.recipes import SHORT, arguments, make, tokenizer
from ldd_jax.data import LabelledText


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    chosen = arguments(
        argument,
        method="lddm_m",
        size="tiny",
        tokenizer="characters",
        tokenizer_path="",
        classes="a+b",
    )
    classes = tuple(chosen["classes"].split("+"))
    return make(
        chosen,
        source=LabelledText,
        data=dict(length=64, classes=classes, tokenizer=tokenizer(chosen)),
        model=dict(num_classes=len(classes)),
        objective=dict(condition_dropout=0.1),
        **SHORT,
    )
