"""Points on a sphere (RDLM) against masked diffusion, on a hidden Markov chain whose law is known.

    python launch/rdlm.py --output=FOLDER [--methods=mdlm,rdlm,lddm_rdlm] [--seeds=0,1,2] \
        [--updates=3000] [--samples=2048]

Every network (DiT 48 x 2) learns from fresh draws of the chain (8 symbols, rows of 16), for as many
updates. Its bound is that on draws of another seed, with as many times and corruptions of each; of
methods with a latent it is that of two passes. Samples of 16 to 256 steps are
held against the chain: total variation of the law of neighbours, excess of -log p(x) a token
(negative: too typical), entropy of the law of neighbours. One JSON file a method and seed, which is
not made again; means over seeds and standard errors of those means.

    METHOD_uniform: begins in the middle of the sphere; METHOD_elbo: trained by the bound.
    METHOD_digits: ids in base 2, three positions of the network each.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import chains

from ldd_jax.core.registry import section
from ldd_jax.objectives import UniformTimes
from ldd_jax.samplers import Ancestral, Geodesic

ROWS = chains.Rows(16)
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "uniform": {"process": dict(prior_point="uniform")},
    "digits": {"process": dict(base=2)},
    "elbo": {"objective": dict(times=section(UniformTimes))},
}


def rules(e: Any) -> dict[str, chains.Rule]:
    """Rule, steps and tail by name."""
    if not e.process.points:
        return {f"ancestral, {n}": (Ancestral(), n, "sample") for n in (16, 64)}
    return {
        "ancestral, 16": (Ancestral(), 16, "sample"),
        "ancestral, 64": (Ancestral(), 64, "sample"),
        "geodesic, 64": (Geodesic(), 64, "none"),
        "geodesic, 64, drawn end": (Geodesic(), 64, "sample"),
        "geodesic, 256": (Geodesic(), 256, "none"),
    }


def record(name: str, seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train and measure."""
    began = time.time()
    variant = name.split("_")[-1] if name.split("_")[-1] in VARIANTS else ""
    method = name.removesuffix(f"_{variant}") if variant else name
    e = ROWS.build(method, chosen.updates, dict(width=48, unroll=2), **VARIANTS[variant])
    params = ROWS.trained(e, seed, chosen.updates)
    spent = time.time() - began
    return {
        "method": name,
        "seed": seed,
        "updates": chosen.updates,
        "train_s": round(spent, 1),
        "bound": ROWS.bound(e, params, 512, 8),
        "rules": {
            of: ROWS.measured(e, params, rule, chosen.samples, 1024)
            for of, rule in rules(e).items()
        },
        "all_s": round(time.time() - began, 1),
    }


def main() -> None:
    """Fill and print the table."""
    methods = "mdlm,rdlm,lddm_rdlm"
    chosen = chains.parser(__doc__, methods, updates=3000, samples=2048).parse_args()
    print(f"\n{chains.table(chains.records(chosen, record))}")


if __name__ == "__main__":
    main()
