"""Block diffusion (BD3-LM, arXiv 2503.09573) of the Python documentation's prose, with a cache.

Command:   python -m ldd_jax train --config=configs/block.py:method=lddm_block,block=16 \
               --workdir=DIR
           (method=block|lddm_block, block= positions of a block, clip=0.3:0.8 = the shares of
           masks that it is trained on, size=tiny|..., network=llama|gpt2;
           --config.data.path=FILE for other texts)
Hardware:  two CPU cores; minutes at size=tiny.
Expected:  measured here at size=tiny: bounds of blocks of 4 and 16 and of the row
           (docs/evidence/blocks.md).
"""

from ldd_jax.config.recipes import arguments, make
from ldd_jax.core.checks import nearest, require
from ldd_jax.core.registry import section
from ldd_jax.data import Characters
from ldd_jax.objectives import ClippedTimes

METHODS = ("block", "lddm_block")


def clipped(text):
    """The times of `low:high`; none named = uniform ones."""
    if not text:
        return {}
    low, _, high = text.partition(":")
    number = lambda a: a.replace(".", "", 1).isdigit()
    require(number(low) and number(high), f"clip={text} is not low:high, such as 0.3:0.8")
    return dict(times=section(ClippedTimes, low=float(low), high=float(high)))


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    usual = dict(size="tiny", network="", block="16", clip="")
    chosen = arguments(argument, method="lddm_block", **usual)
    method, block = chosen["method"], chosen["block"]
    require(method in METHODS, f"method={method} has no blocks; {nearest(method, METHODS)}")
    require(block.isdigit() and int(block) > 0, f"block={block}; it must be 1 or more positions")
    lr = 5e-3 if chosen["size"] == "tiny" else 3e-4
    return make(
        chosen,
        data=dict(path="python-docs", length=64, tokenizer=section(Characters)),
        model=dict(block=int(block)),
        objective=clipped(chosen["clip"]),
        optim=dict(lr=lr, warmup_steps=100, decay="cosine", b2=0.99),
        training=dict(
            num_steps=3000,
            batch_size=32,
            ema_decay=0.999,
            log_every=100,
            eval_every=1000,
            sample_every=1000,
            checkpoint_every=500,
        ),
        evaluation=dict(draws=4),
        sampling=dict(num_steps=int(block), num_samples=8),
    )
