"""How often things compile is part of the contract."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from ldd_jax.config import experiment as experiments
from ldd_jax.core import registry
from ldd_jax.data import batches
from ldd_jax.inference import generate, loading
from ldd_jax.training import sharding
from ldd_jax.training import state as states
from tests.cli import tools


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mdlm", "lddm_m"])
def test_a_run_compiles_each_program_once(compiled, method, train_flags, tmp_path):
    """12 steps, 2 evaluations, 4 rounds of samples, 3 checkpoints."""
    flags = (*train_flags, "--config.training.sample_every=3")
    tools.good("train", tools.recipe(method), f"--workdir={tmp_path / 'run'}", *flags)
    counts = compiled()
    assert [counts[f"jit({n})"] for n in ("train_step", "score", "sampler")] == [1, 1, 1], counts


def test_commands_compile_once(compiled, trained, tmp_path):
    output, workdir = f"--output={tmp_path / 'out.jsonl'}", f"--workdir={trained('lddm_m')}"
    compiled.clear()  # the run itself may have been trained just now
    tools.good("evaluate", workdir, "--passes=2,2", output)
    assert compiled()["jit(score)"] == 1  # equal bounds share it
    tools.good("sample", workdir, "--num_samples=9", output)
    assert compiled()["jit(sampler)"] == 1  # three batches


@pytest.fixture
def loaded(trained):
    return loading.load_trained(trained("lddm_m"))


def equations(jaxpr) -> int:
    """Number of equations, nested ones included."""
    total = 0
    for eqn in jaxpr.eqns:
        total += 1
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda v: isinstance(v, jax.extend.core.ClosedJaxpr)
        ):
            inner = getattr(value, "jaxpr", value)
            total += equations(inner) if hasattr(inner, "eqns") else 0
    return total


@pytest.mark.slow
def test_sampler_compiles_once_for_every_number_of_steps(compiled, loaded):
    experiment, params, _ = loaded
    sampler = generate.Sampler.make(experiment, experiment.sampling, 16)
    calls = {}
    for steps in (4, 16, 1024):
        records = list(sampler.records(params, seed=0, count=4, num_steps=steps))
        calls[steps] = records[0]["calls"]
    assert calls == {4: 4, 16: 16, 1024: 1024}
    assert compiled()["jit(sampler)"] == 1 and sampler.compiled._cache_size() == 1

    def size(steps):
        index, row = jnp.arange(4, dtype=jnp.uint32), jnp.zeros((4, 16), jnp.int32)
        label = jnp.zeros(4, jnp.int32)
        args = (params, jnp.uint32(0), index, label, row, row > 0, jnp.int32(steps))
        return equations(jax.make_jaxpr(sampler.compiled)(*args).jaxpr)

    assert size(16) == size(1024) > 50


@pytest.mark.slow
def test_the_step_never_waits_for_the_host(trained):
    """Device arrays in, device arrays out, and no transfer between; compiled once."""
    experiment = experiments.restore(trained("lddm_m"))
    update, key = experiment.update, experiment.key(1)
    like = states.abstract(experiment.model, update.optimizer, experiment.mesh)
    state = states.initial(experiment.model, update.optimizer, experiment.mesh, experiment.key(0))
    corpus = registry.build("data", experiment.config.data).load(experiment.tokenizer)
    stream = batches(corpus.train, batch_size=8)
    out = (states.shardings(like), None)
    step = jax.jit(sharding.on(experiment.mesh, update), donate_argnums=0, out_shardings=out)
    placed = [sharding.put(experiment.mesh, next(stream)) for _ in range(4)]
    state, metrics = step(state, placed[0], key)
    with jax.transfer_guard("disallow"):
        for arrays in placed[1:]:
            old = state
            state, metrics = step(state, arrays, key)
    assert step._cache_size() == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old.params))  # donated
    assert jax.tree.leaves(old.ema)[0].is_deleted() and float(metrics["loss"]) > 0
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="[Dd]isallowed"):
        step(state, next(stream), key)  # the guard is awake: numpy arrays are refused
