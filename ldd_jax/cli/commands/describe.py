"""The `config` and `list` commands: what can be chosen, before anything runs."""

from __future__ import annotations

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import config_flag, need
from ldd_jax.core.console import say


def _config_flags(values: flags.FlagValues) -> None:
    config_flag(values)
    flags.DEFINE_string(
        "field", "", "Section or field, such as optim or process.schedule.", flag_values=values
    )


def _config(values: flags.FlagValues) -> None:
    config = need(values, "config")
    from ldd_jax.config import describing, stored

    stored.check_sections(config, "the config file")
    say(*describing.explained(config, values.field))


def _list_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "kind", "", "Kind of component, such as step; also bare.", flag_values=values
    )


def _list(values: flags.FlagValues) -> None:
    from ldd_jax import tasks  # noqa: F401  (they register)
    from ldd_jax.config import describing, experiment, recipes  # noqa: F401

    say(*describing.listing(values.kind))


CONFIG = Command("say every field of a config: type, default, meaning", _config_flags, _config)
LIST = Command(
    "name the registered components, yours included", _list_flags, _list, argument="kind"
)
