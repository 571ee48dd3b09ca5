"""What comes first: the cost of a position under every order."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.samplers.orders import ORDERS, cost_of

P = np.asarray([[0.5, 0.3, 0.2], [0.6, 0.39, 0.01], [0.4, 0.35, 0.25]])
TOKEN = np.asarray([1, 0, 2])
# By margins of logarithms the second row would come after the first.
COSTS = {
    "entropy": -(P * np.log(P)).sum(1),
    "confidence": -np.log(P.max(1)),
    "margin": -np.asarray([0.2, 0.21, 0.05]),
    "sampled": -np.log(np.asarray([0.3, 0.6, 0.25])),
    "random": np.zeros(3),
}


@pytest.mark.parametrize("order", COSTS)
def test_by_hand(order):
    found = cost_of(order, jnp.log(P), jnp.asarray(TOKEN))
    np.testing.assert_allclose(found, COSTS[order], rtol=1e-5, atol=1e-6)


def test_all_of_them():
    assert set(COSTS) == set(ORDERS)
