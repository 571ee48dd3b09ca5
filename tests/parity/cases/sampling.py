"""Whole sampling runs replayed from their uniforms, and the deterministic unroll."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.draws import Replay
from ldd_jax.core.types import Cond
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import Ancestral, LinearGrid, SampleState, sample
from ldd_jax.samplers.net import Net
from tests.parity.cases.networks import NETWORK, network
from tests.parity.golden import Golden, finite_logs, normalise
from tests.parity.runner import kind

GRID_END = [r"linspace\(1, (\d[\d.e-]*)"]


@kind("sampler_mdlm", "sampler_udlm", "sampler_lddm_m", "sampler_lddm_u")
def replay(golden: Golden) -> None:
    """Tokens and latents of every step, and the three recorded tables."""
    with jax.enable_x64(True):
        _replay(golden)


def _replay(golden: Golden) -> None:
    uniform = golden.kind in ("sampler_udlm", "sampler_lddm_u")
    process = (Uniform if uniform else Masked)(tokens=golden.tokens())
    timed = bool(golden.meta["time_conditioning"])
    _, denoiser = network(golden, golden.weights(), time_conditioning=timed)
    net = Net(denoiser, process)
    u, tokens = golden.given("u"), golden.given("tokens")
    steps = u.shape[0] - 1
    grid = LinearGrid(end=golden.number(GRID_END, [], golden.meta.get("about", ""), 1e-5))
    prior = jnp.asarray(tokens[0])
    last, (z, h) = jax.jit(
        lambda draw, prior: sample(
            net,
            Ancestral(),
            draw,
            (prior, jnp.ones(prior.shape[0])),
            steps,
            grid=grid,
            record=lambda s: (s.z, s.h),
        )
    )(Replay(table=jnp.asarray(u)), prior)
    z = jnp.concatenate([prior[None], z, last.z[None]])
    golden.check("tokens", lambda: z, 0.0)
    if "latents" in golden:
        # The reference makes its last call for every row. Here a row without a mask has no such
        # call, and its latent is made for the comparison.
        end = SampleState(
            z=z[-2],
            clock=jnp.full(prior.shape[:1], grid(jnp.asarray(float(steps)), steps)),
            free=jnp.ones(prior.shape, bool),
            h=h[-1],
            calls=jnp.zeros(prior.shape[0], jnp.int32),
        )
        tail = jax.jit(lambda state: net.trunk(state).latent)(end)
        called = (last.calls > steps)[:, None, None]
        h = jnp.concatenate([h, jnp.where(called, last.h, tail)[None]])
        golden.check("latents", lambda: h, NETWORK)

    @jax.jit
    def law(state, t, s):
        fn = lambda pred, z, t, s: process.log_posterior(pred, z, t, s)
        state = state._replace(clock=t)
        return net.rows(fn, net.trunk(state), state.z, t, jnp.repeat(s, prior.shape[1]))

    def table(i: int):
        """Law of step i from the recorded state; noise removal is a step to s = 0."""
        state = SampleState(
            z=jnp.asarray(tokens[i]),
            clock=None,
            free=jnp.ones(prior.shape, bool),
            h=None if h is None else jnp.zeros_like(h[0]) if i == 0 else h[i - 1],
            calls=jnp.zeros(prior.shape[0], jnp.int32),
        )
        t, s = (grid(jnp.asarray(float(j)), steps) for j in (i, i + 1))
        s = jnp.zeros_like(t) if i == steps else s
        spread = lambda a: jnp.broadcast_to(a, prior.shape[:1])
        return np.exp(np.asarray(law(state, spread(t), spread(s))))

    named = re.search(r"step (\d+)", golden.meaning("table_mid"))
    middle = int(named.group(1)) if named else steps // 2
    for name, i in (("table_first", 0), ("table_mid", middle), ("table_last", steps)):
        # Unmasked rows of a masked table are overwritten by a copy in the reference; in the last
        # step they are one-hot.
        every = uniform or i == steps
        rows = np.ones(prior.shape, bool) if every else tokens[i] == process.tokens.mask
        golden.check(name, lambda i=i: table(i), 5e-6, prepare=normalise, where=rows)


@kind("greedy_lddm_m")
def greedy(golden: Golden) -> None:
    """Reveal the arg-max tokens at given places, latent carried, without and with time."""
    when, t = golden.given("when"), golden.given("t")
    process = Masked(tokens=golden.tokens())
    for tail, timed in (("", False), ("_time", True)):
        if f"tokens{tail}" not in golden:
            continue
        _, denoiser = network(golden, golden.weights(), time_conditioning=timed)

        @jax.jit
        def step(z, clock, h, denoiser=denoiser):
            trunk = denoiser.trunk(z, Cond(clock=process.conditioning(clock)), h)
            rows = denoiser.head(trunk.features.reshape(-1, trunk.features.shape[-1]))
            logp = process.read(rows, z.reshape(-1), None).reshape(*z.shape, -1)
            return logp, trunk.latent

        z, h = jnp.asarray(golden.arrays[f"tokens{tail}"][0]), None
        path, latents, logps = [z], [], []
        for i in range(t.shape[0]):
            logp, h = step(z, jnp.full(z.shape[0], t[i]), h)
            z = jnp.where(when == i, jnp.argmax(logp, -1).astype(z.dtype), z)
            path, latents, logps = [*path, z], [*latents, h], [*logps, logp]
        golden.check(f"tokens{tail}", lambda p=path: np.stack(p), 0.0)
        golden.check(f"latents{tail}", lambda a=latents: np.stack(a), NETWORK)
        at = dict(prepare=finite_logs, relative=False)
        golden.check(f"logp_first{tail}", lambda a=logps: a[0], NETWORK, **at)
        golden.check(f"logp_last{tail}", lambda a=logps: a[-1], NETWORK, **at)
