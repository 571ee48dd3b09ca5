"""Points on a sphere that move to its vertices (RDLM, arXiv 2502.11564), on any text.

Command:   python -m ldd_jax train --config=configs/rdlm.py:method=rdlm,prior=mask,size=tiny \
               --config.data.path=FILE --workdir=DIR
           (method=lddm_rdlm carries a latent; prior=mask|uniform; base=B writes tokens in digits
           of base B, a position of the network each; loss=ce|elbo; tokenizer=characters|bytes|...)
Hardware:  any; minutes at size=tiny on a laptop CPU.
Expected:  a hidden Markov chain (launch/rdlm.py, docs/rdlm.md). Texts: not run yet.
"""

from ldd_jax.config.recipes import SHORT, arguments, make, tokenizer
from ldd_jax.core.checks import is_whole, nearest, require
from ldd_jax.core.registry import section
from ldd_jax.objectives import CrossEntropyTimes, UniformTimes

LOSSES = {"ce": CrossEntropyTimes, "elbo": UniformTimes}
METHODS = ("rdlm", "lddm_rdlm")


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    usual = {"tokenizer": "characters", "tokenizer_path": "", "base": "0", "loss": "ce"}
    chosen = arguments(argument, method="rdlm", prior="mask", size="tiny", **usual)
    prior, base, loss = (chosen[name] for name in ("prior", "base", "loss"))
    method = chosen["method"]
    require(method in METHODS, f"method {method!r} moves no points; {nearest(method, METHODS)}")
    require(loss in LOSSES, f"unknown loss {loss!r}; {nearest(loss, LOSSES)}")
    require(is_whole(base, 0), f"base={base}; it must be 0 (no digits) or a whole number from 2")
    lr = {} if chosen["size"] == "tiny" else {"lr": 3e-4}
    return make(
        chosen,
        data=dict(path="", length=64, tokenizer=tokenizer(chosen)),
        process=dict(prior_point=prior, base=int(base)),
        objective=dict(times=section(LOSSES[loss])),
        **SHORT | {"optim": SHORT["optim"] | lr},
    )
