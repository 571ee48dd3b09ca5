"""The network and losses once more, in float64 numpy, from the golden sets' conventions alone.

Shares no line with the package: the parity runner is tested against it where no golden set is.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layer_norm(x, weight, bias=0.0):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def rotate(x):
    """Half-split rotary over [B, L, H, K]."""
    length, half = x.shape[1], x.shape[-1] // 2
    out = np.empty_like(x)
    for position in range(length):
        for k in range(half):
            angle = position * 10000.0 ** (-k / half)
            a, b = x[:, position, :, k], x[:, position, :, k + half]
            out[:, position, :, k] = a * np.cos(angle) - b * np.sin(angle)
            out[:, position, :, k + half] = b * np.cos(angle) + a * np.sin(angle)
    return out


def features(sigma):
    angle = sigma[:, None] * np.exp(-np.log(10000) * np.arange(128) / 128)
    return np.concatenate([np.cos(angle), np.sin(angle)], 1)


def conditioning(w, sigma):
    x = features(sigma) @ w["sigma_map.mlp.0.weight"].T + w["sigma_map.mlp.0.bias"]
    return silu(silu(x) @ w["sigma_map.mlp.2.weight"].T + w["sigma_map.mlp.2.bias"])


def block(w, i, x, c, heads):
    p = lambda name: w[f"blocks.{i}.{name}"]
    m = (c @ p("adaLN_modulation.weight").T + p("adaLN_modulation.bias"))[:, None]
    shift1, scale1, gate1, shift2, scale2, gate2 = np.split(m, 6, -1)
    y = layer_norm(x, p("norm1.weight")) * (1 + scale1) + shift1
    q, k, v = np.split(y @ p("attn_qkv.weight").T, 3, -1)
    shape = (*x.shape[:2], heads, x.shape[2] // heads)
    q, k, v = rotate(q.reshape(shape)), rotate(k.reshape(shape)), v.reshape(shape)
    scores = np.exp(log_softmax(np.einsum("bqhk,bshk->bhqs", q, k) / np.sqrt(shape[-1])))
    y = np.einsum("bhqs,bshk->bqhk", scores, v).reshape(x.shape) @ p("attn_out.weight").T
    x = x + gate1 * y
    y = layer_norm(x, p("norm2.weight")) * (1 + scale2) + shift2
    y = gelu(y @ p("mlp.0.weight").T + p("mlp.0.bias")) @ p("mlp.2.weight").T + p("mlp.2.bias")
    return x + gate2 * y


def forward(w, x, sigma, h, heads):
    """(logits, latent) of one pass."""
    w = {n: np.asarray(a, np.float64) for n, a in w.items()}
    e = w["vocab_embed.embedding"][x]
    if "layer_norm.weight" in w:
        h = np.zeros_like(e) if h is None else h
        e = e + layer_norm(h, w["layer_norm.weight"], w["layer_norm.bias"])
    c = conditioning(w, sigma)
    depth = 1 + max(int(n.split(".")[1]) for n in w if n.startswith("blocks."))
    for i in range(depth):
        e = block(w, i, e, c, heads)
    last = "output_layer."
    m = c @ w[last + "adaLN_modulation.weight"].T + w[last + "adaLN_modulation.bias"]
    shift, scale = np.split(m[:, None], 2, -1)
    y = layer_norm(e, w[last + "norm_final.weight"]) * (1 + scale) + shift
    return y @ w[last + "linear.weight"].T + w[last + "linear.bias"], e


def random_weights(rng, c, loop=True, scale=0.3):
    """Random tensors under the reference's names."""
    d, cond, v = c["hidden"], c["cond"], c["V"]
    shapes = {
        "vocab_embed.embedding": (v, d),
        "sigma_map.mlp.0.weight": (cond, 256),
        "sigma_map.mlp.0.bias": (cond,),
        "sigma_map.mlp.2.weight": (cond, cond),
        "sigma_map.mlp.2.bias": (cond,),
        "output_layer.norm_final.weight": (d,),
        "output_layer.linear.weight": (v, d),
        "output_layer.linear.bias": (v,),
        "output_layer.adaLN_modulation.weight": (2 * d, cond),
        "output_layer.adaLN_modulation.bias": (2 * d,),
    }
    for i in range(c["blocks"]):
        shapes |= {
            f"blocks.{i}.{n}": s
            for n, s in {
                "norm1.weight": (d,),
                "attn_qkv.weight": (3 * d, d),
                "attn_out.weight": (d, d),
                "norm2.weight": (d,),
                "mlp.0.weight": (4 * d, d),
                "mlp.0.bias": (4 * d,),
                "mlp.2.weight": (d, 4 * d),
                "mlp.2.bias": (d,),
                "adaLN_modulation.weight": (6 * d, cond),
                "adaLN_modulation.bias": (6 * d,),
            }.items()
        }
    if loop:
        shapes |= {"layer_norm.weight": (d,), "layer_norm.bias": (d,)}
    return {
        n: rng.normal(0, scale, s).astype(np.float32) + ("norm" in n) for n, s in shapes.items()
    }


