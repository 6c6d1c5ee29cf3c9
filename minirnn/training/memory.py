"""Memory that a step has freed stays with the process for the next one.

By itself glibc returns large arrays to the system as soon as they are freed; the next step gets the same pages back one fault at a time,
each of them cleared. `python -m minirnn.bench.conv --return-memory` shows what that costs.
"""

from __future__ import annotations

import ctypes
import sys

# Of malloc.h: arrays of at least MMAP_THRESHOLD bytes are mapped one by one, and unmapped when they are freed; of the heap, what is free at
# its end is returned where it is more than TRIM_THRESHOLD.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc takes no more
NEVER = 2**31 - 1


def keep_freed() -> bool:
    """Let this process keep the memory that it frees. False where the C library is not glibc; then nothing changes."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)) and bool(mallopt(TRIM_THRESHOLD, NEVER))
