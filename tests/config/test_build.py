"""Configs that miss a part are built or refused in words."""

from types import SimpleNamespace

import pytest

from ldd_jax.config import experiment
from ldd_jax.config.recipes import make
from ldd_jax.core.checks import UserError


@pytest.mark.parametrize("section", ["data", "objective", "process", "model", "sampling"])
def test_a_section_without_its_name(section):
    config = make({"method": "mdlm", "size": "tiny"}, data=dict(length=8)).unlock()
    del config[section]["name"]
    build = lambda: experiment.build(config, SimpleNamespace(size=7))
    if section == "data":  # nothing of it is made here
        assert build().config is config
        return
    with pytest.raises(UserError, match="unknown"):
        build()
