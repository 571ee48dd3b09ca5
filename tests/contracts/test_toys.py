"""Systems with a clock by position, points for states and a mask of their own need no new path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import Cond, TokenSpace, as_batch
from ldd_jax.samplers import Ancestral, FirstHitting, sample
from ldd_jax.samplers.net import Net
from tests.cli import tools
from tests.contracts import toys
from tests.lab import first_params

TOKENS = TokenSpace(size=5, mask=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "toy, method", [("slanted", "mdlm"), ("codes", "lddm_m"), ("near", "mdlm")]
)
def test_it_trains_samples_and_is_scored_from_the_command_line(toy, method, tmp_path):
    text, config = tmp_path / "text", tmp_path / "config.py"
    text.write_text(tools.sentences(200))
    config.write_text("from tests.contracts.toys import get_config\n")
    work = f"--workdir={tmp_path / 'run'}"
    argument = f"--config={config}:method={method},toy={toy}"
    given = (*tools.SIZES, *tools.OPTIM, *tools.corpus(text), "--config.training.num_steps=6")
    tools.good("train", argument, work, *given)
    assert "nats" in tools.good("evaluate", work).out
    tools.good("sample", work, "--num_samples=2", f"--output={tmp_path / 's.jsonl'}")
    rows = tools.json_lines(tmp_path / "s.jsonl")
    assert [len(r["tokens"]) for r in rows] == [16, 16] and {r["calls"] for r in rows} == {
        4 + (toy == "codes")  # the only one without a mask
    }


@pytest.mark.slow
def test_positions_keep_their_own_time():
    """P(masked after the step to t) = t^(1 + i / L), by counting; all is revealed at the end."""
    process, length, rows = toys.Slanted(tokens=TOKENS), 4, 4000
    index = jnp.arange(rows)
    denoiser = toys.DiT(tokens=TOKENS, width=8, heads=2, depth=1, cond_width=4, latent=False)
    net = Net(denoiser.bind(first_params(denoiser)), process)
    prior = process.prior(example_keys(jax.random.key(1), index), length)
    assert prior[1].shape == (rows, length)
    draw = Production.of(jax.random.key(2), index)
    run = jax.jit(lambda: sample(net, Ancestral(), draw, prior, 4, record=lambda s: (s.z, s.clock)))
    last, (z, clock) = run()
    assert (np.asarray(last.z) < 4).all()
    power = 1 + np.arange(length) / length
    for i, t in enumerate((0.75, 0.5, 0.25)):
        level = np.asarray(process.schedule.noise(jnp.asarray(t**power))) / (1 - 1e-3)
        np.testing.assert_allclose(clock[i], np.tile(t**power, (rows, 1)), rtol=1e-2)
        masked = np.mean(np.asarray(z[i]) == 4, axis=0)
        error = np.sqrt(level * (1 - level) / rows)
        assert (np.abs(masked - level) < 4 * error + 2e-3).all(), (masked, level)
    with pytest.raises(ValueError, match="draws the next of hitting times"):
        sample(net, FirstHitting(), draw, prior, 1)


def test_the_bound_of_a_clock_by_position_is_exact_for_an_ideal_network():
    """Independent uniform tokens: log V nats each, whatever the clocks (logits 0 are ideal)."""
    process, length, rows = toys.Slanted(tokens=TOKENS), 8, 4096
    model = toys.DiT(tokens=TOKENS, width=8, heads=2, depth=1, cond_width=4, latent=False)
    denoiser = model.bind(first_params(model))
    objective = toys.SlantedNelbo(process=process, num_classes=0, dropout=False).as_bound(1)
    arrays = dict(
        z0=jax.random.randint(jax.random.key(1), (rows, length), 0, 4),
        keep=jnp.zeros((rows, length), bool),
        weight=jnp.ones((rows, length)),
        index=jnp.arange(rows),
    )
    run = jax.jit(lambda arrays, key: objective(denoiser, as_batch(arrays), key).total)
    loss = run(arrays, jax.random.key(2))
    assert float(loss) == pytest.approx(np.log(4), rel=0.02)


def test_a_mask_of_ones_own_is_obeyed():
    """Depth 2, two neighbours a layer: no output depends on what is five places away."""
    model = toys.Near(tokens=TOKENS, width=8, heads=2, depth=2, latent=False, adaln=False)
    denoiser = model.bind(first_params(model))
    out = jax.jit(lambda z: denoiser.trunk(z, Cond()).features)
    z = jnp.zeros((1, 12), jnp.int32)
    moved = np.abs(np.asarray(out(z.at[0, 3].set(1)) - out(z)))[0].max(-1)
    np.testing.assert_array_equal(moved > 0, np.abs(np.arange(12) - 3) <= 4)
