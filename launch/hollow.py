"""Hollow networks and informed corrections on a hidden Markov chain whose law is known.

    python launch/hollow.py --output=FOLDER [--methods=mdlm,hollow,hollow_sic,hollow_lddm] \
        [--seeds=0,1,2] [--updates=1500] [--samples=8192]

Every network (width 32, 2 blocks; hollow ones have two streams of that width) is trained on fresh
draws of the chain (8 symbols, rows of 32); its bound is that on draws of another seed. Samples of 8
and 16 steps, and of 8 steps with one correction of 4 positions after each (16 calls), are held
against the chain's own law: total variation of the law of neighbours, excess of -log p(x) a token
(negative: too typical), entropy of the law of neighbours. TV of samples is never 0: that of as many
exact rows is printed too, as the floor. One JSON line a method and seed, which is not made again;
means over seeds and standard errors of those means.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import chains

from ldd_jax.samplers import Ancestral, InformedCorrector, PredictorCorrector

ROWS = chains.Rows(32)
AT_A_TIME = 4096  # samples
CHOICES = {
    "random": dict(choose="random"),
    "entropy": dict(choose="entropy"),
    "informed, temperature 10": dict(temperature=10.0),
    "informed, temperature 1": dict(temperature=1.0),
    "informed, temperature 0.1": dict(temperature=0.1),
}


def record(method: str, seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train and measure."""
    began = time.time()
    network: dict[str, Any] = {"unroll": 2} if method == "mdlm" else {"mix_every": 1}
    e = ROWS.build(method, chosen.updates, dict(width=32, **network))
    params = ROWS.trained(e, seed, chosen.updates)
    spent = time.time() - began
    rules: dict[str, chains.Rule] = {
        "8 steps": (Ancestral(), 8, "sample"),
        "16 steps": (Ancestral(), 16, "sample"),
    }
    if method != "mdlm":
        for name, fields in CHOICES.items():
            corrector = InformedCorrector(positions=4, **fields)
            rules[f"8 steps, {name}"] = PredictorCorrector(corrector=corrector), 8, "sample"
    return {
        "method": method,
        "seed": seed,
        "train_s": round(spent, 1),
        "bound": ROWS.bound(e, params, 4096, 1),
        "rules": {
            name: ROWS.measured(e, params, rule, chosen.samples, AT_A_TIME)
            for name, rule in rules.items()
        },
    }


def main() -> None:
    """Fill and print the table."""
    methods = "mdlm,hollow,hollow_sic,hollow_lddm"
    chosen = chains.parser(__doc__, methods, updates=1500, samples=8192).parse_args()
    found = chains.records(chosen, record)
    print(f"\nTV of {chosen.samples} exact rows {ROWS.floor(chosen.samples):.4f}\n\n"
          f"{chains.table(found)}")  # fmt: skip


if __name__ == "__main__":
    main()
