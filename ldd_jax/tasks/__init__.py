"""Problems that are generated and checked exactly: Countdown, Game of 24, Sudoku."""

from ldd_jax.tasks.base import SEPARATOR, Task
from ldd_jax.tasks.countdown import Countdown
from ldd_jax.tasks.game24 import Game24
from ldd_jax.tasks.sudoku import Sudoku

__all__ = ["SEPARATOR", "Countdown", "Game24", "Sudoku", "Task"]
