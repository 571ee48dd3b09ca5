"""GPT-2 (Radford et al., 2019) as a judge, from a folder in the Hugging Face layout; no torch.

`config.json` and `model.safetensors` (or any one *.safetensors) are read, and `tokenizer.json` or
`vocab.json` with `merges.txt` where they are there. Only numbers are read: nothing in the folder is
executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, require
from ldd_jax.core.tensors import read_safetensors
from ldd_jax.core.types import Array

ACTIVATIONS = {"gelu_new": True, "gelu_pytorch_tanh": True, "gelu": False}
# Of a block: ours -> theirs. Their linear weights are [in, out], as ours.
_BLOCK = {
    "ln_1": "ln_1",
    "attn": "attn.c_attn",
    "attn_out": "attn.c_proj",
    "ln_2": "ln_2",
    "mlp": "mlp.c_fc",
    "mlp_out": "mlp.c_proj",
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a GPT-2; `tanh` tells the two GELUs apart."""

    vocabulary: int
    positions: int
    width: int
    depth: int
    heads: int
    eps: float = 1e-5
    tanh: bool = True
    eos: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> Shape:
        """From the fields of a config.json.

        Raises:
          UserError: for another kind of model, or a field that is missing or no number.
        """
        kind = config.get("model_type", "gpt2")
        require(kind == "gpt2", f"{where} describes a {kind!r} model; the judge is a GPT-2")
        activation = config.get("activation_function", config.get("activation", "gelu_new"))
        name = str(activation).split()[0]
        require(name in ACTIVATIONS, f"{where}: activation {name!r}; {', '.join(ACTIVATIONS)}")
        plain = config.get("scale_attn_weights", True) and not any(
            config.get(k) for k in ("scale_attn_by_inverse_layer_idx", "add_cross_attention")
        )
        require(plain, f"{where}: only GPT-2's own attention is known here")
        names = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        for field in names:
            value = config.get(field)
            good = type(value) is int and value > 0
            require(good, f"{where}: {field} is {value!r}; expected a positive whole number")
        require(
            config["n_embd"] % config["n_head"] == 0,
            f"{where}: n_embd {config['n_embd']} is no multiple of n_head {config['n_head']}",
        )
        eps = config.get("layer_norm_epsilon", 1e-5)
        require(type(eps) is float and 0 < eps < 1, f"{where}: layer_norm_epsilon is {eps!r}")
        eos = config.get("eos_token_id", config.get("eos"))
        require(eos is None or type(eos) is int, f"{where}: eos_token_id is {eos!r}")
        vocabulary, positions, width, depth, heads = (config[field] for field in names)
        return cls(
            vocabulary=vocabulary,
            positions=positions,
            width=width,
            depth=depth,
            heads=heads,
            eps=eps,
            tanh=ACTIVATIONS[name],
            eos=eos,
        )


def parameters(tensors: Mapping[str, np.ndarray], shape: Shape) -> dict[str, Any]:
    """Our parameters (blocks stacked) from tensors under the Hugging Face names.

    With or without the prefix `transformer.`; attention's mask buffers and a tied `lm_head` are
    passed over.

    Raises:
      UserError: for a tensor that is missing or has another shape.
    """
    named = {k.removeprefix("transformer."): np.asarray(v) for k, v in tensors.items()}
    d = shape.width

    def take(name: str, *size: int) -> np.ndarray:
        value = named.get(name)
        require(value is not None, f"GPT-2 weights lack {name!r}")
        assert value is not None
        require(value.shape == size, f"GPT-2 weight {name} is {value.shape}, expected {size}")
        return value.astype(np.float32)

    both = lambda name, *size: {
        "w": take(f"{name}.weight", *size),
        "b": take(f"{name}.bias", size[-1]),
    }
    sizes = {
        "ln_1": (d,),
        "attn": (d, 3 * d),
        "attn_out": (d, d),
        "ln_2": (d,),
        "mlp": (d, 4 * d),
        "mlp_out": (4 * d, d),
    }
    blocks = [
        {ours: both(f"h.{i}.{theirs}", *sizes[ours]) for ours, theirs in _BLOCK.items()}
        for i in range(shape.depth)
    ]
    return {
        "tokens": take("wte.weight", shape.vocabulary, d),
        "positions": take("wpe.weight", shape.positions, d),
        "blocks": jax.tree.map(lambda *a: np.stack(a), *blocks),
        "final": both("ln_f", d),
    }


