"""Prompts and responses: JSON lines with `prompt` and `response`, the response learned.

Command:   python -m ldd_jax train --config=configs/instructions.py:method=lddm_m \
               --config.data.path=FILE.jsonl --workdir=DIR
           python -m ldd_jax sample --workdir=DIR --prompt="What is a list?"
           (tokenizer=..., tokenizer_path=... as in configs/text.py; on a model that is there:
           configs/finetune.py:from=DIR,data=instructions, likewise configs/adapt.py)
Hardware:  any; minutes at size=tiny on a laptop CPU.
Expected:  depends on the text; run here by tests/cli/test_instructions.py on sums of two digits.
"""

from ldd_jax.config.recipes import SHORT, arguments, make, tokenizer
from ldd_jax.data import InstructionData


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    chosen = arguments(
        argument, method="lddm_m", size="tiny", tokenizer="characters", tokenizer_path=""
    )
    data = dict(path="", length=64, tokenizer=tokenizer(chosen))
    return make(chosen, source=InstructionData, data=data, **SHORT)
