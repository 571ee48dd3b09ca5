"""Rows that stop early, watched while they sample."""

import json
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from ldd_jax.config import experiment, stored
from ldd_jax.core.checks import UserError
from ldd_jax.data import Characters
from ldd_jax.inference import trace
from ldd_jax.report import frames
from ldd_jax.samplers.stops import LowEntropy, Never, Still
from tests.inference.test_written_before import waves

KEPT = json.loads((Path(__file__).parent / "written_before.json").read_text())
STEPS = 6


def watched(name, asked, **changes):
    config = ConfigDict(KEPT[name]["config"])
    config.sampling.update(changes)
    built = experiment.build(
        stored.as_config(config.lock(), "the file"), Characters().fit(lambda: ["abcdefghij"])
    )
    params = waves(jax.eval_shape(built.model.init, jax.random.key(0)))
    return trace.watch(built, params, steps=STEPS, samples=3, seed=1, stop=asked)


@pytest.mark.slow
def test_a_row_that_stops_stands_still_and_is_measured_no_more():
    plain, early = (watched("masked", stop) for stop in (None, LowEntropy(threshold=99.0)))
    assert "ended" not in plain["counts"] and "ended" not in plain["paths"][0]
    assert early["counts"]["ended"] == 1 and early["counts"]["ended_se"] == 0
    assert early["calls"] == 2 and plain["calls"] == STEPS
    for path, whole in zip(early["paths"], plain["paths"]):
        assert path["ended"] == 1 and len(path["tokens"]) == STEPS + 2
        assert path["tokens"][:2] == whole["tokens"][:2]  # the step that it took is the same
        assert all(step == path["tokens"][1] for step in path["tokens"][2:-1])
        assert path["tokens"][-1] != path["tokens"][1]  # the noise removal
        assert path["entropy"][0] == whole["entropy"][0]
        assert all(v is None for step in path["entropy"][1:] for v in step)
    mean = early["curves"]["norm"]
    assert mean[0] == plain["curves"]["norm"][0] and mean[1:] == [None] * (STEPS - 1)
    assert "busy_expected" in plain["counts"] and "busy_expected" not in early["counts"]
    titles = [f.title for f in frames.frames("x", early["paths"][0])]
    assert [", ended after 1" in t for t in titles] == [False] * 2 + [True] * STEPS


@pytest.mark.slow
def test_the_stop_is_the_runs_own_and_rules_with_their_own_clock_have_it_too():
    stop = dict(name="entropy", threshold=99.0)
    found = watched("masked own clock", None, stop=stop)
    assert [path["ended"] for path in found["paths"]] == [1] * 3 and found["calls"] == 2
    whole = watched("masked own clock", Never(), stop=stop)
    assert whole["calls"] == 8 and "ended" not in whole["paths"][0]
    with pytest.raises(UserError, match="tail none leaves it"):
        watched("masked", Still(), tail="none")
