"""The parts of launch/gpu.py: each returns its figures as a record; see there."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.types import Cond, as_batch
from ldd_jax.denoisers.attention import KERNELS
from ldd_jax.inference import generate
from ldd_jax.planning import chips, cost, plan
from ldd_jax.training import sharding
from ldd_jax.training import state as states

METHODS = ("mdlm", "lddm_m", "ar")
GIB = 2.0**30
ROOT = Path(__file__).resolve().parent.parent
VOCABULARY = 50_257
Record = dict[str, Any]


def experiment(method: str, batch: int, small: bool, **fields: Any) -> Any:
    """configs/openwebtext.py at this batch; no data are read."""
    spec = importlib.util.spec_from_file_location("recipe", ROOT / "configs" / "openwebtext.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    config = recipe.get_config(f"method={method},size={'tiny' if small else 'small'}")
    defaults = dict(
        training__batch_size=batch, model__dropout=0.0, model__remat="none", mesh__fsdp=1
    )
    if small:
        defaults |= dict(data__length=128, objective__tile=128, sampling__tile=64)
    return plan.build(
        plan.with_fields(config, **defaults | fields), 300 if small else VOCABULARY, None
    )


def arrays(e: Any, batch: int) -> Record:
    """A batch of random tokens on the devices."""
    shape = batch, e.config.data.length
    host = {
        "z0": np.random.default_rng(0).integers(0, 250, shape, np.int32),
        "keep": np.zeros(shape, bool),
        "weight": np.ones(shape, np.float32),
        "index": np.arange(batch, dtype=np.int32),
    }
    return sharding.put(e.mesh, host)


def lowered(e: Any, batch: int) -> Any:
    """The real update, donating the state."""
    like = states.abstract(e.model, e.update.optimizer, e.mesh)
    step = jax.jit(
        sharding.on(e.mesh, e.update),
        donate_argnums=0,
        out_shardings=(states.shardings(like), sharding.replicated(e.mesh)),
    )
    return step.lower(like, arrays(e, batch), e.key(1))


def timed(call: Callable[[], Any], repeats: int, warm: int = 2) -> float:
    """Median seconds of a call; what it returns is waited for."""
    spent = []
    for i in range(repeats + warm):
        began = time.perf_counter()
        jax.block_until_ready(call())
        spent += [time.perf_counter() - began] if i >= warm else []
    return statistics.median(spent)


def memory(compiled: Any) -> int:
    """Bytes that a program needs: what is given to it and what it keeps meanwhile."""
    found = compiled.memory_analysis()
    return int(found.argument_size_in_bytes + found.temp_size_in_bytes)


def fitting(method: str, small: bool) -> tuple[int, int | None]:
    """Largest batch in 92 % of the card, by the line through two small ones; its memory."""
    device = jax.devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if small or not limit:
        return 8, limit
    quick = {"xla_gpu_autotune_level": 0}
    one, two = (
        memory(lowered(experiment(method, b, small), b).compile(compiler_options=quick))
        for b in (8, 16)
    )
    slope = (two - one) / 8
    return int((0.92 * limit - (one - 8 * slope)) / slope) // 8 * 8, limit


def update(method: str, small: bool, given_batch: int = 0, **fields: Any) -> Record:
    """Updates a second at this batch, or at the largest that fits."""

    def measured(e: Any, batch: int) -> tuple[Any, float, float, list]:
        began = time.perf_counter()
        step = lowered(e, batch).compile()
        seconds = time.perf_counter() - began
        state = states.initial(e.model, e.update.optimizer, e.mesh, e.key(0))
        given, key, losses = arrays(e, batch), e.key(1), []

        def call():
            nonlocal state
            state, metrics = step(state, given, key)
            losses.append(metrics["loss"])
            return metrics

        return step, seconds, timed(call, 5 if small else 10), losses

    batch, limit = (given_batch, None) if given_batch else fitting(method, small)
    while True:
        e = experiment(method, batch, small, **fields)
        try:
            step, seconds, spent, losses = measured(e, batch)
            break
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or batch <= 8:
                raise
            batch = batch * 7 // 8 // 8 * 8
    operations = cost.step_count(e, batch).total
    peak = chips.peak(jax.devices())
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "batch": batch,
        "ms_per_update": 1000 * spent,
        "tokens_per_s": batch * e.config.data.length / spent,
        "operations_per_update": operations,
        "mfu": None if peak is None else operations / spent / peak,
        "program_gib": memory(step) / GIB,
        "peak_gib": stats.get("peak_bytes_in_use", 0) / GIB or None,
        "limit_gib": limit and limit / GIB,
        "compile_s": seconds,
        "losses": [float(losses[0]), float(losses[-1])],
    }


def shares(small: bool) -> Record:
    """An MDLM update in parts at one batch, and with other choices of what is compiled."""
    batch = 8 if small else 64
    e = experiment("mdlm", batch, small)
    params, given, key = e.model.init(e.key(0)), as_batch(arrays(e, batch)), e.key(1)
    clock = jnp.full(batch, 0.5)

    def trunk(params):
        features = e.model.bind(params).trunk(given.z0, Cond(clock=clock)).features
        return jnp.sum(features.astype(jnp.float32) ** 2)

    loss = lambda params: e.objective(e.model.bind(params), given, key).total
    optimize = lambda params, state: e.update.optimizer.update(params, state, params)
    state = jax.jit(e.update.optimizer.init)(params)
    parts = {
        "trunk forward": (jax.jit(trunk), params),
        "trunk forward and backward": (jax.jit(jax.grad(trunk)), params),
        "loss forward and backward": (jax.jit(jax.grad(loss)), params),
        "optimizer": (jax.jit(optimize), params, state),
    }
    out: Record = {
        f"{name} ms": 1000 * timed(partial(run, *args), 5 if small else 10)
        for name, (run, *args) in parts.items()
    }
    del params, state
    choices: dict[str, Record] = {
        "as configured": {},
        "layers unrolled": {"model__unroll": 3 if small else 12},
        "tile 8192": {"objective__tile": 8192},
        "remat full": {"model__remat": "full"},
    }
    kept = ("batch", "ms_per_update", "mfu", "program_gib", "compile_s")
    for name, fields in choices.items():
        found = update("mdlm", small, batch, **fields)
        out[name] = {k: found[k] for k in kept}
    return out


def attention(small: bool) -> Record:
    """Forward, and forward and backward, of every kernel of this machine; errors to float32."""
    shape = (2, 128, 2, 32) if small else (32, 1024, 12, 64)
    full = [jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(0), 4)]
    low = [a.astype(jnp.bfloat16) for a in full]
    documents = jnp.broadcast_to(jnp.arange(shape[1]) // (shape[1] // 3) + 1, shape[:2])

    def both(run, ids, q, k, v, d):
        value, back = jax.vjp(lambda *qkv: run(*qkv, ids), q, k, v)
        return value, back(d.astype(value.dtype))

    def measured(run, ids):
        forward, whole = (
            jax.jit(lambda q, k, v: run(q, k, v, ids)),
            jax.jit(partial(both, run, ids)),
        )
        with jax.default_matmul_precision("highest"):
            exact = jax.jit(partial(both, KERNELS["plain"], ids))(*full)
        norm = lambda a: jnp.linalg.norm(a.astype(jnp.float32))
        apart = jax.tree.map(lambda a, b: float(norm(a - b) / norm(b)), whole(*low), exact)
        return {
            "forward_ms": 1000 * timed(partial(forward, *low[:3]), 10),
            "both_ms": 1000 * timed(partial(whole, *low), 10),
            "error": max(jax.tree.leaves(apart)),
        }

    out: Record = {"shape": shape}
    for packed, ids in (("", None), ("packed ", documents)):
        for name, run in KERNELS.items():
            try:
                out[packed + name] = measured(run, ids)
            except Exception as error:  # a kernel of another machine
                out[packed + name] = {"refused": f"{type(error).__name__}: {error}"[:200]}
    return out


def sampling(small: bool) -> Record:
    """Tokens a second of the ancestral sampler."""
    batch = 4 if small else 64

    def one(method: str, steps: int) -> Record:
        e = experiment(method, batch, small, sampling__batch_size=batch)
        length = e.config.data.length
        params, nothing = e.model.init(e.key(0)), np.zeros(length, bool)
        sampler = generate.Sampler.make(e, e.sampling, length)
        call = lambda: sampler.batch(params, 1, 0, nothing, nothing, steps)[0]
        spent, state = timed(call, 2, warm=1), call()
        assert not bool((np.asarray(state.z) == e.tokens.mask).any())
        return {
            "batch": batch,
            "ms_per_call": 1000 * spent / float(np.mean(state.calls)),
            "tokens_per_s": batch * length / spent,
        }

    kinds = [(m, t) for m in ("mdlm", "lddm_m") for t in ((4, 8) if small else (64, 256))]
    return {f"{method} T={steps}": one(method, steps) for method, steps in kinds}


def torch(small: bool) -> Record:
    """The rival; see launch/gpu_torch.py."""
    import gpu_torch

    return {m: gpu_torch.measure(m, small) for m in METHODS[:2]}


def machine() -> Record:
    """What this ran on."""
    device = jax.devices()[0]
    return {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}


def part(name: str, small: bool) -> Record:
    """The figures of one part."""
    if name in METHODS:
        return update(name, small)
    if name in ("agreement", "fingerprint"):
        import gpu_agreement

        return getattr(gpu_agreement, name)(small)
    return {"shares": shares, "attention": attention, "sampling": sampling, "torch": torch}[name](
        small
    )
