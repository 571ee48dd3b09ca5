"""Forward passes of the DiT: passes, parts, soft input, classes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.types import Attend, Cond
from ldd_jax.denoisers import layers, transformer
from ldd_jax.interop import recorded, reference, sources
from tests.parity.golden import Golden
from tests.parity.runner import kind

NETWORK = 2e-5  # relative to the logit scale, float32


def network(golden: Golden, tensors: dict[str, np.ndarray], **choices: Any):
    """The denoiser the importer makes of these tensors; its sizes must be the manifest's."""
    c = golden.config()
    tensors, _ = sources.strip(tensors)
    timed = {} if "causal" in choices else {"time_conditioning": True}
    model, params = reference.network(
        tensors, golden.tokens(), heads=int(c["heads"]), **(timed | choices)
    )
    told = model.width, model.depth, model.tokens.size
    said = int(c["hidden"]), int(c["blocks"]), reference.states(tensors)
    assert told == said and (not model.adaln or model.cond_width == int(c["cond"])), (told, said)
    return model, model.bind(jax.tree.map(jnp.asarray, params))


def outputs(golden: Golden, model, denoiser) -> None:
    """Every recorded output that the importer's own comparison knows."""
    for name, ours in recorded.outputs(model, denoiser.params, golden.arrays):
        golden.check(name, lambda v=ours: v, NETWORK)


@kind("dit_lddm")
def loophole(golden: Golden) -> None:
    """Every pass with the latent carried, and the parts of the network one by one."""
    model, denoiser = network(golden, golden.weights())
    run = recorded.passer(model, denoiser.params)
    x, sigma = golden.given("x"), golden.given("sigma")
    outputs(golden, model, denoiser)
    if "x_soft" in golden:
        soft = run(golden.given("x_soft"), sigma)
        golden.check("logits_soft", lambda: soft[0], NETWORK)
        golden.check("latent_soft", lambda: soft[1], NETWORK)

    trunk = {"params": denoiser.params["trunk"]}
    part = lambda method, *args: transformer.Network(model).apply(trunk, *args, method=method)
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
        given = (inputs, 0, c, position, None, Attend(), None, None)
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
    golden.given("x"), golden.given("sigma")
    outputs(golden, *network(golden, golden.weights()))


@kind("dit_cfg")
def classes(golden: Golden) -> None:
    """With a class, with the no-class row, with no class term."""
    name = "cond_map.embedding_table.weight"
    table = golden.given(name)
    for given in ("x", "sigma", "label"):
        golden.given(given)
    outputs(golden, *network(golden, golden.weights() | {name: table}))
