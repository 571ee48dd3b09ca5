"""Freed memory stays with the process: XLA on a CPU frees and takes its buffers at every step.

glibc returns large buffers to the kernel when they are freed, so that every step faults its pages
in anew. One arena that is never trimmed keeps them.
"""

from __future__ import annotations

import ctypes
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
