"""Diffusion by counted events (SCUD, arXiv 2506.08316) on any text: kernels that know near symbols.

Command:   python -m ldd_jax train --config=configs/scud.py:method=scud,kernel=uniform,size=tiny \
               --config.data.path=FILE --workdir=DIR
           (method=lddm_scud carries a latent; kernel=uniform|masked|band|neighbours, the last with
           from=WORKDIR,near=K: K nearest neighbours in the embedding of a finished run, whose data
           and tokenizer are taken too; any matrix of rates: section(GraphKernel, matrix=...))
Hardware:  any; minutes at size=tiny on a laptop CPU.
Expected:  random walks (launch/walks.py, docs/scud.md): the band below uniform kernels and UDLM;
           uniform kernels: no gain over UDLM resolved. Texts: not run yet.
"""

from pathlib import Path

import numpy as np

from ldd_jax.config.recipes import SHORT, arguments, make, tokenizer
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.registry import section
from ldd_jax.processes import BandKernel, MaskedKernel, NeighbourKernel, UniformKernel
from ldd_jax.processes.kernels import nearest_neighbours
from ldd_jax.schedules import ExponentialSigma, LogLinear

KERNELS = {
    "uniform": UniformKernel,
    "masked": MaskedKernel,
    "band": BandKernel,
    "neighbours": NeighbourKernel,
}


def learned(workdir, count):
    """The kernel of nearest neighbours in a run's token table, and the run's data section."""
    from ldd_jax.inference.pipeline import load_trained

    require(bool(workdir), "neighbours in which embedding? give from=WORKDIR, a finished run")
    require(count.isdigit(), f"near={count}; a whole number of neighbours is wanted")
    run, params, _ = load_trained(Path(workdir))
    table = np.asarray(params["trunk"]["embed"]["table"])[: run.tokenizer.size]
    try:
        return NeighbourKernel(near=nearest_neighbours(table, int(count))), run.config.data
    except ValueError as error:
        raise UserError(f"near={count}: {error}") from error


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
