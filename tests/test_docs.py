"""The code blocks of docs/extending.md run, and what they register can be built and used."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.registry import build, names
from ldd_jax.core.types import TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.processes import Masked
from ldd_jax.samplers import sample
from ldd_jax.samplers.base import Net

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str) -> list[str]:
    """Python code blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)


@pytest.mark.slow
def test_extending_examples_run():
    schedule_block, step_block = blocks("extending.md")
    space: dict = {}
    exec(compile(schedule_block, "extending.md", "exec"), space)  # the docs' own code
    tokens = TokenSpace(size=5, mask=4)
    process = build("process", space["process"], tokens=tokens)
    assert process.schedule.registered == ("schedule", "square_root")
    t = jnp.linspace(0.1, 0.9, 5)
    assert jnp.allclose(process.schedule.d_alpha(t), -(1 - 1e-3) / 2 * t**-0.5, rtol=1e-5)

    exec(compile(step_block, "extending.md", "exec"), space)
    assert "arg_max_all" in names("step")
    model = DiT(tokens=tokens, width=8, depth=1, heads=2, cond_width=4)
    net = Net(model.bind(model.init(jax.random.key(0))), Masked(tokens=tokens))
    index = jnp.arange(2)
    prior = net.process.prior(example_keys(jax.random.key(0), index), 6)
    state, _ = sample(net, space["ArgMaxAll"](), Production.of(jax.random.key(1), index), prior, 3)
    assert (state.z < 4).all() and state.calls.tolist() == [4, 4]
