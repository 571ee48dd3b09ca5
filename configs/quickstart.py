"""Ten minutes on a laptop CPU: a loopholing model of the Python documentation's prose.

Command:   python -m ldd_jax train --config=configs/quickstart.py --workdir=runs/quickstart
           (method=mdlm|lddm_m|udlm|lddm_u|ar, size=tiny|..., network=llama|gpt2)
Hardware:  two CPU cores; minutes.
Expected:  2.02 +- 0.01 nats a character with lddm_m; measured here for all methods
           (docs/results.md).
"""

from ldd_jax.config.recipes import arguments, make
from ldd_jax.core.registry import section
from ldd_jax.data import Characters


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    return make(
        arguments(argument, method="lddm_m", size="tiny", network=""),
        data=dict(path="python-docs", length=64, tokenizer=section(Characters)),
        optim=dict(lr=5e-3, warmup_steps=100, decay="cosine", b2=0.99),
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
        sampling=dict(num_steps=64, num_samples=8),
    )
