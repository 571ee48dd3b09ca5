"""What samples are given: a prompt, a template with holes, a class, parts from a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.core.checks import nearest, require
from ldd_jax.core.positions import SIGNAL, TEXT
from ldd_jax.data import MASK_TEXT, PairData, unknown
from ldd_jax.data.signals import read_pairs


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


def label(experiment: Experiment, name: str | None) -> int | None:
    """Number of a class; those of an import have no other names than their numbers.

    Raises:
      UserError: for a class that the model does not know.
    """
    if name is None:
        return None
    number = experiment.model.num_classes
    classes = experiment.config.data.to_dict().get("classes") or [str(i) for i in range(number)]
    require(bool(classes), "--label: this model was trained without classes")
    named = "classes" in experiment.config.data
    allowed = nearest(str(name), classes) if named else f"they are numbers, 0 to {number - 1}"
    require(str(name) in classes, f"--label={name}: no such class; {allowed}")
    return list(classes).index(str(name))


def given_parts(experiment: Experiment, text: str | None, length: int) -> dict[str, Any]:
    """What `--given=PART:FILE` holds, by name, [N, length, ...]; {} where nothing is given.

    Args:
      experiment: the run's.
      text: PART:FILE, of a file of JSON lines as `sample` writes them.
      length: tokens of a row.

    Raises:
      UserError: for a model that is given nothing, or a file that does not fit.
    """
    if text is None:
        return {}
    name, _, path = text.partition(":")
    allowed = tuple(experiment.process.parts) or (SIGNAL,) * bool(experiment.channels)
    require(bool(allowed), "--given: this model is told no signal; it is for method=joint, given")
    require(name in allowed and bool(path), f"--given={text}; give {' or '.join(allowed)}:FILE")
    read = PairData(path=path, channels=experiment.channels, length=length)
    rows = read.rows(experiment.tokenizer, read_pairs(path, experiment.channels))
    require(
        bool((rows.filled == length).all()),
        f"{path}: a row has fewer than {length} tokens; give whole rows",
    )
    return {SIGNAL: rows.signal} if name == SIGNAL else {TEXT: rows.tokens.astype("int32")}
