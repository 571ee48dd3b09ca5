"""Normalisers and means of lattices: enumeration, transfer matrix, and figures from elsewhere."""

from __future__ import annotations

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.targets import Ising, Potts, Target

# Computed by another program (enumeration, and a transfer matrix that agrees to 1e-10); h = 0.1.
LOG_Z = {
    (2, 0.28, 0.1): 3.4381745554,
    (3, 0.28, 0.1): 7.1924661527,
    (4, 0.28, 0.1): 12.5615150667,
    (4, 0.4407, 0.1): 15.7014307045,
    (4, 0.6, 0.1): 20.4436975232,
    (4, 0.28, 0.0): 12.5306674527,
    (4, 0.4407, 0.0): 15.5222462867,
    (4, 0.6, 0.0): 20.0565328843,
}


@pytest.mark.parametrize("side, beta, field", LOG_Z)
def test_log_z_of_ising(side, beta, field):
    target = Ising(side=side, beta=beta, field=field)
    found, transferred = target.truth(), target.by_transfer()
    assert found.how == f"{2**target.sites:,} configurations enumerated"
    assert found.log_z == pytest.approx(LOG_Z[side, beta, field], abs=6e-11)
    assert transferred.log_z == pytest.approx(found.log_z, abs=1e-10)
    for name, value in transferred.means.items():
        assert value == pytest.approx(found.means[name], abs=1e-10), name


def test_means_of_ising():
    means = Ising().truth().means
    known = {"magnetisation": 0.136939, "abs_magnetisation": 0.484216, "two_point_1": 0.382100}
    for name, value in {**known, "entropy": 9.076555}.items():
        assert means[name] == pytest.approx(value, abs=6e-7), name


@pytest.mark.parametrize("target", [Ising(side=2, coupling=-0.7), Potts(side=2, field=0.3)])
def test_bonds_are_counted_by_hand(target):
    """Side 2: each of the four pairs twice; all 16 (81) configurations in Python."""
    total = 0.0
    for x in itertools.product(range(target.states), repeat=4):
        s = np.asarray(x)
        value = s if target.states == 3 else 2 * s - 1
        pairs = [(0, 1), (2, 3), (0, 2), (1, 3)]
        equal = lambda a, b: float(a == b) if target.states == 3 else float(a * b)
        bonds = 2 * sum(equal(value[a], value[b]) for a, b in pairs)
        lone = float(np.sum(s == 0)) if target.states == 3 else float(np.sum(value))
        weight = target.beta * (target.coupling * bonds + target.field * lone)
        found = target.log_weight(jnp.asarray(s, jnp.int32)[None])
        assert float(found[0]) == pytest.approx(weight, abs=1e-6)
        total += math.exp(weight)
    assert target.truth().log_z == pytest.approx(math.log(total), abs=1e-12)


def test_potts_with_two_colours_is_ising():
    """[x = x'] = (1 + s s') / 2: J is doubled, and every bond adds J beta / 2."""
    ising = Ising(side=3, field=0.0, beta=0.4).truth()
    potts = Potts(side=3, colours=2, coupling=2.0, beta=0.4).truth()
    assert potts.log_z - 18 * 0.4 == pytest.approx(ising.log_z, abs=1e-10)
    assert potts.means["abs_magnetisation"] == pytest.approx(ising.means["abs_magnetisation"])
    assert 2 * potts.means["two_point_1"] - 1 == pytest.approx(ising.means["two_point_1"])


def test_where_enumeration_ends_the_transfer_matrix_goes_on():
    large = Ising(side=8, field=0.05)
    assert large.truth().how == "transfer matrix of rows"
    # The derivative of log Z by the field is beta sites <m>.
    up, down = (dataclasses.replace(large, field=0.05 + e).by_transfer() for e in (1e-4, -1e-4))
    slope = (up.log_z - down.log_z) / 2e-4
    expected = large.beta * 64 * large.truth().means["magnetisation"]
    assert slope == pytest.approx(expected, rel=1e-6)
    assert Ising(side=16).truth() is None and Potts(side=4).truth().how.startswith("transfer")


@dataclasses.dataclass(frozen=True)
class Parity(Target):
    """Five coins of which an even number must show heads."""

    sites = 5
    states = 2

    def log_weight(self, x_BL):
        return jnp.where(jnp.sum(x_BL, 1) % 2 == 0, 0.3, -jnp.inf)

    def observables(self, x_BL):
        return {"first": x_BL[:, 0].astype(jnp.result_type(float))}


def test_a_weight_of_ones_own():
    found = Parity().truth()
    assert found.log_z == pytest.approx(math.log(16) + 0.3, abs=1e-12)
    assert found.means["first"] == pytest.approx(0.5)
    assert found.means["energy"] == pytest.approx(-0.3)
    assert found.means["entropy"] == pytest.approx(math.log(16))


def test_what_makes_no_lattice():
    for wrong, words in ((dict(side=1), "side is 1"), (dict(beta=0.0), "beta is 0.0")):
        with pytest.raises(ValueError, match=words):
            Ising(**wrong)
    with pytest.raises(ValueError, match="colours is 1"):
        Potts(colours=1)


def test_in_a_program_as_outside():
    x = jax.random.randint(jax.random.key(0), (7, 16), 0, 2)
    target = Ising()
    np.testing.assert_allclose(jax.jit(target.log_weight)(x), target.log_weight(x), rtol=1e-6)
