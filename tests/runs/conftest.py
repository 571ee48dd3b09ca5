"""A corpus, and a trained workdir per method, as in tests/cli."""

from tests.cli.conftest import (  # noqa: F401
    compile_once,
    text,
    train_flags,
    trained,
)
