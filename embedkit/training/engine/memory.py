"""Memory of a training process on a CPU: what a step frees, the next one uses again."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# <malloc.h> of glibc: mallopt's numbers, and what it takes for them.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST_TO_TRIM = 2**31 - 1
MOST_FROM_HEAP = 2**30


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, for the rest of the process; return whether it can be told so (glibc can).

    By default it hands large pieces back to the system at once and gets them again, page by page and zeroed, in the next step: that
    took a tenth of a training step. The peak of memory stays what it is.
    Source: https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, MOST_FROM_HEAP)) and bool(mallopt(M_TRIM_THRESHOLD, MOST_TO_TRIM))
