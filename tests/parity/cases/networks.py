"""Forward passes of the DiT: passes, parts, soft input, classes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.types import Cond
from ldd_jax.denoisers import DiT, dit, layers
from ldd_jax.interop.reference import from_reference
from tests.parity.golden import Golden
from tests.parity.runner import kind

NETWORK = 2e-5  # relative to the logit scale, float32


def network(golden: Golden, tensors: dict[str, np.ndarray], **choices: Any):
    """The denoiser of these tensors; sizes from the manifest, choices on top."""
    c = golden.config()
    hidden = int(c["hidden"])
    model = DiT(
        tokens=golden.tokens(),
        width=hidden,
        depth=int(c["blocks"]),
        heads=int(c["heads"]),
        cond_width=int(c["cond"]),
        mlp_ratio=tensors["blocks.0.mlp.0.weight"].shape[0] // hidden,
        **({"latent": "layer_norm.weight" in tensors, "time_conditioning": True} | choices),
    )
    params = from_reference(tensors, jax.eval_shape(model.init, jax.random.key(0)))
    return model, model.bind(jax.tree.map(jnp.asarray, params))


def passer(denoiser):
    """(z, sigma, h) -> (logits, latent), compiled."""

    @jax.jit
    def run(z, sigma, h, label=None):
        trunk = denoiser.trunk(z, Cond(clock=sigma, label=label), h)
        return denoiser.head(trunk.features), trunk.latent

    return run


@kind("dit_lddm")
def loophole(golden: Golden) -> None:
    """Every pass with the latent carried, and the parts of the network one by one."""
    model, denoiser = network(golden, golden.weights())
    run = passer(denoiser)
    x, sigma = golden.given("x"), golden.given("sigma")
    for tail, clock in (("", sigma), ("_notime", np.zeros_like(sigma))):
        h, i = None, 0
        while f"logits_{i}{tail}" in golden or f"latent_{i}{tail}" in golden:
            logits, h = run(x, clock, h)
            golden.check(f"logits_{i}{tail}", lambda v=logits: v, NETWORK)
            golden.check(f"latent_{i}{tail}", lambda v=h: v, NETWORK)
            i += 1
    if "x_soft" in golden:
        soft = run(golden.given("x_soft"), sigma, None)
        golden.check("logits_soft", lambda: soft[0], NETWORK)
        golden.check("latent_soft", lambda: soft[1], NETWORK)

    trunk = {"params": denoiser.params["trunk"]}
    part = lambda method, *args: dit.Network(model).apply(trunk, *args, method=method)
    first = jax.tree.map(lambda a: a[0], denoiser.params["trunk"]["blocks"])
    block = layers.Block(
        width=model.width,
        heads=model.heads,
        mlp_ratio=model.mlp_ratio,
        dropout=0.0,
        dtype=jnp.float32,
        attention=model.attention,
    )

    def block0(inputs):
        c = part("conditioning", Cond(clock=sigma), x.shape[0])
        position = jnp.arange(x.shape[1])
        given = (inputs, 0, c, position, None, None, None)
        return block.apply({"params": first}, *given, method="one")[0]

    golden.check("time_features", lambda: layers.time_features(jnp.asarray(sigma)), 5e-6)
    golden.check("time_cond", lambda: part("conditioning", Cond(clock=sigma), x.shape[0]), 2e-6)
    if "latent_0" in golden:
        golden.check("embed_plus_loop", lambda: part("inputs", x, golden.given("latent_0")), 2e-6)
    table = denoiser.params["trunk"]["embed"]["table"]
    golden.check("block0_out", lambda: block0(table[x]), NETWORK)
    if "latent_tiny" in golden:
        tiny = golden.given("latent_tiny")
        golden.check("logits_tiny", lambda: run(x, sigma, tiny)[0], NETWORK)
        # Tighter: a small input, on which a wrong epsilon of the first norm shows.
        golden.check("block0_tiny_out", lambda: block0(tiny), 5e-6)


@kind("dit_plain")
def plain(golden: Golden) -> None:
    """MDLM's and UDLM's network."""
    run = passer(network(golden, golden.weights())[1])
    x, sigma = golden.given("x"), golden.given("sigma")
    golden.check("logits", lambda: run(x, sigma, None)[0], NETWORK)
    golden.check("logits_notime", lambda: run(x, np.zeros_like(sigma), None)[0], NETWORK)


@kind("dit_cfg")
def classes(golden: Golden) -> None:
    """With a class, with the no-class row, with no class term."""
    name = "cond_map.embedding_table.weight"
    table = golden.given(name)
    number = table.shape[0] - 1
    run = passer(network(golden, golden.weights() | {name: table}, num_classes=number)[1])
    x, sigma, label = (golden.given(n) for n in ("x", "sigma", "label"))
    golden.check("logits_cond", lambda: run(x, sigma, None, label)[0], NETWORK)
    none = np.full_like(label, number)
    golden.check("logits_uncond", lambda: run(x, sigma, None, none)[0], NETWORK)
    golden.check("logits_nocond", lambda: run(x, sigma, None)[0], NETWORK)
