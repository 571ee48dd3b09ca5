"""Training trajectories: losses, gradients, weights and moving averages of a few real updates."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ldd_jax.core.types import Cond, as_batch
from ldd_jax.interop.reference import to_reference
from ldd_jax.objectives import Nelbo, NoContext, OfData, PseudoContext
from ldd_jax.processes import Masked, Uniform
from ldd_jax.training.optimizers import AdamW
from ldd_jax.training.state import TrainState
from ldd_jax.training.step import Update
from tests.parity.cases.networks import network
from tests.parity.golden import Golden
from tests.parity.runner import kind

LOSS, GRADIENT = 2e-5, 2e-5
LARGEST_STEP, MEAN_STEP = 0.1, 1e-4  # shares of the learning rate
NUMBER = r"\s*=?\s*(\d[\d.e-]*\d|\d)"


def optimizer(golden: Golden) -> tuple[AdamW, float]:
    """AdamW and EMA decay as the text or the config says; nothing is assumed."""
    text = golden.meta.get("about", "")
    read = lambda keys, *patterns, default=None: golden.number(list(patterns), keys, text, default)
    clip_off = "no clipping" in text or "not clipped" in text
    config = AdamW(
        lr=read(["lr", "learning_rate"], r"\blr" + NUMBER),
        b1=read(["beta1", "b1"], r"betas" + NUMBER),
        b2=read(["beta2", "b2"], r"betas [\d.]+\s*[/,]" + NUMBER),
        eps=read(["adam_eps"], r"betas [^;]*?eps" + NUMBER),
        weight_decay=read(["weight_decay", "wd"], r"weight[ _]decay" + NUMBER),
        clip_norm=0.0 if clip_off else read(["clip_norm", "clip"], r"clip[^;]*?norm" + NUMBER),
        warmup_steps=int(read(["warmup_steps", "warmup"], r"warm-?up" + NUMBER, default=0)),
    )
    return config, read(["ema", "ema_decay"], r"EMA decay" + NUMBER)


def compare(golden: Golden, name: str, ours, largest: float, mean: float) -> None:
    """A whole parameter tree against a weight file: the largest error, and the mean one.

    Adam turns a gradient near its epsilon into a step of any sign, so that single entries differ
    by a per cent of a step; the mean shows what those would hide, such as weight decay.
    """
    theirs = golden.weights(name)
    mine = to_reference(ours)
    names = set(theirs) - {"rotary_emb.inv_freq"}
    if names != set(mine):
        golden.enter(name, np.inf, 0.0, f"other names: {sorted(names ^ set(mine))[:4]}")
        return
    errors = {n: np.abs(mine[n] - theirs[n]) for n in names}
    worst = max(sorted(names), key=lambda n: float(np.max(errors[n])))
    every = np.concatenate([e.ravel() for e in errors.values()])
    golden.enter(name, np.max(every), largest, f"worst: {worst}")
    golden.enter(f"{name} (mean)", np.mean(every), mean)


@kind("train_lddm_m", "train_lddm_u", "train_mdlm", "train_udlm")
def trajectory(golden: Golden) -> None:
    """The production update on given corrupted tokens."""
    x0, xt, t, valid = (golden.given(n) for n in ("x0", "xt", "t", "valid"))
    uniform = golden.kind in ("train_lddm_u", "train_udlm")
    context = PseudoContext(p=1.0) if "lddm" in golden.kind else NoContext()
    process = (Uniform if uniform else Masked)(tokens=golden.tokens())
    model, denoiser = network(
        golden, golden.weights("init"), time_conditioning=bool(golden.meta["time_conditioning"])
    )
    config, decay = optimizer(golden)
    adam = config.make()
    objective = Nelbo(context=context, process=process)
    batch, length = x0.shape[1:]

    @dataclasses.dataclass
    class Fixed(OfData):
        """Tokens that are corrupted already."""

        z: Any
        clock: Any

        def __call__(self, denoiser, b, key):
            return objective.score(denoiser, b, self.z, self.clock, jnp.ones(batch), key, None)

    # The first link of the chain remembers the gradients, so that they are compiled only once.
    remember = optax.GradientTransformation(
        lambda params: params, lambda updates, state, params=None: (updates, updates)
    )
    chain = optax.chain(remember, adam)

    @jax.jit
    def update(state, arrays, z, clock):
        return Update(model, Fixed(z, clock), chain, decay)(state, arrays, jax.random.key(0))

    def arrays_of(i):
        return {
            "z0": jnp.asarray(x0[i]),
            "keep": jnp.zeros((batch, length), bool),
            "weight": jnp.asarray(valid[i]),
            "index": jnp.arange(batch),
        }

    params = denoiser.params
    state = TrainState(jnp.zeros((), jnp.int32), params, params, chain.init(params))
    losses, norms, first = [], [], None
    for i in range(x0.shape[0]):
        state, metrics = update(state, arrays_of(i), jnp.asarray(xt[i]), jnp.asarray(t[i]))
        losses, norms = [*losses, metrics["loss"]], [*norms, metrics["grad_norm"]]
        first = state.opt_state[0] if i == 0 else first

    @jax.jit
    def first_losses(params):
        denoiser, clock = model.bind(params), jnp.asarray(t[0])
        key, z = jax.random.key(0), jnp.asarray(xt[0])
        cond = Cond(clock=process.conditioning(clock))
        h = context(denoiser, z, cond, None, key, jnp.arange(batch))
        features = denoiser.trunk(z, cond, h).features
        rows = [jnp.asarray(a[0]).reshape(-1) for a in (x0, xt)]
        logits = denoiser.head(features.reshape(batch * length, -1))
        each = process.bound(logits, *rows, jnp.repeat(clock, length)).reshape(batch, length)
        return each, Fixed(z, clock)(denoiser, as_batch(arrays_of(0)), key).metrics["loss_B"]

    if "per_token_0" in golden:
        per_token, per_example = first_losses(params)
        golden.check("per_token_0", lambda: per_token, LOSS, each=True)
        theirs = (golden.arrays["per_token_0"] * valid[0]).sum(-1)
        error = np.max(np.abs(per_example - theirs) / np.maximum(1, np.abs(theirs)))
        golden.enter("per_token_0 summed by Nelbo", error, LOSS, "relative")
    golden.check("loss", lambda: np.stack(losses), LOSS)
    golden.check("grad_norm", lambda: np.stack(norms), LOSS)
    peak = max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(first))
    compare(golden, "grad0", first, GRADIENT * peak, 0.1 * GRADIENT * peak)
    for name, ours in (("final", state.params), ("ema", state.ema)):
        compare(golden, name, ours, LARGEST_STEP * config.lr, MEAN_STEP * config.lr)
