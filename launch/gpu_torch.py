"""The DiT of configs/openwebtext.py in PyTorch on a GPU, as one would write it for speed.

Part `torch` of launch/gpu.py. SDPA, torch.compile of trunk and loss, bfloat16 autocast, fused
AdamW, averages and clipping by foreach; the head sees only the rows that are scored. Parameters
come from ours, and both networks' float32 logits must agree, or it fails.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import compare_torch
import gpu_parts
import jax
import numpy as np
import torch
import torch.nn.functional as F

from ldd_jax.core.types import Cond

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def network(e: Any, params: Any, vocabulary: int) -> compare_torch.Network:
    """Ours, with our parameters."""
    m = e.config.model
    sizes = argparse.Namespace(
        width=m.width, depth=m.depth, heads=m.heads, length=e.config.data.length,
        vocabulary=vocabulary,
    )  # fmt: skip
    out = compare_torch.Network(sizes, params["trunk"]["time"]["in"]["bias"].shape[0], m.latent)
    compare_torch.load(out, params)
    return out.to(DEVICE)


def agree(e: Any, params: Any, rival: compare_torch.Network) -> float:
    """Largest difference of float32 logits, first pass."""
    z = np.random.default_rng(1).integers(0, 250, (2, e.config.data.length))
    ours = e.model.bind(params)
    clock = np.zeros(2, np.float32)
    mine = np.asarray(ours.head(ours.trunk(z, Cond(clock=clock), None).features[:, :8]))
    with torch.no_grad():
        theirs = rival.head(rival(torch.from_numpy(z).to(DEVICE), None)[0][:, :8])
    return float(np.abs(mine - theirs.float().cpu().numpy()).max())


class Update:
    """One update of the rival."""

    def __init__(self, rival: compare_torch.Network, batch: int, length: int, mask: int):
        self.rival, self.batch, self.length, self.mask = rival, batch, length, mask
        self.trunk = torch.compile(rival)
        self.nats = torch.compile(self._nats, dynamic=True)
        self.parameters = list(rival.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=3e-4, betas=(0.9, 0.999), weight_decay=0.0, fused=True
        )
        self.latent = rival.latent_norm is not None

    def _nats(self, rows, targets):
        return F.cross_entropy(self.rival.head(rows).float(), targets, reduction="none")

    def __call__(self) -> float:
        """Seconds."""
        began = time.perf_counter()
        z0 = torch.randint(0, 250, (self.batch, self.length), device=DEVICE)
        t = (torch.arange(self.batch, device=DEVICE) + torch.rand(1, device=DEVICE)) / self.batch
        t = t % 1 * 0.999 + 0.001
        noised = torch.rand(z0.shape, device=DEVICE) < t[:, None]
        z = torch.where(noised, self.mask, z0)
        h = None
        with torch.autocast(DEVICE, torch.bfloat16):
            if self.latent:
                with torch.no_grad():
                    h = self.trunk(z, None)[1]
            features = self.trunk(z, h)[0]
            nats = self.nats(features[noised], z0[noised])
            loss = (nats / t[:, None].expand_as(z0)[noised]).sum() / z0.numel()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1e-4)
        loss.item()
        return time.perf_counter() - began


def measure(method: str, small: bool) -> dict[str, Any]:
    """Milliseconds of an update at the best of some batches."""
    batches = (8,) if small else (64, 32)
    e = gpu_parts.experiment(method, 8, small, model__dtype="float32")
    vocabulary = e.tokens.size
    live = lambda p, k: p + 0.02 * jax.random.normal(k, p.shape)
    with jax.default_device(jax.devices("cpu")[0]):
        leaves, tree = jax.tree.flatten(e.model.init(e.key(0)))
        keys = jax.random.split(jax.random.key(1), len(leaves))
        torch.set_float32_matmul_precision("highest")
        params = jax.tree.unflatten(tree, [live(p, k) for p, k in zip(leaves, keys)])
        rival = network(e, params, vocabulary)
        apart = agree(e, params, rival)
    if not apart < 2e-3:
        raise SystemExit(f"the two networks differ by {apart:.2g}")
    torch.set_float32_matmul_precision("high")
    for batch in batches:
        try:
            update = Update(rival, batch, e.config.data.length, e.tokens.mask)
            spent = [update() for _ in range(5 if small else 14)][-(3 if small else 9) :]
            break
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    else:
        raise SystemExit("no batch fits")
    seconds = statistics.median(spent)
    return {
        "torch": torch.__version__,
        "batch": batch,
        "ms_per_update": 1000 * seconds,
        "tokens_per_s": batch * e.config.data.length / seconds,
        "peak_gib": torch.cuda.max_memory_allocated() / gpu_parts.GIB if DEVICE == "cuda" else None,
        "logits_apart": apart,
    }
