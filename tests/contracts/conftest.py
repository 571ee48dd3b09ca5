"""Equal programs are compiled once, as in tests/cli."""

from tests.cli.conftest import compile_once  # noqa: F401
