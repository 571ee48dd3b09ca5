"""What is given of a row: a text at its front, or a template with holes."""

from __future__ import annotations

import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.core.checks import require
from ldd_jax.data import MASK_TEXT, unknown


def template(
    experiment: Experiment, prompt: str | None, fill: str | None, length: int | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Fixed tokens and where they are fixed, from `--fill` or `--prompt`; None without either.

    A prompt stands at the front of a row of `length` tokens (None: as in training); a template is
    the whole row, longer than in training only where `length` says so.

    Args:
      experiment: the run's; its tokenizer reads the texts.
      prompt: text at the front of a row.
      fill: text of the whole row, with [MASK] for each free token.
      length: tokens of the row; None = as in training.

    Raises:
      UserError: for an empty text, one that leaves nothing free, or does not fit.
    """
    require(prompt is None or fill is None, "give --prompt or --fill, not both")
    for name, text in (("prompt", prompt), ("fill", fill)):
        require(text != "", f"--{name} is empty; leave it out, or give a text")
    usual = experiment.config.data.length
    if fill is not None:
        ids, free = experiment.tokenizer.encode_template(fill)
        require(
            any(free), f"--fill={fill!r} has no [MASK] to fill; write [MASK] for each free token"
        )
        require(
            length is None or length == len(ids),
            f"--length={length}, but --fill is the whole row and has {len(ids)} tokens; leave "
            "--length out, or give that number",
        )
        require(
            length is not None or len(ids) <= usual,
            f"--fill has {len(ids)} tokens, but a row has {usual}; shorten it, or give "
            f"--length={len(ids)} for a row longer than those of training",
        )
        known = [i for i, f in zip(ids, free) if not f]
        lost = experiment.tokenizer.lost(fill.replace(MASK_TEXT, ""))
        unknown.check(experiment.tokenizer, known, "--fill", lost)
        return np.asarray(ids, np.int32), ~np.asarray(free, bool)
    if prompt is not None:
        length = length or usual
        ids = experiment.tokenizer.encode(experiment.asked(prompt))
        unknown.check(experiment.tokenizer, ids, "--prompt", experiment.tokenizer.lost(prompt))
        require(
            len(ids) < length,
            f"--prompt has {len(ids)} tokens, but a row has {length}; shorten it or give --length",
        )
        tokens, fixed = np.zeros(length, np.int32), np.zeros(length, bool)
        tokens[: len(ids)], fixed[: len(ids)] = ids, True
        return tokens, fixed
    return None
