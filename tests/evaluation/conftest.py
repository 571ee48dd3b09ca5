"""Equal programs are compiled once, as in tests/cli."""

from tests.cli.conftest import cache_folder, compile_once  # noqa: F401