def _norm(x: Array, p: Any, eps: float) -> Array:
    centred = x - jnp.mean(x, -1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + eps)
    return centred * scale * p["w"] + p["b"]


def features(params: Any, shape: Shape, ids_BL: Array) -> Array:
    """Normed output of the last block, [B, L, D] float32; pre-LN, causal.

    Args:
      params: as `parameters` gives them.
      shape: heads and constants of the network.
      ids_BL: tokens.
    """
    batch, length = ids_BL.shape
    linear = lambda x, p: x @ p["w"] + p["b"]
    split = lambda a: a.reshape(batch, length, shape.heads, -1).swapaxes(1, 2)
    past = jnp.tri(length, dtype=bool)

    def block(x, p):
        q, k, v = map(split, jnp.split(linear(_norm(x, p["ln_1"], shape.eps), p["attn"]), 3, -1))
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) * q.shape[-1] ** -0.5
        weight = jax.nn.softmax(jnp.where(past, scores, -jnp.inf), axis=-1)
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weight, v).swapaxes(1, 2).reshape(x.shape)
        x = x + linear(mixed, p["attn_out"])
        inner = jax.nn.gelu(
            linear(_norm(x, p["ln_2"], shape.eps), p["mlp"]), approximate=shape.tanh
        )
        return x + linear(inner, p["mlp_out"]), None

    x = params["tokens"][ids_BL] + params["positions"][:length]
    x, _ = jax.lax.scan(block, x, params["blocks"])
    return _norm(x, params["final"], shape.eps)


def logits(params: Any, shape: Shape, ids_BL: Array) -> Array:
    """[B, L, V] by the tied embedding; for small inputs, such as tests.

    `params`, `shape` and `ids_BL` are those of `features`.
    """
    return features(params, shape, ids_BL) @ params["tokens"].T


def token_nats(params: Any, shape: Shape, ids_BL: Array) -> Array:
    """-log p(ids[1:] | those before), [B, L - 1]; logits of one position at a time.

    `params`, `shape` and `ids_BL` are those of `features`.
    """
    x = features(params, shape, ids_BL)[:, :-1]

    def at(pair):
        x_BD, next_B = pair
        logp = jax.nn.log_softmax(x_BD @ params["tokens"].T, axis=-1)
        return -jnp.take_along_axis(logp, next_B[:, None], 1)[:, 0]

    return jax.lax.map(at, (x.swapaxes(0, 1), ids_BL[:, 1:].T)).T


def counted(ids_BL: np.ndarray, eos: int | None) -> np.ndarray:
    """Which of ids[1:] count, [B, L - 1]: all but EOS, and all from the first EOS to the second.

    The rule of the MDLM, Duo and LDDM evaluations: the first EOS counts, later ones do not, and
    text after the first EOS does.
    """
    ids = np.asarray(ids_BL)
    if eos is None:
        return np.ones((ids.shape[0], ids.shape[1] - 1), bool)
    seen = np.cumsum(ids == eos, axis=1) == 1
    return ((ids != eos) | seen)[:, 1:]


