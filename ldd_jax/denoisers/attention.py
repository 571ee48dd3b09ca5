"""Attention behind one function; `Attend` says who sees whom, kernels are chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from ldd_jax.core.checks import UserError, nearest
from ldd_jax.core.logical import constrain, pieces, split
from ldd_jax.core.types import Array, Attend
from ldd_jax.denoisers.masks import allowed

Kernel = Callable[..., Array]  # (q, k, v, segment, attend), all [B, L, heads, K]
FULL = Attend()
# Each device has its own positions of queries and results, and all positions of keys and values.
QUERIES, KEYS = ("batch", "length", "heads", None), ("batch", None, "heads", None)
BY_PLATFORM = "attention_by_platform"


def apart(qkv: Array) -> tuple[Array, Array, Array]:
    """Queries, keys and values, [B, L, heads, K] each, of [B, L, 3, heads, K].

    Nothing moves where heads are cut: each device has its own of all three.
    """
    qkv = constrain(qkv, "batch", "length", None, "heads", None)
    return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]


def grouped(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """Keys and values of every query head; a group of consecutive ones shares a key head.

    Args:
      q: [B, Lq, heads, K].
      k: [B, Lk, groups, K]; groups divide the heads.
      v: likewise.
    """
    each = q.shape[2] // k.shape[2]
    return (k, v) if each == 1 else (jnp.repeat(k, each, axis=2), jnp.repeat(v, each, axis=2))


def plain(
    q: Array, k: Array, v: Array, segment_BL: Array | None = None, attend: Attend = FULL
) -> Array:
    """softmax(q k^T / sqrt(K)) v, head-major, normalised after the value product.

    On CPU this runs several times as fast as the generic kernel: the softmax never divides an
    [L, L] array. Scores and sums in float32.

    Args:
      q: [B, L, heads, K].
      k: [B, L, groups, K]; the groups divide the heads, consecutive heads share one.
      v: likewise.
      segment_BL: number of each position's document, 0 = padding; None = one document.
      attend: who sees whom within it.

    Returns:
      [B, L, heads, K], in the type of `v`.
    """
    q, k, v = in_context(q, k, v)
    return masked(q, k, v, allowed(q.shape[1], segment_BL, attend))


def in_context(q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    """Queries, keys and values as they lie where positions are cut over a mesh.

    Each device has the scores of its own queries, and gathers the keys and values of all others.

    Args:
      q: [B, L, heads, K].
      k: [B, L, groups, K].
      v: likewise.
    """
    return constrain(q, *QUERIES), constrain(k, *KEYS), constrain(v, *KEYS)


def masked(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    """`plain` with any mask and no word on where it lies, such as that of a query against a cache.

    Args:
      q: [B, Lq, heads, K].
      k: [B, Lk, groups, K].
      v: [B, Lk, groups, K].
      mask: True where the query sees the key; None = all of them.

    Returns:
      [B, Lq, heads, K], in the type of `v`.
    """
    q, k, v = (jnp.swapaxes(a, 1, 2) for a in (q, *grouped(q, k, v)))
    return jnp.swapaxes(_attend(q, k, v, mask), 1, 2)


@jax.custom_vjp
def _attend(q, k, v, mask):
    return _attend_forward(q, k, v, mask)[0]


def _attend_forward(q, k, v, mask):
    """P = exp(S - max S), unnormalised, is kept: a CPU reads it faster than it forms it again."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    product = partial(jnp.einsum, preferred_element_type=wide)
    scores = product("bhqk,bhsk->bhqs", q * q.shape[-1] ** -0.5, k)
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    weight = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weight, axis=-1, keepdims=True)
    weight = weight.astype(v.dtype)
    out = (product("bhqs,bhsk->bhqk", weight, v) / total).astype(v.dtype)
    return out, (q, k, v, weight, total, out)


def _attend_backward(kept, d_out):
    """DV = A^T dO, dS = A (dO V^T - <dO, O>), dQ = dS K, dK = dS^T Q.

    The two products over queries are formed as [K, Lk]: with the few channels in front, a CPU
    needs no transposed copy of an [Lq, Lk] array.
    """
    q, k, v, weight, total, out = kept
    wide, scale = total.dtype, q.shape[-1] ** -0.5
    product = partial(jnp.einsum, preferred_element_type=wide)
    over_queries = lambda a, b: jnp.swapaxes(
        jax.lax.optimization_barrier(product("bhqk,bhqs->bhks", a, b)), -1, -2
    )
    d = d_out.astype(wide) / total
    inner = jnp.sum(d * out.astype(wide), axis=-1, keepdims=True)
    d = d.astype(v.dtype)
    d_scores = weight * (product("bhqk,bhsk->bhqs", d, v) - inner)
    d_scores = (d_scores * scale).astype(q.dtype)
    dq = product("bhqs,bhsk->bhqk", d_scores, k).astype(q.dtype)
    dk = over_queries(q, d_scores).astype(k.dtype)
    return dq, dk, over_queries(d, weight).astype(v.dtype), None


_attend.defvjp(_attend_forward, _attend_backward)


def fused(
    q: Array, k: Array, v: Array, segment_BL: Array | None = None, attend: Attend = FULL
) -> Array:
    """jax.nn.dot_product_attention as XLA compiles it: holds the scores, [B, heads, L, L].

    `q`, `k`, `v`, `segment_BL` and `attend` are those of `plain`.
    """
    return _library(*in_context(q, k, v), segment_BL, attend, "xla")


