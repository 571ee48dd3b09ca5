"""Heat-bath chains against exact means, and the lines of the table."""

import importlib

import pytest

from ldd_jax.targets import Ising, Potts
from tests.training.processes import ROOT


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    return importlib.import_module("energy")


@pytest.mark.parametrize("target", [Ising(), Potts(side=2, field=0.3, beta=0.6)])
def test_chains_find_the_exact_means(script, target):
    found = script.gibbs(target, 400)
    means = target.truth().means
    for name in ("energy", "magnetisation", "abs_magnetisation", "two_point_1"):
        assert abs(found[name] - means[name]) < 4 * found[f"{name}_se"], name
        assert found[f"{name}_se"] < 0.02 * (1 + abs(means[name]))
        assert found[f"{name}_r_hat"] < 1.3


def test_chains_that_have_not_met_say_so(script):
    """Far below the critical temperature no chain leaves the sign that it began with."""
    cold = script.gibbs(Ising(side=8, beta=1.0, field=0.0), 60)
    assert cold["magnetisation_r_hat"] > 5
    with pytest.raises(ValueError, match="side 3"):
        script.gibbs(Ising(side=3), 10)


def test_a_line_of_the_table(script):
    one = {"ess": 0.9, "elbo": 1.0, "log_z": 1.1, "path_kl": 0.1, "magnetisation": 0.2}
    one |= {"two_point_1": 0.3, "magnetisation_se": 0.01}
    truth = {"log_z": 1.0, "magnetisation": 0.18}
    line = script.row("mdns", [one, one | {"ess": 1.0}], truth)
    assert line.startswith("mdns | 0.9500 +- 0.0500 | 1.0000 +- 0.0000")
    assert line.endswith("+0.1000 +0.1000 | +2.0 +2.0")
    assert script.row("mdns", [one], {"magnetisation": 0.2}).endswith("| - | +0.0")
