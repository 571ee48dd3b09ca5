"""The share of examples that lose their condition, and what they lose."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import Batch, Cond, TokenSpace, Trunk
from ldd_jax.evaluation.conditional import reveal_fn
from ldd_jax.objectives import Nelbo
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import Ancestral, Clamp, sample
from ldd_jax.samplers.guidance import guide_prompt
from ldd_jax.samplers.net import Net
from tests.lab import jit
from tests.samplers.rules import PROCESSES, Toy

MASK = 5
PROCESS = Masked(tokens=TokenSpace(size=6, mask=MASK))


class Spy:
    """Keeps what the network was shown."""

    timed = False

    def latent(self, batch, length):
        return None

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        self.z, self.label = z, cond.label
        return Trunk(features=jnp.zeros((*z.shape, 1)), latent=None)

    def head(self, features):
        return jnp.zeros((features.shape[0], 6))


def batch(number):
    keep = jnp.tile(jnp.arange(8) < 3, (number, 1))
    index = jnp.arange(number)
    z0 = jnp.ones((number, 8), jnp.int32)
    cond = Cond(label=index % 4)
    return Batch(z0, keep, (~keep) * 1.0, cond, index, number, 5.0 * number)


def test_label_and_prompt_go_together_for_the_stated_share():
    number, spy = 4000, Spy()
    objective = Nelbo(process=PROCESS, condition_dropout=0.3, num_classes=4)
    loss = objective(spy, batch(number), jax.random.key(0))
    lost = np.asarray(spy.label == 4)
    assert abs(lost.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / number)
    np.testing.assert_array_equal(spy.label[~lost], (np.arange(number) % 4)[~lost])
    assert (spy.z[lost, :3] == MASK).all() and (spy.z[~lost, :3] == 1).all()
    # nothing else changes: same corruption, and hidden prompts are not scored
    plain = Spy()
    other = Nelbo(process=PROCESS, num_classes=4)(plain, batch(number), jax.random.key(0))
    np.testing.assert_array_equal(spy.z[:, 3:], plain.z[:, 3:])
    np.testing.assert_array_equal(plain.label, np.arange(number) % 4)
    np.testing.assert_allclose(loss.total, other.total, rtol=1e-6)
    bound = objective.as_bound(1)
    bound(spy, batch(number), jax.random.key(0))
    assert (spy.label < 4).all()


@pytest.mark.slow
def test_examples_of_no_class_have_the_label_of_none():
    """As samples have; a network of classes never saw the label missing."""
    spy, examples = Spy(), batch(6)._replace(cond=Cond())
    Nelbo(process=PROCESS, num_classes=4)(spy, examples, jax.random.key(0))
    np.testing.assert_array_equal(spy.label, np.full(6, 4))
    Nelbo(process=PROCESS, num_classes=0)(spy, examples, jax.random.key(0))
    assert spy.label is None
    network = types.SimpleNamespace(num_classes=4, bind=lambda params: spy)
    reveal = reveal_fn(network, PROCESS, 1)
    reveal(None, examples.z0, ~examples.keep, jnp.ones((6, 8), jnp.int32))
    np.testing.assert_array_equal(spy.label, np.full(6, 4))


def test_uniform_diffusion_cannot_hide_a_prompt():
    uniform = Uniform(tokens=TokenSpace(size=6))
    with pytest.raises(ValueError, match="needs classes"):
        Nelbo(process=uniform, condition_dropout=0.1, num_classes=0)
    with pytest.raises(ValueError, match="must lie in"):
        Nelbo(process=PROCESS, condition_dropout=1.0, num_classes=0)
    with pytest.raises(ValueError, match="needs masked diffusion"):
        guide_prompt(Net(Toy.make(), PROCESSES["uniform"]), gamma=2.0)


@pytest.mark.slow
def test_guidance_by_a_prompt():
    # The toy sees the prompt through the mean of its row; 1 is the plain sampler with one pass.
    net, b = Net(Toy.make(), PROCESSES["masked"], tile=6), jnp.arange(4)
    prior = net.process.prior(example_keys(jax.random.key(1), b), 6)
    clamp = Clamp(jnp.full((4, 6), 3), jnp.tile(jnp.arange(6) < 3, (4, 1)))
    draw = Production.of(jax.random.key(2), b)
    run = lambda net: jit(lambda: sample(net, Ancestral(), draw, prior, 4, clamp=clamp)[0])()
    plain, same, strong = (run(n) for n in (net, guide_prompt(net, gamma=1.0),
                                            guide_prompt(net, gamma=6.0)))  # fmt: skip
    np.testing.assert_array_equal(plain.z, same.z)
    assert strong.calls.tolist() == [8] * 4 and plain.calls.tolist() == [4] * 4
    assert (strong.z[:, :3] == 3).all() and (strong.z != plain.z).any()
    hidden = run(guide_prompt(net, gamma=0.0))
    free = jit(
        lambda: sample(net, Ancestral(), draw, prior, 4, clamp=clamp._replace(fixed=clamp.fixed))[0]
    )()
    assert (hidden.z[:, 3:] != free.z[:, 3:]).any()