@dataclasses.dataclass(frozen=True)
class GPT2Judge:
    """Nats under a GPT-2; rows longer than its context are scored in independent pieces.

    Each piece loses its first token, which has nothing before it; `counted` says which of the
    others count.
    """

    params: Any
    shape: Shape
    tokenizer: Any
    name: str
    fingerprint: str
    batch: int = 8

    def nats(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Summed -log p and tokens counted of every row; float64 [N] both."""
        nats, tokens = np.zeros(len(rows)), np.zeros(len(rows))
        for some, ids in self._batches(rows, least=2):
            found = np.asarray(_token_nats(self.params, self.shape, ids), np.float64)
            for b, (i, piece) in enumerate(some):
                on = counted(piece[None], self.shape.eos)[0]
                nats[i] += found[b, : len(piece) - 1][on].sum()
                tokens[i] += on.sum()
        return nats, tokens

    def features(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Mean over positions of the last block's normed output, [N, D]."""
        out = np.zeros((len(rows), self.shape.width))
        for some, ids in self._batches(rows, least=1):
            found = np.asarray(_features(self.params, self.shape, ids), np.float64)
            for b, (i, piece) in enumerate(some):
                out[i] += found[b, : len(piece)].sum(0) / len(rows[i])
        return out

    def _batches(
        self, rows: Sequence[np.ndarray], least: int
    ) -> Iterator[tuple[list[tuple[int, np.ndarray]], np.ndarray]]:
        """(row, piece) pairs of at least so many tokens, and their ids with padding."""
        size = self.shape.positions
        bad = next((int(i) for r in rows for i in r if not 0 <= i < self.shape.vocabulary), None)
        require(bad is None, f"token id {bad}, but {self.name} has {self.shape.vocabulary}")
        pieces = [
            (i, np.asarray(row[at : at + size]))
            for i, row in enumerate(rows)
            for at in range(0, len(row), size)
            if len(row[at : at + size]) >= least
        ]
        pieces.sort(key=lambda piece: len(piece[1]))  # neighbours need about the same padding
        for first in range(0, len(pieces), self.batch):
            some = pieces[first : first + self.batch]
            longest = max(len(piece) for _, piece in some)
            width = min(size, -(-longest // 64) * 64)
            ids = np.zeros((self.batch, width), np.int32)
            for b, (_, piece) in enumerate(some):
                ids[b, : len(piece)] = piece
            yield some, ids


_token_nats = jax.jit(token_nats, static_argnums=1)
_features = jax.jit(features, static_argnums=1)


@dataclasses.dataclass(frozen=True)
class Subwords:
    """The folder's tokenizer; without one only samples that carry ids can be judged."""

    size: int
    encoder: Any
    digest: str

    def encode(self, text: str) -> list[int]:
        """Ids of a text, no special tokens added.

        Raises:
          UserError: if the folder holds no tokenizer.
        """
        require(
            self.encoder is not None,
            "the GPT-2 folder holds no tokenizer (tokenizer.json, or vocab.json and merges.txt)",
        )
        return list(self.encoder.encode(text, add_special_tokens=False).ids)


def subwords(folder: Path, size: int) -> Subwords:
    """The tokenizer files of a folder, if any.

    Raises:
      UserError: for files that describe no tokenizer.
    """
    import tokenizers

    whole, parts = folder / "tokenizer.json", [folder / n for n in ("vocab.json", "merges.txt")]
    used = [whole] if whole.is_file() else parts if all(p.is_file() for p in parts) else []
    try:
        if used == [whole]:
            encoder: Any = tokenizers.Tokenizer.from_file(str(whole))
            encoder.encode_special_tokens = True  # their names in a sample are ordinary text
        else:
            encoder = tokenizers.ByteLevelBPETokenizer(*map(str, used)) if used else None
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{used[0]}: not a tokenizer: {str(error).splitlines()[0]}") from error
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in used)).hexdigest()[:16]
    return Subwords(size, encoder, f"gpt2-{digest}")


def load(folder: Path) -> GPT2Judge:
    """The judge in a Hugging Face folder.

    Raises:
      UserError: for a folder that lacks something, or holds another model.
    """
    config = folder / "config.json"
    try:
        fields = reading.read_json(config)
    except (OSError, ValueError) as error:
        raise UserError(f"{config} cannot be read: {error}") from error
    require(isinstance(fields, dict), f"{config} holds no JSON object")
    shape = Shape.of(fields, str(config))
    weights = sorted(folder.glob("*.safetensors"))
    require(len(weights) == 1, f"{folder} holds {len(weights)} .safetensors files; expected one")
    params = parameters(read_safetensors(weights[0])[0], shape)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf).data)
    return GPT2Judge(
        params=jax.tree.map(jnp.asarray, params),
        shape=shape,
        tokenizer=subwords(folder, shape.vocabulary),
        name=folder.name,
        fingerprint=f"gpt2-{digest.hexdigest()[:16]}",
    )
