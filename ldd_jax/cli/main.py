"""The command line: flags and subcommands.

Exit status 0: done; 2: bad input; 75: stopped before its end, on request or because another process
of the run is gone, and the same command goes on; 1: anything else.
"""

from __future__ import annotations

import os
import sys
from logging import getLogger

from absl import logging

from ldd_jax import __version__
from ldd_jax.cli.command_line import config_file, describe, named_plugins, parse
from ldd_jax.cli.commands import shared
from ldd_jax.cli.commands.bench import BENCH, GEN_PPL
from ldd_jax.cli.commands.describe import CONFIG, LIST
from ldd_jax.cli.commands.distill import DISTILL
from ldd_jax.cli.commands.energy import ENERGY
from ldd_jax.cli.commands.evaluate import EVALUATE
from ldd_jax.cli.commands.harness import LM_EVAL
from ldd_jax.cli.commands.import_export import EXPORT, IMPORT, PUBLISH
from ldd_jax.cli.commands.mechanism import MECHANISM
from ldd_jax.cli.commands.plan import LAB, PLAN
from ldd_jax.cli.commands.play import PLAY
from ldd_jax.cli.commands.report import REPORT
from ldd_jax.cli.commands.sample import SAMPLE
from ldd_jax.cli.commands.tasks import SOLVE, VERIFY
from ldd_jax.cli.commands.train import PREPARE, REPLAY, TRAIN
from ldd_jax.cli.commands.watch import WATCH
from ldd_jax.config import packaged, plugins
from ldd_jax.core import compilation
from ldd_jax.core.checks import (
    UNFINISHED,
    RunError,
    Unfinished,
    UserError,
    nearest,
    one_line,
    require,
)
from ldd_jax.core.console import OUT, say
from ldd_jax.core.memory import collect_seldom, keep_freed_memory
from ldd_jax.core.storage import is_url

COMMANDS = {
    "train": TRAIN,
    "watch": WATCH,
    "evaluate": EVALUATE,
    "sample": SAMPLE,
    "distill": DISTILL,
    "energy": ENERGY,
    "import": IMPORT,
    "export": EXPORT,
    "publish": PUBLISH,
    "bench": BENCH,
    "gen-ppl": GEN_PPL,
    "mechanism": MECHANISM,
    "report": REPORT,
    "play": PLAY,
    "lm-eval": LM_EVAL,
    "plan": PLAN,
    "lab": LAB,
    "prepare": PREPARE,
    "solve": SOLVE,
    "replay": REPLAY,
    "verify": VERIFY,
    "config": CONFIG,
    "list": LIST,
}


def usage() -> str:
    """What `--help` prints."""
    lines = [f"  {name:10s}{command.help}" for name, command in COMMANDS.items()]
    return (
        f"ldd_jax {__version__}\nusage: python -m ldd_jax COMMAND [--flags]; COMMAND --help lists "
        "them\n" + "\n".join(lines)
    )


def main(argv: list[str], *, own_process: bool = False) -> int:
    """Run a command line; returns the exit status.

    With `own_process` it may change how JAX works in this process: compiled programs are kept.
    """
    status = 1
    try:
        status = _main(argv, own_process)
    except Exception:
        shared.leave_if_alone()
        raise
    finally:
        shared.part(status)
    return status


def _main(argv: list[str], own_process: bool) -> int:
    if not argv or argv[0] in ("--help", "-h", "help"):
        say(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        say(__version__)
        return 0
    argv = packaged.spelled_out(argv)
    try:
        require(argv[0] in COMMANDS, f"unknown command {argv[0]!r}; {nearest(argv[0], COMMANDS)}")
        command = COMMANDS[argv[0]]
        with plugins.named(named_plugins(command, argv[1:])):
            values = parse(argv[0], command, argv[1:])
            plugins.name_config(config_file(argv[1:]))
            if values.help:
                say(describe(argv[0], command, values))
                return 0
            if own_process and command.compiles and values.compilation_cache:
                compilation.ask()
            command.execute(values)
    except Unfinished:
        return UNFINISHED
    except (UserError, RunError) as error:
        say(f"ldd_jax: {one_line(error)}", error=True)
        return 2 if isinstance(error, UserError) else 1
    except OSError as error:  # what a reader or writer has no words of its own for
        if not (isinstance(error.filename, str) and is_url(error.filename)):
            raise
        say(f"ldd_jax: {one_line(OSError(f'{error.filename}: {error.strerror}'))}", error=True)
        return 1
    except (MemoryError, RuntimeError) as error:
        shared.leave_if_alone()
        if not (isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)):
            raise
        say(f"ldd_jax: out of memory: {one_line(error)}", error=True)
        return 1
    except KeyboardInterrupt:
        say("ldd_jax: interrupted", error=True)
        return 1
    return 0


def run() -> None:
    """Console entry point."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # What a failed write is for the user is said in one line; Orbax prints its own traces as well.
    logging.set_verbosity(logging.FATAL)
    getLogger("asyncio").setLevel("CRITICAL")
    keep_freed_memory()
    collect_seldom()
    status = main(sys.argv[1:], own_process=True)
    OUT.flush()
    sys.exit(status)
