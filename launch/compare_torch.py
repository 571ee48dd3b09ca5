"""Train and sampler steps of this code against a plain PyTorch network of our own, as ratios.

    python launch/compare_torch.py [--method=mdlm|lddm_m] [--width=256] [--depth=6] [--heads=8] \
        [--unroll=6] [--length=256] [--batch=16] [--vocabulary=256] [--tile=1024] \
        [--repeats=9] [--calls=9] [--compile] [--processor]

PyTorch's side is written as one would write it for speed on one machine: eager blocks around
scaled_dot_product_attention, fused AdamW, averages and clipping by foreach, a projection of the
whole batch; `--compile` hands its trunk to torch.compile. Both have the same parameters (their
logits must agree, or it fails), take turns in one process, and train as many tokens.
`--processor` counts processor time, for a machine with other work (on one core: `taskset -c 1`).
Needs torch (`make extras`; there it is `.extras/bin/python launch/compare_torch.py`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import compare
import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ldd_jax.core.memory import keep_freed_memory
from ldd_jax.core.types import Cond


class Norm(nn.Module):
    """LayerNorm with a weight and no bias."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x):
        """Normalise the last axis."""
        return F.layer_norm(x, x.shape[-1:], self.scale, None, 1e-5)


def turn(x, cos, sin):
    """Rotary embedding, half-split; x [B, heads, L, K]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    """Attention and MLP, modulated by c."""

    def __init__(self, width: int, heads: int, cond: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.adaln = nn.Linear(cond, 6 * width)

    def forward(self, x, c, cos, sin):
        """X [B, L, D], c [B, C]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaln(c)[:, None].chunk(6, -1)
        y = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(y).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(turn(q, cos, sin), turn(k, cos, sin), v)
        x = x + gate1 * self.out(y.transpose(1, 2).flatten(2))
        y = self.norm2(x) * (1 + scale2) + shift2
        return x + gate2 * self.mlp_out(F.gelu(self.mlp_in(y), approximate="tanh"))


class Network(nn.Module):
    """E(z) + LayerNorm(h), blocks, features and latent."""

    def __init__(self, c: argparse.Namespace, cond: int, latent: bool):
        super().__init__()
        d = c.width
        self.table = nn.Parameter(torch.zeros(c.vocabulary, d))
        self.latent_norm = nn.LayerNorm(d) if latent else None
        self.time_in, self.time_out = nn.Linear(256, cond), nn.Linear(cond, cond)
        self.blocks = nn.ModuleList(Block(d, c.heads, cond) for _ in range(c.depth))
        self.final_norm, self.final_adaln = Norm(d), nn.Linear(cond, 2 * d)
        self.head = nn.Linear(d, c.vocabulary)
        half = d // c.heads // 2
        angle = torch.arange(c.length)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        self.register_buffer("features", torch.cat([torch.ones(128), torch.zeros(128)]))  # t = 0

    def forward(self, z, h):
        """Logits' features [B, L, D] and the latent; z [B, L], h [B, L, D] or None."""
        x = self.table[z]
        if self.latent_norm is not None:
            x = x + self.latent_norm(torch.zeros_like(x) if h is None else h)
        c = F.silu(self.time_out(F.silu(self.time_in(self.features.expand(z.shape[0], -1)))))
        for block in self.blocks:
            x = block(x, c, self.cos, self.sin)
        shift, scale = self.final_adaln(c)[:, None].chunk(2, -1)
        return self.final_norm(x) * (1 + scale) + shift, x


def load(network: Network, params) -> None:
    """Our parameters into the torch network."""
    trunk = params["trunk"]
    put = lambda to, a: to.data.copy_(torch.from_numpy(np.array(a, np.float32)))

    def linear(to, own, i=None):
        at = lambda a: np.asarray(a if i is None else a[i])
        put(to.weight, at(own["kernel"]).reshape(to.weight.shape[::-1]).T)
        if to.bias is not None:
            put(to.bias, at(own["bias"]))

    put(network.table, trunk["embed"]["table"])
    if network.latent_norm is not None:
        put(network.latent_norm.weight, trunk["latent_norm"]["norm"]["scale"])
        put(network.latent_norm.bias, trunk["latent_norm"]["norm"]["bias"])
    linear(network.time_in, trunk["time"]["in"])
    linear(network.time_out, trunk["time"]["out"])
    for i, block in enumerate(network.blocks):
        for name in ("qkv", "out", "mlp_in", "mlp_out", "adaln"):
            linear(getattr(block, name), trunk["blocks"][name], i)
        for name in ("norm1", "norm2"):
            put(getattr(block, name).scale, trunk["blocks"][name]["norm"]["scale"][i])
    put(network.final_norm.scale, trunk["final_norm"]["norm"]["scale"])
    linear(network.final_adaln, trunk["final_adaln"])
    linear(network.head, params["head"])


