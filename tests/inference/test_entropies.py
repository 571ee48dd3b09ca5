"""Entropies of the next byte stand at the byte before it; samples take the patches of rows."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import TokenSpace, Trunk
from ldd_jax.data import Bytes, EntropyPatches, PatchedText, SpacePatches
from ldd_jax.data.patched import PatchedRows
from ldd_jax.inference import entropies
from ldd_jax.inference.patterns import Patterns
from ldd_jax.oracle.laws import Identity
from ldd_jax.processes import LeftToRight

DATA = PatchedText(path="x", length=8, tokenizer=Bytes(), patches=EntropyPatches(model="run"))


@struct.dataclass
class Doubtful:
    """After byte 0 anything may come, after any other byte 1 does."""

    head = Identity()

    def trunk(self, z, cond):
        """Logits of 258 states."""
        sure = 50.0 * (jnp.arange(258) == 1)
        return Trunk(jnp.where(z[..., None] == 0, 0.0, sure), None)


def run(length=8, size=257):
    process = LeftToRight(tokens=TokenSpace(size=258, mask=257))
    model = SimpleNamespace(causal=True, bind=lambda params: Doubtful())
    config = SimpleNamespace(data=SimpleNamespace(length=length))
    return SimpleNamespace(
        process=process, model=model, tokenizer=SimpleNamespace(size=size), config=config
    )


def test_the_entropy_of_a_byte_stands_before_it(monkeypatch):
    monkeypatch.setattr(entropies, "load_trained", lambda path: (run(), None, 1))
    tokens = np.random.default_rng(0).integers(0, 3, (70, 8))
    found = entropies.of(DATA)(tokens)
    expected = np.where(tokens == 0, np.log(257), 0)
    expected[:, -1] = 0
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert entropies.of(PatchedText(path="x")) is None  # they follow spaces


@pytest.mark.parametrize("how", [dict(length=7), dict(size=90)])
def test_another_model_is_refused(monkeypatch, how):
    monkeypatch.setattr(entropies, "load_trained", lambda path: (run(**how), None, 1))
    with pytest.raises(UserError, match="same tokenizer, with rows as long"):
        entropies.of(DATA)
    with pytest.raises(UserError, match="data.patches.model=WORKDIR"):
        entropies.of(PatchedText(path="x", patches=EntropyPatches()))


def test_a_sample_takes_the_patches_of_a_row_and_of_its_own_prompt():
    rule = SpacePatches(most=4)
    texts = [b"ab cd ef", b"abcdefgh", b"a b c d "]
    rows = [{"tokens": np.frombuffer(t, np.uint8).astype(np.int32)} for t in texts]
    data = PatchedText(path="x", length=8, tokenizer=Bytes(), patches=rule)
    patterns = Patterns(data, PatchedRows(rows, rule))
    free = np.zeros((40, 8), bool)
    index = np.arange(40)
    units = patterns.units(index, 3, free.astype(int), free)
    known = {tuple(PatchedRows(rows, rule)[i]["unit"]) for i in range(3)}
    assert {tuple(u) for u in units} == known == {(0, 0, 0, 1, 1, 1, 2, 2), (0,) * 8,
                                                 (0, 0, 1, 1, 2, 2, 3, 3)}  # fmt: skip
    np.testing.assert_array_equal(
        units[5:9], patterns.units(index[5:9], 3, free[5:9] * 1, free[5:9])
    )
    prompt = np.tile(np.frombuffer(b"x yz ---", np.uint8).astype(int), (40, 1))
    held = np.tile(np.arange(8) < 5, (40, 1))
    given = patterns.units(index, 3, np.where(held, prompt, 0), held)
    # Starts at 0, 2 and, after the prompt's last space, 5; then those of the row, at most four.
    np.testing.assert_array_equal(given[:, :6], np.tile([0, 0, 1, 1, 1, 2], (40, 1)))
    assert given.max() == 3
