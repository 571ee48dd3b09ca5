"""Tokens and a signal together (Multi-Flow, arXiv 2402.04997), and a student of few steps.

Command:   python -m ldd_jax train --config=configs/joint.py --workdir=runs/joint
           python -m ldd_jax sample --workdir=runs/joint --num_samples=8192 --output=pairs.jsonl
           python -m ldd_jax train --config=configs/joint.py:method=given,from=runs/joint \
               --config.data.path=pairs.jsonl --workdir=runs/student
           (method=joint|lddm_joint, of their own pairs given|lddm_given; data=chain|pairs|shapes,
           the last two with --config.data.path=FILE; noise=N of the chain, channels=C of pairs)
Hardware:  two CPU cores; minutes at size=tiny.
Expected:  not run yet at length (docs/joint.md).
"""

from ldd_jax.config.recipes import arguments, make
from ldd_jax.core.checks import is_whole, nearest, require
from ldd_jax.core.registry import section
from ldd_jax.data import ChainData, PairData, ShapeData
from ldd_jax.processes import Interpolant

SOURCES = {"chain": ChainData, "pairs": PairData, "shapes": ShapeData}
METHODS = ("joint", "lddm_joint", "given", "lddm_given")


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    usual = {"data": "chain", "noise": "0.5", "channels": "6", "from": ""}
    chosen = arguments(argument, method="joint", size="tiny", **usual)
    data, noise, channels, teacher = (chosen.pop(n) for n in usual)
    method, joint = chosen["method"], chosen["method"].endswith("joint")
    require(method in METHODS, f"method {method!r} has no signal; {nearest(method, METHODS)}")
    require(data in SOURCES, f"unknown data {data!r}; {nearest(data, SOURCES)}")
    require(is_whole(channels, 1), f"channels={channels}; it must be 1 or more")
    number = float(noise) if noise.replace(".", "", 1).isdigit() else 0
    require(number > 0, f"noise={noise}; it must be above 0")
    fields = dict(chain=dict(noise=number), pairs=dict(channels=int(channels)), shapes={})[data]
    model = dict(channels=6 if data == "shapes" else int(channels))
    length = 64 if data == "shapes" else 32
    if teacher:
        from ldd_jax.inference.students import of_teacher

        length, model = of_teacher(teacher)
        data, fields = "pairs", dict(channels=model["channels"])
    small = chosen["size"] == "tiny" and not teacher
    model |= dict(width=64, depth=3, heads=4, cond_width=32, unroll=3) if small else {}
    return make(
        chosen,
        source=SOURCES[data],
        data=fields | dict(length=length),
        model=model,
        process=dict(signal=section(Interpolant, channels=model["channels"])) if joint else {},
        optim=dict(lr=3e-4 if teacher else 2e-3, warmup_steps=100, decay="cosine", b2=0.99),
        training=dict(
            num_steps=1500 if teacher else 6000,
            batch_size=64,
            ema_decay=0.999,
            log_every=100,
            checkpoint_every=2000,
            initial=teacher,
        ),
        sampling=dict(num_steps=64, num_samples=4),
    )
