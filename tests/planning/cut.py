"""Gradients of networks whose heads or positions are cut: python -m tests.planning.cut FOLDER."""

from __future__ import annotations

import json
import math
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.sharding import Mesh

from ldd_jax.core.types import Attend, Cond, TokenSpace
from ldd_jax.core.vocabulary_tiles import rows_loss
from ldd_jax.denoisers import GPT2, DiT, attention
from ldd_jax.denoisers.linears import Projection
from ldd_jax.planning import hlo
from ldd_jax.training import sharding

BATCH, LENGTH = 8, 16
SIZES = dict(tokens=TokenSpace(size=16, mask=15), width=32, depth=2, heads=8)
MODELS = {"dit": DiT(**SIZES), "gpt2": GPT2(**SIZES, positions=LENGTH)}
MESHES = {
    "tensor4": dict(data=2, tensor=4),
    "tensor8": dict(tensor=8),
}
KINDS = {"full": Attend(), "causal": Attend("causal"), "block": Attend("block", size=256)}
KERNEL = partial(attention.splash, interpret=True)


def gradient(model, mesh: Mesh) -> str:
    """The compiled program of a trunk and its gradient on a mesh."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    like = lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place)
    params = jax.tree.map(like, shapes, sharding.parameters(mesh, model.axes()))
    z = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32, sharding=sharding.batch(mesh))

    def loss(params, z):
        return jnp.sum(model.bind(params).trunk(z, Cond()).features ** 2)

    run = jax.jit(jax.grad(sharding.on(mesh, loss)))
    return run.lower(params, z).compile().as_text()


def slopes(kernel, attend: Attend, segment, q, k, v):
    """Result and gradients of a kernel."""
    loss = lambda *given: jnp.sum(jnp.sin(kernel(*given, segment, attend)))
    return jax.value_and_grad(loss, argnums=(0, 1, 2))(q, k, v)


def visited(jaxpr) -> list[int]:
    """Blocks of scores that each Pallas kernel in a program goes through, on one device."""
    found = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "pallas_call":
            found.append(math.prod(eqn.params["grid_mapping"].grid))
            continue
        for inner in core.jaxprs_in_params(eqn.params):
            found += visited(inner)
    return found


def blocks(cut: int) -> list[int]:
    """`visited` of a row of 2,048 positions on so many devices."""
    mesh = sharding.MeshShape(data=1, sequence=cut).make(jax.devices()[:cut])
    like = jax.ShapeDtypeStruct((1, 2048, 1, 64), jnp.float32)
    run = sharding.on(mesh, partial(slopes, KERNEL, Attend(), None))
    return visited(jax.make_jaxpr(run)(like, like, like).jaxpr)


def apart(kind: str) -> list[float]:
    """The largest difference between splash on eight devices and `plain` on one."""
    draw = lambda i: jax.random.normal(jax.random.key(i), (2, 512, 2, 64))
    q, k, v = map(draw, range(3))
    segment = jnp.broadcast_to(1 + (jnp.arange(512) >= 200), (2, 512))
    mesh = sharding.MeshShape(data=1, tensor=2, sequence=4).make()
    run = lambda kernel: partial(slopes, kernel, KINDS[kind], segment)
    want = jax.jit(run(attention.plain))(q, k, v)[1]
    found = jax.jit(sharding.on(mesh, run(KERNEL)))(q, k, v)[1]
    return [float(jnp.abs(a - b).max()) for a, b in zip(want, found)]


def head(mesh: Mesh) -> str:
    """The compiled program of the tiled loss and its gradients, of features cut by position."""
    place = jax.NamedSharding(mesh, jax.P(None, "sequence"))
    like = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)

    def loss(x, w, kernel):
        flat = lambda a: a.reshape(-1, *a.shape[2:])
        fn = lambda logits, _: jax.nn.logsumexp(logits, -1)
        return rows_loss(fn, Projection(kernel), flat(x), (), flat(w), tile=2, length=LENGTH)[0]

    run = jax.jit(jax.grad(sharding.on(mesh, loss), argnums=(0, 2)), out_shardings=(place, None))
    whole = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=sharding.replicated(mesh))
    return run.lower(like(2, LENGTH, 8), like(2, LENGTH), whole).compile().as_text()


def head_between() -> list:
    """The head's gradient as it waits for the backward pass: its share, and who waits for it."""
    mesh = sharding.MeshShape(data=1, fsdp=4, tensor=2).make()

    def loss(kernel, x, w):
        fn = lambda logits, _: jax.nn.logsumexp(logits, -1)
        return rows_loss(fn, Projection(kernel), x, (), w, tile=2, groups=4)[0]

    def forward(kernel, x, w):
        return jax.tree.leaves(jax.vjp(loss, kernel, x, w)[1])

    rows = jax.device_put(jnp.ones((32, 8)), sharding.batch(mesh))
    run = jax.jit(sharding.on(mesh, forward))
    given = jnp.ones((8, 16)), rows, jnp.ones(32)
    held = [a.sharding.shard_shape(a.shape) for a in run(*given) if a.shape == (8, 16)]
    return [held, run.lower(*given).as_text().count("optimization_barrier")]


def main(path: Path) -> None:
    """Write the collectives by kind of each network on each mesh, and what `blocks` .. find."""
    meshes = {name: sharding.MeshShape(**shape).make() for name, shape in MESHES.items()}
    tensor = {
        f"{kind} {name}": hlo.Program.read(gradient(model, mesh)).collectives()
        for kind, model in MODELS.items()
        for name, mesh in meshes.items()
    }
    sequence = sharding.MeshShape(data=1, sequence=8).make()
    out = {
        "tensor": tensor,
        "blocks": {cut: blocks(cut) for cut in (1, 2, 4)},
        "apart": {kind: apart(kind) for kind in KINDS},
        "between": head_between(),
        "head": hlo.Program.read(head(sequence)).collectives(),
        "trunk": {
            name: hlo.Program.read(gradient(model, sequence)).collectives()
            for name, model in MODELS.items()
        },
    }
    path.write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "found.json")
