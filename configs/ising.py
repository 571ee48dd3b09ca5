"""A sampler of the Ising model without data: MDNS on a periodic square lattice.

Command:   python -m ldd_jax train --config=configs/ising.py --workdir=runs/ising
           python -m ldd_jax energy --workdir=runs/ising
           (method=mdns|lddm_mdns|mdns_lv|lddm_mdns_lv, side=N, beta=B, warmup=B1:B2:...)
Hardware:  two CPU cores; minutes at side 4.
Expected:  log Z 12.5615 with ESS .966 +- .001 (mdns), measured here (docs/evidence/systems.md).
"""

from ldd_jax.config.lattices import lattice
from ldd_jax.config.recipes import arguments
from ldd_jax.targets import Ising


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    chosen = arguments(argument, method="mdns", size="tiny", side="4", beta="0.28", warmup="")
    return lattice(chosen, Ising, field=0.1)