def cudnn(
    q: Array, k: Array, v: Array, segment_BL: Array | None = None, attend: Attend = FULL
) -> Array:
    """Flash attention of cuDNN on a GPU, which never holds the scores.

    float16 or bfloat16, channels of a head a multiple of 8 and at most 128; full and causal bring
    no array, segments and other masks one of [B, 1, L, L].

    `q`, `k`, `v`, `segment_BL` and `attend` are those of `plain`.

    Raises:
      ValueError: for another type or shape, with what to use.
    """
    if not for_cudnn(q):
        raise ValueError(
            f"cuDNN attention needs float16 or bfloat16 and at most 128 channels of a head, a "
            f"multiple of 8, not {q.dtype} and {q.shape[-1]}; use attention plain, fused or auto"
        )
    return _library(q, k, v, segment_BL, attend, "cudnn")


def for_cudnn(q: Array) -> bool:
    """Whether cuDNN takes queries of this type and shape."""
    return q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128


def _library(q, k, v, segment_BL, attend, implementation):
    causal = attend.kind == "causal"
    mask = allowed(q.shape[1], segment_BL, FULL if causal else attend)
    return jax.nn.dot_product_attention(
        q, k, v, mask=mask, is_causal=causal, implementation=implementation
    )


def splash(
    q: Array,
    k: Array,
    v: Array,
    segment_BL: Array | None = None,
    attend: Attend = FULL,
    *,
    interpret: bool = False,
) -> Array:
    """Pallas splash attention on a TPU; never holds an [L, L] array.

    The length must be a multiple of 128, and `attend` full, causal, or by blocks of a known size:
    these masks are functions of two places, which the kernel computes. Where positions are cut over
    a mesh, each device scores its own queries. `interpret` runs it without a TPU, for tests.

    `q`, `k`, `v` and `segment_BL` are those of `plain`.

    Raises:
      ValueError: for another length or kind of `attend`.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    from ldd_jax.denoisers.splash_masks import mask_of

    length = q.shape[1]
    if not attend.static:
        raise ValueError(
            f"splash attention sees all, what was before, or blocks of a known size, not "
            f"attend={attend.kind} by an array; use attention plain, fused or auto"
        )
    cut = pieces("length")
    if length % (128 * cut):
        raise ValueError(
            f"splash attention needs a length that is a multiple of 128 on each of {cut} pieces of "
            f"a row, not {length}"
        )
    fit = lambda length: next(b for b in (512, 256, 128) if length % b == 0)
    block_q, block = fit(length // cut), fit(length)
    sizes = kernels.BlockSizes(
        block_q=block_q, block_kv=block, block_kv_compute=block,
        block_q_dkv=block_q, block_kv_dkv=block, block_kv_dkv_compute=block,
        block_q_dq=block_q, block_kv_dq=block,
    )  # fmt: skip
    # A full mask is the same for all queries; the library cannot cut it, and it need not be.
    shards = 1 if attend.kind == "full" else cut
    mask = mask_of(attend, length // cut * shards, length)
    whole = kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * (q.shape[2] // pieces("heads"))),
        head_shards=1, q_seq_shards=shards, block_sizes=sizes, interpret=interpret,
    )  # fmt: skip
    # What the kernel knows of the mask, by [heads, queries, keys] in blocks or by query.
    known, structure = jax.tree.flatten(whole)
    by_query = "length" if shards > 1 else None
    places: list[tuple[str | None, ...]] = [
        (None, by_query, None) if a.ndim == 3 else (by_query,) for a in known
    ]
    k, v = grouped(q, k, v)
    segments = jnp.ones(q.shape[:2], jnp.int32) if segment_BL is None else segment_BL

    def own(q, k, v, q_segment, segment, *known):
        run = jax.tree.unflatten(structure, known)
        q, k, v = (jnp.swapaxes(a, 1, 2) for a in (q * q.shape[-1] ** -0.5, k, v))
        out = jax.vmap(run)(q, k, v, kernels.SegmentIds(q=q_segment, kv=segment))
        return jnp.swapaxes(out, 1, 2).astype(v.dtype)

    given = QUERIES, KEYS, KEYS, ("batch", "length"), ("batch", None), *places
    return split(own, given, QUERIES)(q, k, v, segments, segments, *known)


def by_platform(
    q: Array, k: Array, v: Array, segment_BL: Array | None = None, attend: Attend = FULL
) -> Array:
    """`splash` on a TPU, `cudnn` on a GPU, `plain` elsewhere; chosen when it is lowered.

    What `splash` does not understand is `plain` on a TPU too, what `cudnn` does not take `fused` on
    a GPU. cuDNN's kernel can be traced only where there is a GPU.

    `q`, `k`, `v`, `segment_BL` and `attend` are those of `plain`.
    """
    on_gpu = cudnn if for_cudnn(q) and "gpu" in {d.platform for d in jax.devices()} else fused
    if q.shape[1] % (128 * pieces("length")):
        return plain(q, k, v, segment_BL, attend)
    with jax.named_scope(BY_PLATFORM):
        return jax.lax.platform_dependent(
            q,
            k,
            v,
            segment_BL,
            attend,
            tpu=splash if attend.static else plain,
            cuda=on_gpu,
            default=plain,
        )


KERNELS: dict[str, Kernel] = {
    "plain": plain,
    "fused": fused,
    "cudnn": cudnn,
    "splash": splash,
    "auto": by_platform,
}


def kernel(name: str) -> Kernel:
    """The attention function called `name`.

    Raises:
      UserError: for an unknown name.
    """
    if name not in KERNELS:
        raise UserError(f"unknown attention {name!r}; {nearest(name, KERNELS)}")
    return KERNELS[name]
