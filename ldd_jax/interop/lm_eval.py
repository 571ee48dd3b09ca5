"""lm-evaluation-harness's own command line with this library's models in it.

    python -m ldd_jax.interop.lm_eval --model ldd_jax --model_args workdir=DIR --tasks hellaswag

All its flags are its own. It has no entry points for models, so that its bare `lm_eval` cannot know
of ours before somebody imports them; that is all that happens here.
"""

from __future__ import annotations

import sys

from ldd_jax.core.checks import RunError, UserError, one_line
from ldd_jax.core.console import say
from ldd_jax.core.memory import keep_freed_memory


def run() -> None:
    """Console entry point: the harness's, with bad input as one line and exit status 2."""
    keep_freed_memory()
    try:
        from lm_eval.__main__ import cli_evaluate

        import ldd_jax.interop.harness  # noqa: F401  (registers the model)

        cli_evaluate()
    except (UserError, RunError) as error:
        say(f"ldd_jax: {one_line(error)}", error=True)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except ImportError as error:
        say(f"ldd_jax: {one_line(error)}; pip install 'ldd-jax[lm-eval]'", error=True)
        sys.exit(2)


if __name__ == "__main__":
    run()
