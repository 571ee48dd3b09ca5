"""Memory of a process that runs XLA on a CPU: its buffers are freed and taken at every step.

glibc returns large buffers to the kernel when they are freed, so that every step faults its pages
in anew. One arena that is never trimmed keeps them.
"""

from __future__ import annotations

import ctypes
import gc
import sys

# Numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed buffers; call before JAX starts its threads.

    Returns:
      Whether it was possible (Linux with glibc).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)


# New containers that stay before the youngest are looked at, and rounds of that for each older age.
_SELDOM = (100_000, 20, 100)


def collect_seldom() -> None:
    """Look for unreachable cycles seldom, and not in what is there now.

    Modules and traced programs are large and stay: looking through them took an eighth of the time
    of tests that trace and compile.
    """
    gc.freeze()
    gc.set_threshold(*_SELDOM)
