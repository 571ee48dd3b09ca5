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
from ldd_jax.core.types import Array, Cond, TokenSpace
from ldd_jax.denoisers import GPT2
from ldd_jax.denoisers.described import describe
from ldd_jax.denoisers.published import GPT2_NAMES, GPT2_PREFIX, from_arrays


@dataclasses.dataclass(frozen=True)
class Shape:
    """The network of `denoisers`, causal, and the end of a text."""

    network: GPT2
    eos: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> Shape:
        """From the fields of a config.json.

        Raises:
          UserError: for another kind of model, or a field that is missing or no number.
        """
        kind = config.get("model_type", "gpt2")
        require(kind == "gpt2", f"{where} describes a {kind!r} model; the judge is a GPT-2")
        found = describe({**config, "model_type": "gpt2"}, where)
        return cls(GPT2(tokens=TokenSpace(size=found.rows), **found.fields), found.eos)


def parameters(tensors: Mapping[str, np.ndarray], shape: Shape) -> dict[str, Any]:
    """Parameters of the network from tensors under the Hugging Face names.

    With or without the prefix `transformer.`; attention's mask buffers and a tied `lm_head` are
    passed over.

    Raises:
      UserError: for a tensor that is missing, surplus, or has another shape.
    """
    prefixed = any(n.startswith(GPT2_PREFIX) for n in tensors)
    names = GPT2_NAMES if prefixed else GPT2_NAMES.bare(GPT2_PREFIX)
    shapes = jax.eval_shape(shape.network.init, jax.random.key(0))
    return from_arrays(names, shapes, tensors, "the GPT-2")


def features(params: Any, shape: Shape, ids_BL: Array) -> Array:
    """Normed output of the last block, [B, L, D]; causal.

    Args:
      params: as `parameters` gives them.
      shape: the network.
      ids_BL: tokens.
    """
    return shape.network.bind(params).trunk(ids_BL, Cond()).features


def logits(params: Any, shape: Shape, ids_BL: Array) -> Array:
    """[B, L, V] by the tied embedding; for small inputs, such as tests.

    `params`, `shape` and `ids_BL` are those of `features`.
    """
    return shape.network.bind(params).head(features(params, shape, ids_BL))


def token_nats(params: Any, shape: Shape, ids_BL: Array) -> Array:
    """-log p(ids[1:] | those before), [B, L - 1]; logits of one position at a time.

    `params`, `shape` and `ids_BL` are those of `features`.
    """
    x, head = features(params, shape, ids_BL)[:, :-1], shape.network.bind(params).head

    def at(pair):
        x_BD, next_B = pair
        logp = jax.nn.log_softmax(head(x_BD), axis=-1)
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
        out = np.zeros((len(rows), self.shape.network.width))
        for some, ids in self._batches(rows, least=1):
            found = np.asarray(_features(self.params, self.shape, ids), np.float64)
            for b, (i, piece) in enumerate(some):
                out[i] += found[b, : len(piece)].sum(0) / len(rows[i])
        return out

    def _batches(
        self, rows: Sequence[np.ndarray], least: int
    ) -> Iterator[tuple[list[tuple[int, np.ndarray]], np.ndarray]]:
        """(row, piece) pairs of at least so many tokens, and their ids with padding."""
        size = self.shape.network.positions
        states = self.shape.network.tokens.size
        bad = next((int(i) for r in rows for i in r if not 0 <= i < states), None)
        require(bad is None, f"token id {bad}, but {self.name} has {states}")
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
        tokenizer=subwords(folder, shape.network.tokens.size),
        name=folder.name,
        fingerprint=f"gpt2-{digest.hexdigest()[:16]}",
    )
