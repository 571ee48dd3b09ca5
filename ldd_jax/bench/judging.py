"""Judges by name: an autoregressive workdir, a GPT-2 folder, or a run's n-gram model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from ldd_jax.bench.baselines import training_tokens
from ldd_jax.config.experiment import Experiment, read_corpus
from ldd_jax.config.stored import fingerprint
from ldd_jax.core import reading, storage
from ldd_jax.core.checks import UserError, parse_json, require
from ldd_jax.core.types import Cond
from ldd_jax.data import Corpus
from ldd_jax.evaluation import gpt2, likelihood
from ldd_jax.evaluation.judges import Judge, NetworkJudge, NGramJudge
from ldd_jax.evaluation.ngram import NGram
from ldd_jax.inference import loading
from ldd_jax.objectives.next_token import shifted
from ldd_jax.training import sharding

NGRAM = "ngram"
LARGEST = 1 << 31  # bytes of a sample file: two million samples of 1,000 characters
ORDER = 6


def corpus_of(experiment: Experiment) -> Corpus:
    """The corpus that a run was trained on."""
    return read_corpus(experiment)


def ngram_judge(corpus: Corpus) -> NGramJudge:
    """The n-gram judge of a corpus's training split."""
    model = NGram.fit(training_tokens(corpus), corpus.tokenizer.size, ORDER)
    return NGramJudge(model, corpus.tokenizer, corpus.fingerprint)


def network_judge(workdir: Path) -> NetworkJudge:
    """The judge in a workdir.

    Raises:
      UserError: for a workdir whose model has no exact likelihood.
    """
    experiment, params, step = loading.load_trained(workdir)
    require(
        experiment.objective.exact,
        f"--judge={workdir}: {experiment.config.recipe} has only a bound of the likelihood; "
        "a judge is an autoregressive run (method=ar)",
    )
    score = likelihood.score_fn(experiment.model, experiment.objective.as_bound(1))
    start = experiment.process.start  # type: ignore[attr-defined]  # of a left-to-right process

    def hidden(params: Any, arrays: dict[str, Any], key: Any) -> Any:
        z = shifted(arrays["z0"], None, start)
        return experiment.model.bind(params).trunk(z, Cond()).features

    def placed(fn: Any) -> Any:
        out = sharding.replicated(experiment.mesh)
        run = jax.jit(sharding.on(experiment.mesh, fn), out_shardings=out)
        everywhere = lambda key: sharding.everywhere(experiment.mesh, key)
        return lambda params, arrays, key: run(
            params, sharding.put_whole(experiment.mesh, arrays), everywhere(key)
        )

    pieces = sharding.shards(experiment.mesh)
    return NetworkJudge(
        score=placed(score),
        hidden=placed(hidden),
        params=params,
        tokenizer=experiment.tokenizer,
        length=experiment.config.data.length,
        name=workdir.name,
        fingerprint=f"{fingerprint(experiment.config)}-{step}",
        batch=-(-64 // pieces) * pieces,
    )


def make_judge(name: str, corpus: Any) -> Judge:
    """`ngram`, a GPT-2 folder or an autoregressive workdir; `corpus()` is called for the first."""
    if name == NGRAM:
        return ngram_judge(corpus())
    place = storage.at(name)
    if any(place.glob("*.safetensors")):
        return gpt2.load(storage.local(place))
    require(
        (place / "config.json").is_file(),
        f"--judge={name}: give {NGRAM!r}, the workdir of an autoregressive run, or a folder with "
        "a GPT-2 (config.json, *.safetensors)",
    )
    return network_judge(place)


def validation_samples(
    corpus: Corpus, count: int
) -> tuple[list[str], list[np.ndarray] | None, str]:
    """At most `count` rows of the validation split, evenly spread, as `read_samples` gives them."""
    rows = corpus.rows("validation")
    pick = np.linspace(0, len(rows) - 1, min(len(rows), count)).astype(int)
    found = [rows[int(i)] for i in pick]
    ids = [np.asarray(row["tokens"])[~np.asarray(row["keep"])] for row in found]
    texts = [corpus.tokenizer.decode(row.tolist()) for row in ids]
    return texts, ids, corpus.tokenizer.digest


def read_samples(path: Path) -> tuple[list[str], list[np.ndarray] | None, str]:
    """Texts, token rows if every line has them, and their tokenizer's digest ("" = not said).

    A file that `sample` wrote (a JSON object with `text` a line), or plain text, one sample a line.

    Raises:
      UserError: for a file that cannot be read or holds no sample.
    """
    try:
        # Not splitlines: a text may hold line separators that JSON leaves as they are.
        text = reading.read_text(path, LARGEST)
        lines = [line for line in text.split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from error
    require(bool(lines), f"{path} holds no samples")
    if not lines[0].lstrip().startswith("{"):
        return lines, None, ""
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
        except ValueError as error:
            raise UserError(f"{path} line {number} is no JSON: {error}") from error
        require(
            isinstance(record, dict) and isinstance(record.get("text"), str),
            f"{path} line {number} has no 'text'",
        )
        records.append(record)
    texts = [r["text"] for r in records]
    said = {str(r.get("tokenizer", "")) for r in records}
    rows = [r.get("tokens") for r in records]
    of_ids = lambda r: all(type(i) is int and 0 <= i < 2**31 for i in r)
    whole = all(isinstance(r, list) and of_ids(r) for r in rows)
    if len(said) > 1 or not whole:
        return texts, None, ""
    return texts, [np.asarray(r, np.int64) for r in rows], said.pop()
