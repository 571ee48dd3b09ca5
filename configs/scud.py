"""Diffusion by counted events (SCUD, arXiv 2506.08316) on any text: kernels that know near symbols.

Command:   python -m ldd_jax train --config=configs/scud.py:method=scud,kernel=uniform,size=tiny \
               --config.data.path=FILE --workdir=DIR
           (method=lddm_scud carries a latent; kernel=uniform|masked|band|neighbours, the last with
           from=WORKDIR,near=K: K nearest neighbours in the embedding of a finished run, whose data
           and tokenizer are taken too; any matrix of rates: section(GraphKernel, matrix=...))
Hardware:  any; minutes at size=tiny on a laptop CPU.
Expected:  random walks (launch/walks.py, docs/evidence/systems.md), three seeds: uniform jumps
           below UDLM, the band above both. Texts: not run yet.
"""

from ldd_jax.config.recipes import SHORT, arguments, make, tokenizer
from ldd_jax.core.checks import nearest, require
from ldd_jax.core.registry import section
from ldd_jax.processes import BandKernel, MaskedKernel, NeighbourKernel, UniformKernel
from ldd_jax.schedules import ExponentialSigma, LogLinear

KERNELS = {
    "uniform": UniformKernel,
    "masked": MaskedKernel,
    "band": BandKernel,
    "neighbours": NeighbourKernel,
}


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    usual = {"tokenizer": "characters", "tokenizer_path": "", "from": "", "near": "4"}
    chosen = arguments(argument, method="scud", kernel="uniform", size="tiny", **usual)
    kernel, workdir, near = (chosen.pop(name) for name in ("kernel", "from", "near"))
    require(kernel in KERNELS, f"unknown kernel {kernel!r}; {nearest(kernel, KERNELS)}")
    require(
        chosen["method"] in ("scud", "lddm_scud"),
        f"method {chosen['method']!r} has no kernel; it is scud or lddm_scud here",
    )
    jumps, data = KERNELS[kernel], dict(path="", length=64, tokenizer=tokenizer(chosen))
    if kernel == "neighbours":
        from ldd_jax.inference.kernels import learned

        jumps, own = learned(workdir, near)
        data = {name: value for name, value in own.items() if name != "name"}
    # A token has few events before uniform jumps forget it, and orders of magnitude with near ones.
    quick = kernel in ("uniform", "masked")
    schedule = LogLinear(eps=1e-4) if quick else ExponentialSigma(sigma_max=9.21, growth=300.0)
    lr = {} if chosen["size"] == "tiny" else {"lr": 3e-4}
    config = make(
        chosen,
        data=data,
        process=dict(kernel=section(jumps), schedule=section(schedule)),
        **SHORT | {"optim": SHORT["optim"] | lr},
    )
    return config
