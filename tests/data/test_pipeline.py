from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.data import Bytes, TextData, batches, prepare
from ldd_jax.data.packing import Layout, Packer, collect


def make_rows(n, **layout):
    """Row i holds the byte i twice."""
    tokenizer = Bytes().fit(list, needs=("eos", "pad"))
    text = "".join(chr(i) * 2 for i in range(n))
    layout = Layout(length=2, eos=False, **layout)
    return collect(Packer(layout, tokenizer), [text[2 * i : 2 * i + 2] for i in range(n)])


def order(iterator, steps):
    return [b["z0"][:, 0].tolist() for b in itertools.islice(iterator, steps)]


def test_shapes_types_and_epochs():
    rows = make_rows(20, segments=True)
    out = list(itertools.islice(batches(rows, batch_size=5, seed=3), 12))
    for batch in out:
        assert {k: (v.shape, str(v.dtype)) for k, v in batch.items()} == {
            "z0": ((5, 2), "int32"),
            "keep": ((5, 2), "bool"),
            "weight": ((5, 2), "float32"),
            "segment": ((5, 2), "int32"),
            "index": ((5,), "int32"),
        }
        assert batch["index"].tolist() == [0, 1, 2, 3, 4]
    epochs = [[t for b in out[e * 4 : e * 4 + 4] for t in b["z0"][:, 0].tolist()] for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(20))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0] and epochs[0] != sorted(epochs[0])
    # The next seed is another order, not this one an epoch later.
    other = order(batches(rows, batch_size=20, seed=4), 3)
    assert not any(o in epochs for o in other)


def test_epochs_run_into_each_other_and_nothing_is_lost():
    rows = make_rows(7)
    flat = [t for b in order(batches(rows, batch_size=3, seed=0), 7) for t in b]
    assert all(sorted(flat[i : i + 7]) == list(range(7)) for i in (0, 7, 14))
    plain = order(batches(rows, batch_size=3, shuffle=False), 3)
    assert plain == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]


def share(size, p, processes):
    return range(size // processes * p, size // processes * (p + 1))


@pytest.mark.parametrize("processes", [2, 3, 6])
@pytest.mark.parametrize("options", [{}, {"shuffle": False, "repeat": False}])
def test_order_does_not_depend_on_the_number_of_processes(processes, options):
    rows = make_rows(25, segments=True)
    whole = batches(rows, batch_size=6, seed=1, threads=0, **options)
    parts = [
        batches(rows, batch_size=6, seed=1, own=share(6, p, processes), **options)
        for p in range(processes)
    ]
    for _ in range(whole.steps or 10):
        expected, shares = next(whole), [next(p) for p in parts]
        for name, value in expected.items():
            assert (np.concatenate([s[name] for s in shares]) == value).all()
        assert shares[1]["index"][0] == 6 // processes


@pytest.mark.parametrize("threads", [0, 2])
def test_exact_resume_at_any_step_and_on_other_processes(threads):
    rows = make_rows(10)
    straight = order(batches(rows, batch_size=4, seed=2, threads=threads), 12)
    for stop in (0, 1, 5, 8):
        first = batches(rows, batch_size=4, seed=2, threads=threads)
        order(first, stop)
        state = json.loads(json.dumps(first.get_state()))
        assert state == {"next_step": stop}
        again = batches(rows, batch_size=4, seed=2, threads=threads)
        order(again, 3)  # wherever it stood
        again.set_state(state)
        assert again.get_state() == state
        assert order(again, 12 - stop) == straight[stop:]
        halves = [
            batches(rows, batch_size=4, seed=2, own=share(4, p, 2), threads=threads) for p in (0, 1)
        ]
        for half in halves:
            half.set_state(state)
        left, right = (order(half, 12 - stop) for half in halves)
        assert [a + b for a, b in zip(left, right, strict=True)] == straight[stop:]


def test_evaluation_pads_the_last_batch():
    rows = make_rows(7, segments=True)
    for size in (4, 7, 10):
        iterator = batches(rows, batch_size=size, shuffle=False, repeat=False)
        out = list(iterator)
        assert len(out) == iterator.steps == -(-7 // size)
        assert {b["z0"].shape for b in out} == {(size, 2)}
        weight = np.concatenate([b["weight"] for b in out])
        keep = np.concatenate([b["keep"] for b in out])
        assert weight[:7].all() and not weight[7:].any()
        assert not keep[:7].any() and keep[7:].all()
        tokens = np.concatenate([b["z0"][:, 0] for b in out])[:7]
        assert tokens.tolist() == list(range(7))
        assert not np.concatenate([b["segment"] for b in out])[7:].any()
        iterator.set_state({"next_step": 0})
        assert len(list(iterator)) == len(out)


def test_refusals():
    rows = make_rows(10)
    for options, match in (
        ({"batch_size": 11}, "larger than the data .10 rows."),
        ({"batch_size": 5, "own": range(3, 6)}, "are no rows of a batch of 5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2, "seed": -1}, "seed=-1"),
        ({"batch_size": 2, "threads": -1}, "threads=-1"),
        ({"batch_size": 2, "own": range(1, 1)}, "are no rows"),
    ):
        with pytest.raises(UserError, match=match):
            batches(rows, **options)
    with pytest.raises(UserError, match="no rows"):
        batches(make_rows(0), batch_size=1)
    iterator = batches(rows, batch_size=5, repeat=False)
    for state in (
        {},
        {"next_step": -1},
        {"next_step": 1.5},
        {"next_index": 1},
        3,
        {"next_step": 3},
    ):
        with pytest.raises(UserError, match="data state"):
            iterator.set_state(state)


def test_prepared_rows_give_the_same_batches(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("\n".join(f"line {i} of a small text" for i in range(50)))
    config = TextData(path=str(path), split="line", length=16, validation_fraction=0.3)
    prepare(config, tmp_path / "out", shards=3)
    direct = batches(config.load().train, batch_size=8, seed=5)
    prepared = TextData(path=str(tmp_path / "out"), length=16).load()
    stored = batches(prepared.train, batch_size=8, seed=5, threads=3)
    for _ in range(12):
        a, b = next(direct), next(stored)
        assert all((a[k] == b[k]).all() for k in a) and a.keys() == b.keys()
