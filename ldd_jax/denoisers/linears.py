"""Linear layers of pretrained networks, their low-rank adapters, and the vocabulary projection."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.products import linear
from ldd_jax.core.types import Array

# Of pretraining: a narrow normal law (GPT-2, Llama).
normal = nn.initializers.normal(0.02)
fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

# The layer that makes queries, keys and values at once, [D, 3, heads, K]: its heads are an axis, so
# that a mesh which cuts them need not move anything to tell the three apart.
QKV = "qkv"


def as_matrix(init: Callable) -> Callable:
    """An initialiser of [D, ...] that draws what it draws for a matrix of as many columns."""

    def make(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return init(key, (shape[0], math.prod(shape[1:])), dtype).reshape(shape)

    return make


def in_files(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a parameter in the files of others, where the outputs of a layer are one axis.

    Args:
      path: of the parameter.
      shape: of it here.
    """
    fused = QKV in path and path[-1] != "lora_a"
    return (*shape[:-3], math.prod(shape[-3:])) if fused else tuple(shape)


class Adapter(NamedTuple):
    """Low-rank updates of linear layers (LoRA, arXiv 2106.09685): W + (alpha / rank) A B.

    rank: columns of A, 0 = none; alpha: 0 = rank; targets: names of the layers.
    """

    rank: int = 0
    alpha: float = 0.0
    targets: tuple[str, ...] = ()

    @property
    def factor(self) -> float:
        """What A B is multiplied by."""
        return self.alpha / self.rank if self.alpha else 1.0


class Product(nn.Module):
    """x W [+ b] [+ factor x A B], as its name is a target of the adapter; B is zero at first."""

    features: int | tuple[int, ...]
    dtype: Any
    bias: bool
    adapter: Adapter

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., D] to [..., F]; F may be several axes."""
        outputs = (self.features,) if isinstance(self.features, int) else self.features
        make = lambda name, init, *shape: self.param(name, init, shape).astype(self.dtype)
        x = x.astype(self.dtype)
        y = linear(x, make("kernel", as_matrix(normal), x.shape[-1], *outputs))
        if self.bias:
            y = y + make("bias", nn.initializers.zeros, *outputs)
        if self.adapter.rank and self.name in self.adapter.targets:
            down = make("lora_a", fan_in, x.shape[-1], self.adapter.rank)
            up = make("lora_b", nn.initializers.zeros, self.adapter.rank, *outputs)
            y = y + self.adapter.factor * linear(linear(x, down), up)
        return y


def merged(params: Any, adapter: Adapter) -> Any:
    """Parameters of the same network without adapters: W + factor A B in the place of W.

    Args:
      params: of the network, arrays.
      adapter: of its config.
    """

    def one(tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        if "lora_a" not in tree:
            return {name: one(value) for name, value in tree.items()}
        a, b = (jnp.asarray(tree[n], jnp.float32) for n in ("lora_a", "lora_b"))
        kernel = tree["kernel"] + adapter.factor * jnp.einsum("ldr,lr...->ld...", a, b)
        kept = {n: v for n, v in tree.items() if not n.startswith("lora_")}
        return kept | {"kernel": kernel.astype(tree["kernel"].dtype)}

    return one(params)


@struct.dataclass
class Projection:
    """logits = features W, accumulated in float32; the first `size` of them, 0 = all.

    W [D, V] is its own or the token table's.
    """

    kernel: Array
    size: int = struct.field(pytree_node=False, default=0)

    def __call__(self, features_ND: Array) -> Array:
        """[N, D] to [N, V], float32."""
        kind = features_ND.dtype
        wide = jnp.promote_types(kind, jnp.float32)
        logits = linear(features_ND, self.kernel.astype(kind), wide)
        return logits[..., : self.size] if self.size else logits
