"""Texts as a fixed number of vectors, and their diffusion (arXiv 2212.09462), in two runs.

Command:   python -m ldd_jax train --config=configs/latent_diffusion.py:method=autoencoder \
               --config.data.path=FILE --workdir=CODE
           python -m ldd_jax train --workdir=DIR \
               --config=configs/latent_diffusion.py:method=lddm_latent_diffusion,from=CODE
           (method=latent_diffusion carries the last estimate of the vectors, plain_... nothing; of
           an autoencoder: vectors=Q, numbers=C of each, tokenizer=characters|bytes|...)
Hardware:  any; minutes at size=tiny on a laptop CPU.
Expected:  a Markov chain, one seed (launch/latent_diffusion.py, docs/evidence/systems.md).
           Texts: not run yet.
"""

from ldd_jax.config.methods import method as method_of
from ldd_jax.config.recipes import SHORT, arguments, make, tokenizer
from ldd_jax.config.tuned import fine_tune
from ldd_jax.core.checks import is_whole, nearest, require
from ldd_jax.core.registry import section
from ldd_jax.training.optimizers import AdamW

SECOND = ("latent_diffusion", "lddm_latent_diffusion", "plain_latent_diffusion")
METHODS = ("autoencoder", *SECOND)


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    usual = {"tokenizer": "characters", "tokenizer_path": "", "from": ""}
    own = {"vectors": "16", "numbers": "16"}
    chosen = arguments(argument, method="autoencoder", size="tiny", **usual, **own)
    method, code = chosen["method"], chosen.pop("from")
    require(method in METHODS, f"method {method!r} has no vectors; {nearest(method, METHODS)}")
    if method in SECOND:
        return second(method, code)
    require(not code, "an autoencoder begins with no run; leave from= out")
    for name in own:
        require(is_whole(chosen[name], 1), f"{name}={chosen[name]}; it must be 1 or more")
    shape = dict(vectors=int(chosen["vectors"]), size=int(chosen["numbers"]))
    return make(
        chosen,
        data=dict(path="", length=64, tokenizer=tokenizer(chosen)),
        process=shape,
        model=shape,
        sampling=dict(tail="none"),
        **SHORT | {"optim": SHORT["optim"] | dict(trainable=("encoder.*", "decoder.*"))},
    )


def second(method, code):
    """The diffusion of an autoencoder's vectors, on its data."""
    require(bool(code), f"method={method} diffuses vectors of an autoencoder; give from=WORKDIR")
    config = fine_tune(code, method).unlock()
    config.model.carried = method_of(method).network.get("carried", "both")
    config.objective.context.update(dict(p=0.5) if config.model.latent else {})
    config.optim = section(AdamW, trainable=("prior.*",), **SHORT["optim"])
    config.training.update(SHORT["training"])
    return config.lock()
