"""Problems become rows whose prompt is kept and whose EOS and padding are learned."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.data import ProblemData
from ldd_jax.tasks import Countdown, Sudoku

TASK = Countdown(numbers=3, largest=9)
DATA = dict(task=TASK, train_count=50, validation_count=20, length=40)


def test_a_row_is_problem_solution_eos_and_learned_padding():
    corpus = ProblemData(**DATA).load()
    tokenizer = corpus.tokenizer
    assert len(corpus.train) == 50 and len(corpus.validation) == 20
    for i in range(20):
        row = corpus.train[i]
        text = tokenizer.decode(row["tokens"])
        problem, solution = text.strip("\n").split("|")
        assert TASK.strict(problem, solution)
        kept = int(row["keep"].sum())
        assert row["keep"][:kept].all() and kept == len(problem) + 1
        np.testing.assert_array_equal(row["weight"], ~row["keep"])
        after = row["tokens"][kept + len(solution) :]
        assert after[0] == tokenizer.eos and (after[1:] == tokenizer.pad).all()
    assert "countdown, seed 0" in corpus.describe() and corpus.unigram_entropy() > 0


def test_the_same_problems_for_every_run_and_others_for_another_seed():
    one, two = ProblemData(**DATA).load(), ProblemData(**DATA).load()
    assert one.fingerprint == two.fingerprint
    assert ProblemData(**DATA, seed=1).load().fingerprint != one.fingerprint
    grid = ProblemData(task=Sudoku(size=4, givens=8), train_count=9, validation_count=3, length=34)
    assert len(grid.load().train) == 9


def test_published_files(tmp_path):
    paths = {}
    for name in ("path", "validation_path"):
        paths[name] = tmp_path / f"{name}.jsonl"
        lines = [{"input": "4,6,24", "output": "4*6=24"}, {"input": "1,2,3", "output": "1+2=3"}]
        paths[name].write_text("".join(json.dumps(x) + "\n" for x in lines))
    given = {k: str(v) for k, v in paths.items()}
    corpus = ProblemData(**DATA | given).load()
    assert len(corpus.train) == 2
    assert corpus.tokenizer.decode(corpus.train[0]["tokens"]) == "4,6,24|4*6=24\n"
    for text, message in (
        ("{", "line 1: not JSON"),
        ('{"input": "1"}', "line 1: not JSON with keys"),
        ('{"input": 1, "output": 2}', "line 1"),
        ("", "holds no problem"),
        ("\xff", "not UTF-8 text"),
    ):
        paths["path"].write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match=message):
            ProblemData(**DATA | given).load()


def test_what_does_not_fit_is_told():
    with pytest.raises(UserError, match="raise data.length"):
        ProblemData(**DATA | {"length": 12}).load()
    with pytest.raises(UserError, match="together"):
        ProblemData(path="x").load()
