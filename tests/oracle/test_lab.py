"""The lab's records, its table, the table of contracts in the docs, and components by text."""

import itertools
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.config import experiment  # noqa: F401  (registers every component)
from ldd_jax.core import registry
from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Cond
from ldd_jax.oracle import report
from ldd_jax.oracle.enumerating_draw import EnumeratingDraw
from ldd_jax.oracle.lab import Measured
from ldd_jax.oracle.laws import Exact, Law
from ldd_jax.samplers import Confidence, GibbsCorrector, PredictorCorrector, ThetaTrapezoidal
from ldd_jax.samplers.contract import table

DOCS = Path(__file__).parents[2] / "docs"


def test_records_and_refused_processes():
    found = list(report.run((report.Case("confidence", Confidence(), (1, 3)),)))
    assert [m.process for m in found] == ["masked"]
    record = json.loads(json.dumps(found[0].record()))
    assert set(record) == {"sampler", "process", "steps", "calls", "kl", "tv", "order_kl"}
    assert record["steps"] == [1, 3] and record["kl"][0] > 0.1 and record["kl"][1] < 1e-13
    assert record["order_kl"] is None
    assert "| confidence | masked | 3 | 3 | 0 | 0 | - |" in report.table(found)


def test_plot(tmp_path):
    m = Measured("a", "masked", [64, 128, 256], [64, 128, 256], [4e-3, 1e-3, 2.5e-4], [1, 1, 1])
    assert m.order_kl == pytest.approx(2)
    report.plot([m], tmp_path / "lab.png")
    assert (tmp_path / "lab.png").stat().st_size > 1000


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("masked", [True, False])
def test_the_exact_denoiser_agrees_with_enumeration(masked):
    law = Law(2, 3, 2, 1.0, masked=masked)
    out = Exact.of(law).trunk(jnp.asarray(law.z), Cond(clock=jnp.full(len(law.z), -np.log(0.3))))
    expected = law.conditionals(0.3, leave_one_out=True)
    np.testing.assert_allclose(np.exp(out.features), expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_probabilities_of_orders_sum_to_one():
    logit = jnp.asarray([[0.3, -jnp.inf, 1.0, -jnp.inf]])
    total = 0.0
    for rank in np.array(list(itertools.permutations(range(4)))):
        draw = EnumeratingDraw({(): jnp.asarray(rank[None])})
        draw.ranking(logit)
        total += float(jnp.exp(draw.log_probability)[0])
    assert abs(total - 1) < 1e-12
    place_2_first = jnp.asarray([[1, 2, 0, 3]])  # then 0, then the rest
    draw = EnumeratingDraw({(): place_2_first})
    draw.ranking(logit)
    e = np.exp([1.0, 0.3])
    assert jnp.exp(draw.log_probability)[0] == pytest.approx(e[0] / e.sum())


def test_docs_hold_the_tables_of_the_code():
    page = (DOCS / "samplers.md").read_text()
    assert table() in page
    for case in report.CASES:
        kind = case.step.processes or "masked"
        assert f"| {case.name} | {kind} |" in page, case.name


def test_components_by_text():
    parse = registry.parse
    assert parse("step", "theta_trapezoidal:theta=0.4") == ThetaTrapezoidal(theta=0.4)
    text = "predictor_corrector:corrector=gibbs,corrector.positions=3,corrections=2"
    expected = PredictorCorrector(corrector=GibbsCorrector(positions=3), corrections=2)
    assert parse("step", text) == expected
    for bad, why in {
        "ancestrall": "did you mean 'ancestral'",
        "remdm:eta": "is not field=value",
        "remdm:etta=1": "did you mean 'eta'",
        "remdm:eta=x": "expected float",
        "remdm:eta=2": "must lie in",
        "remdm:strength=capp": "did you mean 'cap'",
        "remdm:eta.x=2": "is a single value",
        "tau_leaping:leap=first": "allowed: first_jump",
        "predictor_corrector:corrector=gibs": "did you mean 'gibbs'",
        "predictor_corrector:predictor=first_hitting": "time grid",
    }.items():
        with pytest.raises(UserError, match=why):
            parse("step", bad)


def test_enumeration_has_a_limit():
    from ldd_jax.oracle.lab import outcomes

    with pytest.raises(ValueError, match="outcomes to enumerate"):
        outcomes({(0,): "tokens", (1,): "tokens"}, Law(0, 4, 4))
