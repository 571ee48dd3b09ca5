"""Where no bucket can be read or written, an address is refused in one line and makes no folder."""

from __future__ import annotations

import pytest

from ldd_jax.cli.command_line import flags_of
from ldd_jax.cli.main import COMMANDS
from tests.cli import tools
from tests.cli.test_refusals import refused

# Flags of texts, names and numbers: they are no places.
NO_PLACES = {
    "apply_chat_template", "data_field", "data_split", "distributed", "field", "fill", "gen_kwargs",
    "kind", "label", "latents", "law", "license", "likelihood", "mask", "method", "objective",
    "policies", "prefix", "problem", "prompt", "push", "resets", "samplers", "schedule", "seeds",
    "steps", "system_instruction", "task", "tasks", "temperatures", "title", "topology",
    "what", "plugin", "blocks", "split", "bound", "estimator", "latent", "tail", "names", "format",
    "time", "passes", "chain",
}  # fmt: skip


def flags_names(command):
    return [flag.name for flag in flags_of(command)]


PLACES = sorted(
    (name, flag.name)
    for name, command in COMMANDS.items()
    for flag in flags_of(command)
    if flag.flag_type() == "string"
    if flag.name not in NO_PLACES and flag.name not in command.buckets
)


@pytest.mark.parametrize("name, flag", PLACES)
def test_an_address_is_no_local_path(name, flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(
        tools.call(name, f"--{flag}=gs://b/r"), f"{name}: --{flag}=gs://b/r", "only local files"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", sorted(n for n, c in COMMANDS.items() if "config" in flags_names(c))
)
def test_nor_is_it_one_in_a_config_where_no_place_is_asked_for(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    field = "--config.optim.decay=s3://b/x"
    refused(tools.call(name, "--config=text", field), field, "only local files")
    assert not list(tmp_path.iterdir())


def test_a_text_may_hold_an_address(tmp_path):
    missing = tmp_path / "none"
    refused(tools.call("sample", "--prompt=http://a.b", f"--workdir={missing}"), "no config.json")
