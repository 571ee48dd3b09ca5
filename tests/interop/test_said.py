"""What other people's configs say, in our words."""

import pytest

from ldd_jax.config.methods import methods
from ldd_jax.interop.said import facts


@pytest.mark.parametrize(
    "config, method",
    [
        ({"algo": {"name": "d3pm"}}, "d3pm"),
        ({"algo": {"name": "d3pm", "subs_masking": True}}, "mdlm"),
        ({"algo": {"name": "distillation"}}, "udlm"),
        ({"algo": {"name": "ot-finetune"}}, "udlm"),
        ({"model_type": "DUO"}, "udlm"),
        ({"parameterization": "d3pm", "diffusion": "absorbing_state"}, "d3pm"),
        ({"parameterization": "d3pm"}, "d3pm"),
        ({"parameterization": "d3pm", "diffusion": "uniform"}, "udlm"),
        ({"parameterization": "subs", "diffusion": "absorbing_state"}, "mdlm"),
        ({"graph": {"type": "absorb"}}, "sedd"),
        ({"graph": {"type": "uniform"}}, "sedd_uniform"),
        ({"algo": {"name": "made_up"}}, None),
    ],
)
def test_methods(config, method):
    assert facts(config).get("method") == method
    assert method is None or method in methods()


@pytest.mark.parametrize(
    "config, schedule",
    [
        ({"noise": {"type": "loglinear", "sigma_min": "1e-4"}}, {"name": "log_linear"}),
        ({"noise": {"type": "log-linear", "eps": "1e-5"}}, {"name": "log_linear", "eps": 1e-5}),
        (
            {"noise": {"type": "geometric", "sigma_min": "1e-4", "sigma_max": 20}},
            {"name": "geometric", "sigma_min": 1e-4, "sigma_max": 20.0},
        ),
        ({"noise": {"type": "cosine"}}, {"name": "cosine"}),
        (
            {"algo": {"name": "duo"}, "noise": {"type": "cosine", "eps": 1e-3}},
            {"name": "cosine_duo", "eps": 1e-3},
        ),
        ({"noise": {"type": "ar"}}, None),
        ({"noise": "loglinear"}, None),
    ],
)
def test_schedules(config, schedule):
    assert facts(config).get("schedule") == schedule


def test_finite_steps_and_dropped_classes():
    assert facts({"algo": {"name": "d3pm", "T": 500}})["steps"] == 500
    assert "steps" not in facts({"algo": {"name": "mdlm", "T": 500}})
    dropout = lambda training: facts({"training": training}).get("condition_dropout")
    assert dropout({"guidance": {"cond_dropout": 0}, "class_dropout_p": 0.1}) == 0
    assert dropout({"guidance": None, "class_dropout_p": 0.2}) == 0.2
    assert dropout({}) is None
