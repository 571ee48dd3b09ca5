"""A sampler of the three-state Potts model without data: MDNS on a periodic square lattice.

Command:   python -m ldd_jax train --config=configs/potts.py --workdir=runs/potts
           python -m ldd_jax energy --workdir=runs/potts
           (method=mdns|lddm_mdns|mdns_lv|lddm_mdns_lv, side=N, beta=B, warmup=B1:B2:...)
Hardware:  two CPU cores; minutes at side 4.
Expected:  not run yet.
"""

from ldd_jax.config.lattices import lattice
from ldd_jax.config.recipes import arguments
from ldd_jax.targets import Potts


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    chosen = arguments(argument, method="mdns", size="tiny", side="4", beta="0.5", warmup="")
    return lattice(chosen, Potts)
