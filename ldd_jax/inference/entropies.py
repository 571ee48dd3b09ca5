"""Entropies of the next byte by a trained left-to-right model: what patches may follow."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.checks import require
from ldd_jax.core.kl import entropy
from ldd_jax.core.storage import at
from ldd_jax.core.types import Cond
from ldd_jax.core.vocabulary_tiles import AUTO, rows
from ldd_jax.data import PatchedText, TextData
from ldd_jax.data.patches import Entropies
from ldd_jax.inference.loading import load_trained
from ldd_jax.objectives.next_token import shifted

ROWS = 64  # of a call


def of(data: PatchedText) -> Entropies | None:
    """The entropies that patches follow; None where they follow none.

    Raises:
      UserError: where the model is missing, or reads other tokens or shorter rows.
    """
    if not data.patches.learned:
        return None
    require(
        bool(data.patches.model),
        "entropy patches follow a model: give data.patches.model=WORKDIR, trained with method=ar "
        "on the same tokenizer",
    )
    return by_model(data.patches.model, data)


def by_model(workdir: str, data: TextData) -> Entropies:
    """(tokens [N, L]) -> [N, L], nats of the token after each position; 0 at the last.

    Args:
      workdir: of a finished run with method=ar.
      data: whose tokens it must read.

    Raises:
      UserError: where it does not fit.
    """
    run, params, _ = load_trained(at(workdir))
    process: Any = run.process
    require(
        process.schedule is None and run.model.causal,
        f"{workdir} is no left-to-right model; entropy patches follow one (method=ar)",
    )
    size, length = data.most_ids(), run.config.data.length
    require(
        run.tokenizer.size == size and length >= data.length,
        f"{workdir} reads {run.tokenizer.size} ids in rows of {length}, the data have {size} in "
        f"rows of {data.length}; train it on the same tokenizer, with rows as long",
    )
    network = run.model.bind(params)

    @jax.jit
    def one(z0):
        features = network.trunk(shifted(z0, None, process.start), Cond()).features
        flat = features.reshape(-1, features.shape[-1])
        law = lambda logits, _: entropy(process.read(logits))
        found = rows(law, network.head, flat, (), tile=AUTO)
        # At position i stands the law of token i; the entropy belongs to what comes before it.
        return jnp.pad(found.reshape(z0.shape)[:, 1:], ((0, 0), (0, 1)))

    def entropies(tokens: np.ndarray) -> np.ndarray:
        count = len(tokens)
        tokens = np.pad(tokens, ((0, -count % ROWS), (0, 0)))
        parts = [np.asarray(one(tokens[i : i + ROWS])) for i in range(0, len(tokens), ROWS)]
        return np.concatenate(parts)[:count]

    return entropies