def udlm_closed_form(logits, x0, z, t, alpha, eps):
    """The published closed form, term by term, float64."""
    v = logits.shape[-1]
    hot = lambda a: np.eye(v)[a]
    a = alpha[:, None, None]
    true, model = v * a * hot(x0) + 1 - a, v * a * np.exp(log_softmax(logits)) + 1 - a
    at = lambda q: np.take_along_axis(q, z[..., None], -1)
    inner = true / at(true) * (np.log(at(model)) - np.log(model) + np.log(true) - np.log(at(true)))
    bracket = v / at(true)[..., 0] - v / at(model)[..., 0] - inner.sum(-1)
    return -(1 - eps) / (v * alpha[:, None]) * bracket


def write_set(folder: Path, seed: int = 5) -> None:
    """A small golden set: other sizes, a mask that is not the last token, suffix `_b`."""
    rng = np.random.default_rng(seed)
    c = {"hidden": 24, "blocks": 3, "heads": 2, "cond": 10, "V": 13, "mask": 4, "L": 7, "B": 3}
    w = random_weights(rng, c)
    x = rng.integers(0, c["V"], (c["B"], c["L"])).astype(np.int32)
    sigma = rng.uniform(0.1, 5, c["B"])
    arrays = {"x": x, "sigma": sigma.astype(np.float32)}
    h = None
    for i in range(4):
        arrays[f"logits_{i}"], h = forward(w, x, arrays["sigma"].astype(float), h, c["heads"])
        arrays[f"latent_{i}"] = h
    logits, h = forward(w, x, 0 * sigma, None, c["heads"])
    arrays |= {"logits_0_notime": logits, "latent_0_notime": h}
    arrays["time_features"] = features(arrays["sigma"].astype(float))
    wide = {n: np.asarray(a, np.float64) for n, a in w.items()}
    arrays["time_cond"] = conditioning(wide, arrays["sigma"].astype(float))
    embedded = wide["vocab_embed.embedding"][x]
    arrays["block0_out"] = block(wide, 0, embedded, arrays["time_cond"], c["heads"])
    single = lambda a: a.astype(np.float32) if a.dtype == np.float64 else a
    np.savez(folder / "dit_lddm_b.npz", **{n: single(a) for n, a in arrays.items()})
    save_file(w, folder / "dit_lddm_b.safetensors")

    v, mask, eps = 11, 3, 1e-3
    tokens = np.array([a for a in range(v) if a != mask])
    x0 = tokens[rng.integers(0, v - 1, (5, 6))].astype(np.int32)
    t = np.array([1e-3, 1.0, 0.3, 0.6, 0.05])
    z = np.where(rng.uniform(size=x0.shape) < 0.6, mask, x0).astype(np.int32)
    z_u = np.where(rng.uniform(size=x0.shape) < 0.6, rng.integers(0, v, x0.shape), x0)
    raw = rng.normal(0, 2, (5, 6, v)).astype(np.float32)
    clean = raw.astype(np.float64)
    clean[..., mask] = -1e6
    logp = log_softmax(clean)
    table = np.where((z == mask)[..., None], logp, np.where(np.eye(v)[z] > 0, 0, -1e6))
    pick = np.take_along_axis(table, x0[..., None], -1)[..., 0]
    loss = -pick / t[:, None]
    udlm = udlm_closed_form(raw.astype(np.float64), x0, z_u, t, 1 - (1 - eps) * t, eps)
    valid = (rng.uniform(size=x0.shape) < 0.8).astype(np.float32)
    losses = {
        "x0": x0,
        "t": t,
        "xt_mask": z,
        "logits": raw,
        "mdlm_logp": table.astype(np.float32),
        "mdlm_loss": loss.astype(np.float32),
        "mdlm_loss_f64": loss,
        "x0_u": x0,
        "xt_u": z_u.astype(np.int32),
        "udlm_loss_f64": udlm,
        "valid": valid,
        "mdlm_loss_reduced": np.sum(loss * valid) / valid.sum(),
        "d3pm_other": loss,
    }
    np.savez(folder / "losses_b.npz", **losses)
    files = {
        "dit_lddm_b.npz": {"config": c, "arrays": {n: {} for n in arrays}},
        "dit_lddm_b.safetensors": {"config": c},
        "losses_b.npz": {"V": v, "mask_index": mask, "arrays": {n: {} for n in losses}},
    }
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
