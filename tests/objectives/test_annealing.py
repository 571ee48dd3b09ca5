"""The share of open entries by the number of the update; one draw for both passes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import TokenSpace, as_batch
from ldd_jax.denoisers import DiT
from ldd_jax.objectives import Nelbo, PseudoContext
from ldd_jax.processes import Masked
from tests.lab import first_params

TOKENS = TokenSpace(size=5, mask=4)
MODEL = DiT(tokens=TOKENS, width=8, depth=1, heads=2, cond_width=4, latent=True)
OBJECTIVE = Nelbo(process=Masked(tokens=TOKENS), context=PseudoContext(p=1.0), anneal_steps=10)
Z0 = jnp.asarray([[0, 1, 2, 3, 0, 1]] * 4)


@dataclasses.dataclass
class Watching:
    """A denoiser that notes who sees whom at every call."""

    inner: object
    calls: list

    def trunk(self, z, cond, h=None, **more):
        self.calls.append(cond.attend)
        return self.inner.trunk(z, cond, h, **more)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def attends(monkeypatch, objective, step):
    """What both passes of one update are told."""
    monkeypatch.setattr(jax.lax, "stop_gradient", lambda a: a)
    calls: list = []
    batch = as_batch(
        dict(z0=Z0, keep=Z0 < 0, weight=jnp.ones(Z0.shape), index=jnp.arange(4))
    )._replace(step=step)
    denoiser = Watching(MODEL.bind(first_params(MODEL)), calls)
    objective(denoiser, batch, jax.random.fold_in(jax.random.key(0), step))
    return calls


@pytest.mark.slow
def test_the_share_grows_and_both_passes_see_the_same(monkeypatch):
    masks = {}
    for step, share in ((0, 0.1), (4, 0.5), (9, 1.0), (30, 1.0)):
        first, second = attends(monkeypatch, OBJECTIVE, step)
        assert first.kind == second.kind == "annealed"
        assert float(first.share) == pytest.approx(share)
        masks[step] = np.asarray(first.drawn(60).mask)
        np.testing.assert_array_equal(masks[step], second.drawn(60).mask)
        open_ = masks[step][~np.tri(60, dtype=bool)].mean()
        assert (
            abs(open_ - share) < 4 * 0.5 / 1770**0.5 and masks[step][np.tri(60, dtype=bool)].all()
        )
    assert (masks[4] != masks[0]).any()


@pytest.mark.slow
def test_evaluation_sees_both_ways_and_0_is_off(monkeypatch):
    for objective in (OBJECTIVE.as_bound(2), dataclasses.replace(OBJECTIVE, anneal_steps=0)):
        assert attends(monkeypatch, objective, 0) == [None, None]
    with pytest.raises(ValueError, match="anneal_steps is -1"):
        Nelbo(process=Masked(tokens=TOKENS), anneal_steps=-1)