class Torch:
    """The rival: the same parameters, its own update and sampler step."""

    def __init__(self, c: argparse.Namespace, side: compare.Side):
        self.c, self.latent = c, side.experiment.model.latent
        self.mask = side.experiment.process.tokens.mask
        self.network = Network(c, 128, self.latent)
        load(self.network, side.state.ema)
        self.trunk = torch.compile(self.network) if c.compile else self.network
        self.parameters = list(self.network.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=3e-4, betas=(0.9, 0.999), weight_decay=0.0, fused=True
        )
        self.draw = np.random.default_rng(0)

    def logits(self, z, h=None):
        """Log p(x0 | z) [B, L, V] and the latent."""
        features, latent = self.trunk(z, h)
        logits = self.network.head(features)
        logits[..., self.mask] = -torch.inf
        return torch.log_softmax(logits, -1), latent

    def train(self) -> float:
        """One update: milliseconds."""
        c = self.c
        z0 = self.draw.integers(0, c.vocabulary - 2, (c.batch, c.length))
        began = compare.CLOCK()
        z0 = torch.from_numpy(z0)
        t = (torch.arange(c.batch) + torch.rand(1)) / c.batch % 1 * 0.999 + 0.001
        noised = torch.rand(c.batch, c.length) < t[:, None]
        z = torch.where(noised, self.mask, z0)
        h = None
        if self.latent:
            with torch.no_grad():
                h = self.trunk(z, None)[1]
        log_p, _ = self.logits(z, h)
        nats = F.nll_loss(log_p.flatten(0, 1), z0.flatten(), reduction="none").view_as(z0)
        loss = torch.where(noised, nats / t[:, None], 0).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1e-4)
        loss.item()
        return 1000 * (compare.CLOCK() - began)

    @torch.inference_mode()
    def sample(self) -> float:
        """Milliseconds per network call of an ancestral sampler."""
        c = self.c
        began = compare.CLOCK()
        z, h = torch.full((c.batch, c.length), self.mask), None
        for i in range(c.calls):
            log_p, latent = self.logits(z, h)
            h = latent if self.latent else None
            drawn = (log_p.exp() / torch.empty_like(log_p).exponential_()).argmax(-1)
            move = torch.rand(z.shape) < 1 / (c.calls - i)
            z = torch.where((z == self.mask) & move, drawn, z)
        assert not (z == self.mask).any()
        return 1000 * (compare.CLOCK() - began) / c.calls


def agree(side: compare.Side, rival: Torch) -> float:
    """Largest difference of the two networks' logits, both passes, after `liven`."""
    c = side.chosen
    load(rival.network, side.state.ema)
    z = np.random.default_rng(1).integers(0, c.vocabulary, (c.batch, c.length))
    ours = side.experiment.model.bind(side.state.ema)
    call = jax.jit(lambda d, z, h: d.trunk(z, Cond(clock=np.zeros(c.batch, np.float32)), h))
    h, other, worst = None, None, 0.0
    for _ in range(1 + rival.latent):
        trunk = call(ours, z, h)
        with torch.no_grad():
            features, latent = rival.network(torch.from_numpy(z), other)
            logits = rival.network.head(features).numpy()
        worst = max(worst, float(np.max(np.abs(ours.head(trunk.features) - logits))))
        h, other = trunk.latent, latent
    return worst


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="mdlm", choices=("mdlm", "lddm_m"))
    sizes = dict(
        width=256, depth=6, unroll=6, heads=8, length=256, batch=16, vocabulary=256, tile=1024
    )
    for name, default in {**sizes, "repeats": 9, "calls": 9}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--processor", action="store_true", help="processor time, not wall time")
    chosen = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(os.cpu_count() or 1)
    compare.CLOCK = time.process_time if chosen.processor else time.perf_counter
    ours = compare.Side(chosen, plain=False)
    ours.liven()
    rival = Torch(chosen, ours)
    difference = agree(ours, rival)
    if not difference < 1e-3:
        raise SystemExit(f"the two networks differ by {difference:.2g}")
    for what in ("train", "sample"):
        pairs = []
        for i in range(chosen.repeats + 2):
            pair = getattr(ours, what)()[0], getattr(rival, what)()
            pairs += [pair] if i > 1 else []  # the first ones compile and warm up
        ratios = sorted(a / b for a, b in pairs)
        mine, other = (sorted(side) for side in zip(*pairs))
        spread = lambda v: f"{statistics.median(v):.1f} ({v[0]:.1f} to {v[-1]:.1f})"
        print(
            f"{chosen.method} {what} step: this code / PyTorch {torch.__version__}, median ratio "
            f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}, {len(ratios)} "
            f"turns); medians {spread(mine)} and {spread(other)} ms; logits agree to "
            f"{difference:.1g}; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
